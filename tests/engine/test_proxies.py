from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hwnas.engine import proxies
from hwnas.engine.architecture import to_architecture
from hwnas.engine.evaluation.batchnorm import recalibrate
from hwnas.engine.proxies import NOTHING, Score, initialised
from hwnas.engine.proxies.gradient_kernel import proxy as gradient_kernel
from hwnas.engine.proxies.gradient_kernel_released import proxy as gradient_kernel_released
from hwnas.engine.proxies.naswot import proxy as naswot
from hwnas.engine.proxies.zen import proxy as zen
from tests.engine.proxy_contract import CELLS, DENSE, NO_PATH, ProxyContract, batch, cells, score_of, trained

RNG = np.random.default_rng(0)


class TestEveryProxy(ProxyContract):
    @pytest.fixture(params=proxies.names())
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)


def plain() -> nn.Sequential:
    """A network without BatchNorm, whose images do not see each other."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).append(nn.Linear(6, 10))


def test_the_proxies_are_the_files_of_the_folder() -> None:
    known = {"params", "macs", "zen", "gradient_kernel", "gradient_kernel_released", "naswot", "inherited_accuracy"}
    assert known <= set(proxies.names())


def test_an_unknown_proxy_names_the_known_ones() -> None:
    with pytest.raises(LookupError, match=r"'horoscope'.*gradient_kernel, .*zen"):
        proxies.make("horoscope", CELLS, *batch())


def test_the_gradient_kernel_is_the_mean_over_all_pairs_of_images() -> None:
    network = plain()
    images, labels = batch(6)
    rows = []
    for i in range(6):
        loss = F.cross_entropy(network(images[i : i + 1]), labels[i : i + 1])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]))
    gram = torch.stack(rows) @ torch.stack(rows).T
    assert gradient_kernel(network, images, labels, rng=RNG) == pytest.approx(float(gram.mean()), rel=1e-5)


def test_the_released_kernel_is_the_covariance_of_the_two_halves() -> None:
    network = plain()
    images, labels = batch(8)
    rows = []
    for k in range(4):
        part = slice(2 * k, 2 * k + 2)
        loss = F.cross_entropy(network(images[part]), labels[part])
        all_of_them = torch.autograd.grad(loss, list(network.parameters()))
        rows.append(torch.cat([g.flatten()[:100] for g in all_of_them if g.numel() >= 50]).double().numpy())
    covariance = sum(
        np.cov([rows[0][i], rows[1][i]], [rows[2][i], rows[3][i]], ddof=0)[0, 1] * 2 for i in range(len(rows[0]))
    )
    assert gradient_kernel_released(network, images, labels, rng=RNG) == pytest.approx(covariance, rel=1e-4)


def test_naswot_counts_the_units_that_agree() -> None:
    network = nn.Sequential(nn.Flatten(), nn.ReLU())
    images = torch.tensor([[1.0, 1, -1, -1], [1, -1, -1, -1], [-1, -1, 1, 1]]).reshape(3, 1, 2, 2)
    kernel = np.array([[4, 3, 0], [3, 4, 1], [0, 1, 4]]) + np.eye(3)
    found = naswot(network, images, torch.zeros(3, dtype=torch.int64), rng=RNG)
    assert found == pytest.approx(np.log(np.linalg.det(kernel)))


def test_zen_of_a_linear_network_is_the_reaction_and_the_scale_that_batchnorm_took_away() -> None:
    images, labels = batch(64, 6)
    single = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False))
    normed = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8))
    # what BatchNorm divides by comes back as the logarithm of its deviation, up to the spread of channels
    first, second = (zen(network, images, labels, rng=np.random.default_rng(1)) for network in (single, normed))
    assert first == pytest.approx(second, abs=0.2)


def test_zen_does_not_depend_on_the_data() -> None:
    images, labels = batch(8, 12)
    one, other = (zen(plain(), some, labels, rng=np.random.default_rng(1)) for some in (images, images * 100 + 7))
    assert one == other


def test_zen_rises_with_depth() -> None:
    images, labels = batch(8, 12)

    def deep(n: int) -> nn.Sequential:
        layers = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(n)]
        return nn.Sequential(nn.Conv2d(1, 4, 3), *layers)

    scores = [zen(deep(n), images, labels, rng=np.random.default_rng(1)) for n in (1, 3, 6)]
    assert scores == sorted(scores)


def test_inherited_accuracy_is_that_of_the_trained_weights() -> None:
    images, labels = batch()
    network = recalibrate(trained().subnet(to_architecture(DENSE[0])), [images])  # type: ignore[operator]
    expected = float((network(images).argmax(1) == labels).float().mean())
    assert score_of("inherited_accuracy").each(DENSE)[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["gradient_kernel", "macs", "naswot", "params", "zen"])
def test_a_network_that_ignores_its_input_promises_less_than_one_that_does_not(name: str) -> None:
    score = score_of(name)
    assert score(NO_PATH)[0] > score(DENSE)[0]


def test_what_needs_no_weights_is_computed_once() -> None:
    assert score_of("macs").seeds == score_of("inherited_accuracy").seeds == (0,)
    assert score_of("zen").seeds == (0, 1)


def test_a_network_that_explodes_promises_nothing() -> None:
    def exploding(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, rng: np.random.Generator) -> float:
        return float("inf")

    score = Score("exploding", exploding, "fresh", CELLS, *batch(), seeds=(0,))
    assert (score(DENSE) == -NOTHING).all()


def test_a_score_is_a_cost_that_falls_with_the_promise() -> None:
    score = score_of("params")
    X = cells(8)
    np.testing.assert_array_equal(score(X), -score.each(X)[0])
    assert score(DENSE)[0] == min(score(np.concatenate([X, DENSE])))


def test_new_weights_have_the_scale_of_a_network_of_their_own_width() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64))
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[1].weight.fill_(7.0)
    initialised(network)
    assert network[0].weight.std().item() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.1)
    assert (network[1].weight == 1).all()


def test_a_batch_that_is_none_is_an_error() -> None:
    images, labels = batch()
    with pytest.raises(ValueError, match="are no batch"):
        proxies.make("zen", CELLS, images, labels[:3])
    with pytest.raises(ValueError, match="no seeds"):
        proxies.make("zen", CELLS, images, labels, seeds=())
    with pytest.raises(ValueError, match="give the trained supernet"):
        proxies.make("inherited_accuracy", CELLS, images, labels)


def test_a_network_that_a_proxy_cannot_read_is_an_error() -> None:
    images, labels = batch()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ValueError, match="no activation is a module"):
        naswot(flat, images, labels, rng=RNG)
    with pytest.raises(ValueError, match="no layer gives a map"):
        zen(flat, images, labels, rng=RNG)
    with pytest.raises(ValueError, match="give 8 or more"):
        gradient_kernel_released(flat, images[:6], labels[:6], rng=RNG)
