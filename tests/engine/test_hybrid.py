"""The hybrid chain: its genes mean networks, its subnets are its supernet, its tensor is shared as it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.energy import FLOAT32, INT8, block_energy_uj
from hwnas.engine.evaluation.complexity import block_macs, block_params
from hwnas.engine.spaces.hybrid import Config, HybridSpace, Layer, build
from hwnas.engine.spaces.hybrid.space import Sharing
from hwnas.engine.training.criteria import TrainedPath, make
from hwnas.engine.training.criteria.weight_distribution import Config as PenaltyConfig
from hwnas.engine.training.criteria.weight_distribution import WeightDistribution
from hwnas.engine.training.trainer import Trainer, TrainingConfig
from tests.engine.training_runs import dataset

SHARINGS: tuple[Sharing, ...] = ("mapped", "naive", "separate")


def space(sharing: Sharing = "mapped") -> HybridSpace:
    layers = (Layer(widths=(4, 6)), Layer(widths=(4, 8), stride=2, kernel=1))
    return build(Config(resolution=8, stem_width=5, layers=layers, sharing=sharing), in_channels=1, classes=10)


def worn(found: HybridSpace) -> nn.Module:
    """A supernet whose BatchNorm and scales are not those it is born with."""
    torch.manual_seed(0)
    supernet = found.supernet()
    for name, parameter in supernet.named_parameters():
        if "norms" in name or "scales" in name:
            nn.init.uniform_(parameter, 0.5, 3)
    for _, module in supernet.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean)
    return supernet.eval()


@pytest.mark.parametrize("sharing", SHARINGS)
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 1000))
def test_a_subnet_equals_the_supernet_with_its_architecture_active(sharing: Sharing, seed: int) -> None:
    found = space(sharing)
    supernet = worn(found)
    architecture = arch.to_architecture(arch.sample(found.genes, 1, np.random.default_rng(seed))[0])
    supernet.activate(architecture)  # type: ignore[operator]
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = supernet(images)
        assert torch.allclose(supernet.subnet(architecture)(images), expected, atol=1e-4)  # type: ignore[operator]


def test_a_subnet_is_made_of_the_blocks_of_its_space() -> None:
    found = space()
    for row in arch.sample(found.genes, 10, np.random.default_rng(1)):
        architecture = arch.to_architecture(row)
        x = torch.randn(1, *found.input_shape(architecture))
        modules = found.supernet().subnet(architecture).children()  # type: ignore[operator]
        for module, block in zip(modules, arch.blocks(found, architecture), strict=True):
            assert (tuple(x.shape),) == block.inputs
            x = module(x)


def test_operators_share_one_tensor_and_never_a_norm() -> None:
    one, each = space("mapped").supernet(), space("separate").supernet()
    assert [len(layer.weights) for layer in one.layers] == [1, 1]  # type: ignore[union-attr]
    assert [len(layer.weights) for layer in each.layers] == [3, 3]  # type: ignore[union-attr]
    assert all(set(layer.norms) == {"conv", "shift", "add"} for layer in one.layers)  # type: ignore[union-attr]


def test_mapped_additions_begin_with_the_spread_that_additions_need() -> None:
    torch.manual_seed(0)
    layer = space("mapped").supernet().layers[0]  # type: ignore[index]
    assert float(layer.weight("add").std()) == pytest.approx(8**0.5, rel=1e-3)
    assert torch.equal(layer.weight("add").sign(), layer.weight("conv").sign())


def test_a_space_of_some_operators_has_no_others() -> None:
    found = space().with_operators("conv", "add")
    blocks = arch.every_block(found)
    assert {dict(block.kwargs).get("operator") for block in blocks if block.factory == "hybrid.layer"} == {
        "conv",
        "add",
    }
    assert arch.size(found.genes) == 16
    assert set(blocks) < set(arch.every_block(space()))


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [({"widths": [8, 4]}, "from small to large"), ({"widths": [4], "operators": ["add", "add"]}, "each operator once")],
)
def test_options_that_mean_nothing_are_refused(layer: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Config.model_validate({"resolution": 8, "layers": [layer]})


# ---- energy ---------------------------------------------------------------------------------------------------------


def test_accumulations_and_parameters_do_not_depend_on_the_operator() -> None:
    found = space()
    X = np.array([arch.extreme(found.with_operators(o).genes, largest=True) for o in ("conv", "shift", "add")])
    for cost in (block_macs, block_params):
        assert len(set(AdditiveCost.of(found, cost)(X).tolist())) == 1


def test_energy_of_a_layer_by_hand() -> None:
    found = space()
    block = next(
        b for b in arch.every_block(found) if dict(b.kwargs).get("operator") == "conv" and dict(b.kwargs)["kernel"] == 1
    )
    values = dict(block.kwargs)
    incoming, outgoing, stride = (int(values[k]) for k in ("in_channels", "out_channels", "stride"))  # type: ignore[call-overload]
    size = block.inputs[0][-1]
    positions = (size // stride) ** 2
    macs, inputs, outputs = positions * incoming * outgoing, incoming * size**2, positions * outgoing
    weights = incoming * outgoing
    sent = weights * -(-positions // 12) + inputs * -(-outgoing // 16) + outputs
    expected = macs * (3.7 + 0.9 + 4 * 3.7) + (weights + inputs + outputs) * 200 + sent * 8 * 3.7
    assert block_energy_uj(block) == pytest.approx(expected / 1e6)


def test_the_released_accounting_favours_additions_and_the_equal_one_less() -> None:
    found = space()
    X = np.array([arch.extreme(found.with_operators(o).genes, largest=True) for o in ("conv", "shift", "add")])
    released = AdditiveCost.of(found, lambda block: block_energy_uj(block, accounting="released"))(X)
    equal = AdditiveCost.of(found, block_energy_uj)(X)
    assert released[0] == equal[0]  # convolutions are charged alike
    assert released[2] < released[1] < released[0]
    assert released[2] < equal[2] < equal[0]
    small = AdditiveCost.of(found, lambda block: block_energy_uj(block, table=INT8))(X)
    assert (small < equal).all()
    assert FLOAT32.dram == INT8.dram  # what is saved is the operations


# ---- the penalty ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 40))
def test_quantile_matching_is_the_least_over_all_pairings(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(rng.normal(size=n))
    criterion = WeightDistribution(PenaltyConfig())
    found = float(criterion.penalty(weight, laplacian=False))
    from scipy.stats import norm

    target = norm.ppf((np.arange(n) + 0.5) / n)
    others = [np.mean((rng.permutation(weight.numpy()) - target) ** 2) for _ in range(20)]
    assert found <= min(others) + 1e-9


def test_weights_that_have_the_distribution_pay_nothing() -> None:
    criterion = WeightDistribution(PenaltyConfig(laplace_scale=2.0))
    middles = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    quantiles = torch.where(middles < 0.5, (2 * middles).log(), -(2 - 2 * middles).log()) * 2
    shuffled = quantiles[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    assert float(criterion.penalty(shuffled, laplacian=True)) == pytest.approx(0, abs=1e-12)
    assert float(criterion.penalty(3 * shuffled, laplacian=True)) > 1


def test_by_shape_alone_the_scale_costs_nothing() -> None:
    criterion = WeightDistribution(PenaltyConfig(gaussian_std="own"))
    weight = torch.randn(100, generator=torch.Generator().manual_seed(0))
    small = float(criterion.penalty(0.01 * weight, laplacian=False))
    assert small == pytest.approx(float(criterion.penalty(weight, laplacian=False)), rel=1e-4)


def test_the_released_penalty_is_least_at_a_flat_tensor_on_average() -> None:
    criterion = WeightDistribution(PenaltyConfig(kind="index_kl"))
    rng = np.random.default_rng(0)
    flat, laplacian = torch.zeros(500), torch.from_numpy(rng.laplace(0, 2, 500)).float()
    costs = {
        name: np.mean([float(criterion.penalty(weight, laplacian=True)) for _ in range(30)])
        for name, weight in (("flat", flat), ("laplacian", laplacian))
    }
    assert costs["flat"] < costs["laplacian"]  # though the second is a draw from the very target


def test_a_resumed_training_draws_the_next_samples() -> None:
    weight = torch.randn(50, generator=torch.Generator().manual_seed(0))
    unbroken = WeightDistribution(PenaltyConfig(kind="index_kl"))
    first, second = (float(unbroken.penalty(weight, laplacian=True)) for _ in range(2))
    resumed = WeightDistribution(PenaltyConfig(kind="index_kl"))
    assert float(resumed.penalty(weight, laplacian=True)) == first
    again = WeightDistribution(PenaltyConfig(kind="index_kl"))
    again.restore(resumed.state())
    assert float(again.penalty(weight, laplacian=True)) == second


def test_the_penalty_reaches_what_the_path_uses_alone() -> None:
    found = space("separate").with_operators("add")
    supernet = found.supernet()
    supernet.activate(arch.extreme(found.genes, largest=False))  # type: ignore[operator]
    logits = torch.zeros(2, 10, requires_grad=True)
    criterion = make("weight_distribution", {}, label_smoothing=0.0)
    path = TrainedPath(supernet, supernet.active, "random", logits, torch.zeros(2), 0.5, {})  # type: ignore[arg-type]
    criterion(path).backward()  # type: ignore[no-untyped-call]
    reached = {name for name, p in supernet.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == {"layers.0.weights.add", "layers.1.weights.add"}


def test_a_chain_of_all_operators_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = space()
    config = TrainingConfig.model_validate(
        {
            "sampler": "uniform",
            "criterion": ["cross_entropy", {"name": "weight_distribution", "gaussian_std": "own"}],
            "epochs": 25,
            "evaluate_every": 25,
            "batch": 32,
            "gradient_norm": 1e3,
        }
    )
    supernet = found.supernet()
    before = [layer.weights["shared"].detach().clone() for layer in supernet.layers]  # type: ignore[union-attr, index]
    history = Trainer(found, supernet, dataset(), config, tmp_path).run()
    assert history[-1].accuracy_largest is not None
    assert history[-1].accuracy_largest > 0.3  # ten classes: 0.1 is chance
    after = [layer.weights["shared"] for layer in supernet.layers]  # type: ignore[union-attr, index]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
