"""Diagnostics say what they should of networks whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.engine import architecture as arch
from hwnas.engine.diagnostics import (
    Interference,
    batchnorm_drift,
    by_distance,
    gradients_of,
    interference,
    pairs_at,
    permuted,
    recency,
)
from tests.engine.test_spaces import made

SPACE = made("chain")
IMAGES = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 10


@pytest.fixture
def supernet() -> nn.Module:
    torch.manual_seed(0)
    return SPACE.supernet().eval()


def test_a_network_agrees_with_itself(supernet: nn.Module) -> None:
    rows = [arch.to_architecture(row) for row in arch.sample(SPACE.genes, 6, np.random.default_rng(0))]
    found = interference(supernet, SPACE, [(row, row) for row in rows], IMAGES, LABELS)
    assert [each.distance for each in found] == [0] * 6
    assert all(cosine == pytest.approx(1.0, abs=1e-5) for each in found for cosine in each.cosines.values())
    assert any(each.cosines for each in found)


def test_gradients_are_those_of_the_loss_and_leave_no_trace(supernet: nn.Module) -> None:
    row = arch.extreme(SPACE.genes, largest=True)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    found = gradients_of(supernet, SPACE, row, IMAGES, LABELS)
    assert all(torch.equal(before[name], tensor) for name, tensor in supernet.state_dict().items())
    assert not supernet.training
    assert all(parameter.grad is None for parameter in supernet.parameters())
    supernet.train()
    supernet.activate(row)  # type: ignore[operator]  # a Supernet
    nn.functional.cross_entropy(supernet(IMAGES), LABELS).backward()
    expected = {n: p.grad.flatten() for n, p in supernet.named_parameters() if p.grad is not None and p.dim() > 1}
    assert set(found) == set(expected)
    assert all(torch.allclose(found[name], gradient, atol=1e-7) for name, gradient in expected.items())


def test_weights_that_all_networks_use_are_left_out(supernet: nn.Module) -> None:
    pairs = pairs_at(SPACE.genes, 2, 8, np.random.default_rng(0))
    found = interference(supernet, SPACE, pairs, IMAGES, LABELS)
    assert not any(name.startswith(("stem", "classify")) for each in found for name in each.cosines)


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_pairs_differ_in_as_many_genes_as_asked(distance: int) -> None:
    for first, second in pairs_at(SPACE.genes, distance, 20, np.random.default_rng(1)):
        assert sum(a != b for a, b in zip(first, second, strict=True)) == distance
        assert arch.check(SPACE.genes, second) == second


def test_pairs_too_far_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="ask for a smaller distance"):
        pairs_at(SPACE.genes, 40, 1, np.random.default_rng(0))


def test_a_trend_is_seen_and_a_shuffle_ends_it() -> None:
    rng = np.random.default_rng(0)
    found = [Interference(d, {"w": 1 / d + rng.normal(0, 0.05)}) for d in range(1, 6) for _ in range(200)]
    means = by_distance(found)
    assert list(means) == [1, 2, 3, 4, 5]
    assert all(means[d] > means[d + 1] for d in range(1, 5))
    assert np.ptp(list(by_distance(permuted(found, rng)).values())) < 0.2 * np.ptp(list(means.values()))


def test_statistics_of_its_own_have_not_drifted(supernet: nn.Module) -> None:
    subnet: nn.Module = supernet.subnet(arch.extreme(SPACE.genes, largest=True))  # type: ignore[operator]
    fresh = batchnorm_drift(subnet, [IMAGES])
    assert fresh is not None
    assert fresh.mean > 0.1
    from hwnas.engine.evaluation.batchnorm import recalibrate

    settled = batchnorm_drift(recalibrate(subnet, [IMAGES]), [IMAGES])
    assert settled is not None
    assert settled.mean < 1e-5
    assert settled.scale < 1e-5


def test_scores_that_fall_with_distance_to_the_last_step_are_recent() -> None:
    X = arch.sample(SPACE.genes, 100, np.random.default_rng(0))
    last = arch.to_architecture(X[0])
    away = (X[0] != X).sum(1)
    assert recency(-away.astype(float), X, [last]) == pytest.approx(1.0)
    assert abs(recency(np.random.default_rng(1).normal(size=100), X, [last])) < 0.3
    assert recency(np.zeros(100), X, [last]) == 0.0
