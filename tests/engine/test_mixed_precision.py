"""Precision wrapped round a space: its genes, its sizes, its networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.evaluation.complexity import block_macs, block_weight_mib
from hwnas.engine.evaluation.inherited import InheritedAccuracy
from hwnas.engine.journal import Journal
from hwnas.engine.quantisation import QuantisedLayer
from hwnas.engine.spaces import hybrid
from hwnas.engine.spaces.mixed_precision import Config, MixedPrecisionSpace, build
from hwnas.engine.spaces.mobilenet_v3 import Stage
from tests.engine.spaces import mobilenet
from tests.engine.toy_spaces import every
from tests.engine.training_runs import dataset

STAGES = (Stage(widths=(8,), depths=(1, 2), expansions=(2, 4), stride=2),)
INNER = mobilenet(stages=STAGES, resolutions=(8,))
SPACE = MixedPrecisionSpace(INNER, (2, 8, 32))


@pytest.fixture(scope="module")
def supernet() -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return SPACE.supernet().eval()


def test_an_empty_slot_has_no_bits() -> None:
    shallow = next(
        a for a in sorted(every(SPACE.genes)) if arch.options(INNER.genes, a[: len(INNER.genes)])["s1.depth"] == 1
    )
    assert "s1.b2.bits" not in arch.to_json(SPACE.genes, shallow)
    # stem, first block, head have bits: with the second block once more
    shallow_ones, deep_ones = 2, 2 * 2
    assert arch.size(SPACE.genes) == shallow_ones * 3**3 + deep_ones * 3**4 == len(every(SPACE.genes))


def test_in_floats_the_blocks_are_those_of_the_inner_space() -> None:
    assert set(arch.every_block(SPACE.at(32))) == set(arch.every_block(INNER))
    assert all(block.factory == "quantised.block" for block in arch.every_block(SPACE.at(2)))


def test_fewer_bits_are_less_weight_and_as_many_accumulations() -> None:
    size, macs = (AdditiveCost.of(SPACE, cost) for cost in (block_weight_mib, block_macs))
    X = np.array([arch.extreme(SPACE.at(bits).genes, largest=True) for bits in (2, 8, 32)])
    assert size(X)[0] < size(X)[1] < size(X)[2]
    assert len(set(macs(X).tolist())) == 1
    assert size.minimum()[0] == arch.extreme(SPACE.at(2).genes, largest=False)


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 1000))
def test_a_subnet_equals_the_supernet_with_its_architecture_active(supernet: nn.Module, seed: int) -> None:
    architecture = arch.to_architecture(arch.sample(SPACE.genes, 1, np.random.default_rng(seed))[0])
    evaluator = InheritedAccuracy(SPACE, supernet, dataset(120), Journal(":memory:"), calibration=64)
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = evaluator.reference(architecture)(images)
        assert torch.equal(evaluator.subnet(architecture)(images), expected)


def test_networks_that_share_what_they_begin_with_are_labelled_as_alone(supernet: nn.Module) -> None:
    data = dataset(120)
    X = arch.sample(SPACE.genes, 6, np.random.default_rng(3))
    X = np.unique(np.concatenate([X, X[:, :]]), axis=0)
    together = InheritedAccuracy(SPACE, supernet, data, Journal(":memory:"), calibration=64).errors(X)
    alone = [
        1 - InheritedAccuracy(SPACE, supernet, data, Journal(":memory:"), calibration=64).accuracy(row, data.validation)
        for row in map(arch.to_architecture, X)
    ]
    assert together.tolist() == pytest.approx(alone)


def test_training_computes_in_floats_whatever_the_bits_are(supernet: nn.Module) -> None:
    images = torch.randn(4, 1, 8, 8)
    own = len(INNER.genes)
    low, high = (arch.extreme(SPACE.at(bits).genes, largest=True) for bits in (2, 32))
    supernet.train()
    outputs = []
    for architecture in (low, high):
        supernet.activate(architecture)  # type: ignore[operator]
        outputs.append(supernet(images))
    supernet.eval()
    assert low[:own] == high[:own]
    assert torch.equal(*outputs)
    assert outputs[0].requires_grad


def test_what_is_active_is_no_state(supernet: nn.Module) -> None:
    names = set(supernet.state_dict())
    supernet.activate(arch.extreme(SPACE.at(2).genes, largest=True))  # type: ignore[operator]
    assert any(isinstance(module, QuantisedLayer) for module in supernet.modules())
    assert set(supernet.state_dict()) == names
    supernet.load_state_dict(supernet.state_dict())


def test_restricting_keeps_indices_and_meets_both_parts() -> None:
    found = SPACE.at(8)
    assert {gene.options for gene in found.genes if gene.name.endswith(".bits")} == {(2, 8, 32)}
    assert arch.size(found.genes) == arch.size(INNER.genes)
    assert every(found.genes) <= every(SPACE.genes)
    with pytest.raises(ValueError, match="must allow one"):
        SPACE.at(5)


def test_a_slot_that_a_restriction_empties_keeps_its_gene() -> None:
    mask = [[True] * len(gene.options) for gene in SPACE.genes]
    mask[[gene.name for gene in SPACE.genes].index("s1.depth")] = [True, False]
    found = SPACE.restrict(mask)
    assert [gene.name for gene in found.genes] == [gene.name for gene in SPACE.genes]
    assert every(found.genes) == {row for row in every(SPACE.genes) if arch.options(SPACE.genes, row)["s1.depth"] == 1}
    assert found.at(8).at(8).genes == found.at(8).genes


def test_chosen_slots_alone_have_bits() -> None:
    found = MixedPrecisionSpace(INNER, (4, 32), chosen=("head",))
    assert [gene.name for gene in found.genes if gene.name.endswith(".bits")] == ["head.bits"]
    with pytest.raises(ValueError, match="no slot is called 'neck'"):
        _ = MixedPrecisionSpace(INNER, (4, 32), chosen=("neck",)).genes


def test_shifts_and_additions_keep_their_own_numbers() -> None:
    layers = (hybrid.Layer(widths=(4,)),)
    inner = hybrid.build(hybrid.Config(resolution=8, layers=layers), in_channels=1, classes=3)
    found = MixedPrecisionSpace(inner, (4, 32))
    held = {dict(b.kwargs).get("operator"): b.factory for b in arch.every_block(found.at(4)) if b.inputs[0][1] == 12}
    assert held["add"] == held["shift"] == "hybrid.layer"


def test_a_configuration_builds_the_space_it_names() -> None:
    section = INNER.config.model_dump(mode="json")
    found = build(Config(space=section, bits=(4, 32)), in_channels=1, classes=10)
    assert found.inner == INNER
    assert Config.model_validate(Config(space=section).model_dump(mode="json")) == Config(space=section)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"bits": [8, 4]}, "from small to large"),
        ({"space": {"name": "nowhere"}}, "no 'nowhere' among the spaces"),
        ({"space": {}}, "name the space to wrap"),
        ({"space": {"name": "mobilenet_v3"}}, "resolutions"),
    ],
)
def test_mistakes_are_found_before_anything_starts(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Config.model_validate({"space": INNER.config.model_dump(mode="json"), **change})
