"""Elastic MobileNetV3: its genes mean networks, and its subnets are its supernet."""

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
from hwnas.engine.evaluation.complexity import block_macs, block_params, macs
from hwnas.engine.spaces.mobilenet_v3 import Config, Stage
from hwnas.engine.spaces.mobilenet_v3.blocks import make_divisible
from tests.engine.spaces import STAGES, mobilenet

SPACE = mobilenet()


@pytest.fixture(scope="module")
def supernet() -> nn.Module:
    """A supernet whose statistics and affine parameters are not the ones it is born with."""
    torch.manual_seed(0)
    network = SPACE.supernet().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    for name, parameter in network.named_parameters():
        if "transforms" in name:
            nn.init.normal_(parameter, std=0.3)
    return network


@torch.no_grad()
def _difference(supernet: nn.Module, architecture: arch.Architecture) -> float:
    images = torch.randn(2, *SPACE.input_shape(architecture), generator=torch.Generator().manual_seed(1))
    supernet.activate(architecture)
    expected = supernet(images)
    return float((supernet.subnet(architecture)(images) - expected).abs().max() / expected.abs().max())


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000))
def test_a_subnet_equals_the_supernet_with_its_architecture_active(supernet: nn.Module, seed: int) -> None:
    architecture = arch.to_architecture(arch.sample(SPACE.genes, 1, np.random.default_rng(seed))[0])
    assert _difference(supernet, architecture) < 1e-5


def test_a_subnet_has_its_own_weights(supernet: nn.Module) -> None:
    architecture = arch.extreme(SPACE.genes, largest=True)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    for parameter in supernet.subnet(architecture).parameters():
        nn.init.zeros_(parameter)
    assert all(torch.equal(before[name], tensor) for name, tensor in supernet.state_dict().items())


def test_a_subnet_is_made_of_the_blocks_that_the_table_measures(supernet: nn.Module) -> None:
    architecture = arch.to_architecture(arch.sample(SPACE.genes, 1, np.random.default_rng(5))[0])
    blocks = arch.blocks(SPACE, architecture)
    modules = list(supernet.subnet(architecture).children())
    assert [type(module) for module in modules] == [type(block.recipe()()) for block in blocks]
    shapes = [[tuple(p.shape) for p in module.parameters()] for module in modules]
    assert shapes == [[tuple(p.shape) for p in block.recipe()().parameters()] for block in blocks]


@torch.no_grad()
def test_blocks_say_the_shapes_that_flow_through_the_network(supernet: nn.Module) -> None:
    for row in arch.sample(SPACE.genes, 20, np.random.default_rng(3)):
        architecture = arch.to_architecture(row)
        x = torch.randn(1, *SPACE.input_shape(architecture))
        subnet = supernet.subnet(architecture)
        for module, block in zip(subnet.children(), arch.blocks(SPACE, architecture), strict=True):
            assert (tuple(x.shape),) == block.inputs
            x = module(x)


def _warm(supernet: nn.Module) -> nn.Module:
    """The largest network with statistics of random images: a fresh one answers every image alike."""
    supernet.train()
    for _ in range(20):
        supernet(torch.randn(16, 1, 12, 12))
    return supernet.eval()


@torch.no_grad()
def test_sorting_channels_keeps_the_largest_network_and_changes_a_smaller_one() -> None:
    # expansions above 1 and a stride between the stages leave every channel free to move
    stages = tuple(stage.model_copy(update={"expansions": (2.0, 4.0), "stride": 2}) for stage in STAGES)
    space = mobilenet(stages=stages)
    torch.manual_seed(0)
    supernet = _warm(space.supernet())
    images = torch.randn(8, 1, 12, 12)
    largest = arch.extreme(space.genes, largest=True)
    narrow = (*largest[:2], 0, *largest[3:])  # the first stage at its smaller width

    def outputs() -> list[torch.Tensor]:
        found = []
        for architecture in (largest, narrow):
            supernet.activate(architecture)
            found.append(supernet(images))
        return found

    before = outputs()
    supernet.sort_channels()
    after = outputs()
    scale = float(before[0].std(0).mean())  # how much the output says of the input
    assert float((before[0] - after[0]).abs().max()) < 1e-4 * scale
    assert float((before[1] - after[1]).abs().max()) > 1e-2 * scale


@torch.no_grad()
def test_channels_that_a_residual_ties_stay_where_they_are() -> None:
    # stride 1 and a common width: the second stage can add the first stage's output to its own
    stages = (STAGES[0], STAGES[0].model_copy(update={"widths": (16, 24)}))
    space = mobilenet(stages=stages)
    supernet = _warm(space.supernet())
    images = torch.randn(8, 1, 12, 12)
    before = supernet(images)
    supernet.sort_channels()
    assert float((supernet(images) - before).abs().max()) < 1e-4 * float(before.std(0).mean())


def test_a_smaller_kernel_is_the_transformed_centre_of_the_larger_one(supernet: nn.Module) -> None:
    depthwise = supernet.stages[0][0].depthwise
    centre = depthwise.weight[:4, :, 1:6, 1:6].reshape(4, 25) @ depthwise.transforms["to_5"]
    assert torch.allclose(depthwise.kernel_weight(4, 5), centre.reshape(4, 1, 5, 5))


def test_macs_of_the_blocks_are_the_macs_of_the_network(supernet: nn.Module) -> None:
    cost = AdditiveCost.of(SPACE, block_macs)
    X = arch.sample(SPACE.genes, 10, np.random.default_rng(1))
    whole = [macs(supernet.subnet(a), (1, *SPACE.input_shape(a))) for a in map(arch.to_architecture, X)]
    assert cost(X).tolist() == whole


def test_params_of_the_blocks_are_the_params_of_the_network(supernet: nn.Module) -> None:
    cost = AdditiveCost.of(SPACE, block_params)
    X = arch.sample(SPACE.genes, 10, np.random.default_rng(1))
    whole = [sum(p.numel() for p in supernet.subnet(a).parameters()) for a in map(arch.to_architecture, X)]
    assert cost(X).tolist() == whole


def test_macs_of_a_known_convolution() -> None:
    # 3x3 over 8 -> 16 channels on 10x10 outputs, then 16 -> 5
    network = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    assert macs(network, (1, 8, 10, 10)) == 9 * 8 * 16 * 100 + 16 * 5


def test_options_that_round_to_one_network_are_refused() -> None:
    with pytest.raises(ValidationError, match="twice the same network"):
        Config(resolutions=(8,), stem_width=8, stages=(Stage(widths=(8,), depths=(1,), expansions=(2, 2.2)),))


def test_options_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="from small to large"):
        Stage(widths=(16, 8), depths=(1,))


@given(st.floats(1, 500), st.sampled_from([4, 8, 16]))
def test_rounded_channels_are_multiples_and_lose_at_most_a_tenth(channels: float, divisor: int) -> None:
    rounded = make_divisible(channels, divisor)
    assert rounded % divisor == 0
    assert rounded >= 0.9 * channels
    assert rounded <= max(divisor, channels + divisor)


def test_a_restricted_space_keeps_the_meaning_of_its_indices() -> None:
    mask = [[i == len(gene.options) - 1 for i in range(len(gene.options))] for gene in SPACE.genes]
    restricted = SPACE.restrict(mask)
    largest = arch.extreme(SPACE.genes, largest=True)
    assert arch.size(restricted.genes) == 1
    assert arch.extreme(restricted.genes, largest=False) == largest
    assert arch.blocks(restricted, largest) == arch.blocks(SPACE, largest)
