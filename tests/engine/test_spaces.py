"""Every space keeps the role's contract. A space that cannot be built from a few numbers has tests of its own."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.devices.plugins import load_plugin, plugin_names
from hwnas.engine import architecture as arch
from hwnas.engine import spaces
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import Architecture, SearchSpace
from hwnas.engine.evaluation.batchnorm import recalibrate
from hwnas.engine.evaluation.complexity import block_macs, block_params

NAMES = [name for name in plugin_names(spaces) if hasattr(load_plugin(spaces, name), "EXAMPLE")]


@cache
def made(name: str) -> SearchSpace:
    plugin = load_plugin(spaces, name)
    space: SearchSpace = plugin.build(plugin.EXAMPLE, in_channels=1, classes=10)
    return space


def drawn(space: SearchSpace, n: int = 12) -> list[Architecture]:
    ends = [arch.extreme(space.genes, largest=largest) for largest in (True, False)]
    return ends + [arch.to_architecture(row) for row in arch.sample(space.genes, n, np.random.default_rng(0))]


def images(space: SearchSpace, architecture: Architecture, n: int = 4) -> torch.Tensor:
    return torch.randn(n, *space.input_shape(architecture), generator=torch.Generator().manual_seed(1))


def test_every_space_that_needs_no_file_has_an_example() -> None:
    assert set(plugin_names(spaces)) - set(NAMES) <= {"tabular", "once_for_all", "mixed_precision"}


@pytest.mark.parametrize("name", NAMES)
def test_a_subnet_equals_the_supernet_with_its_architecture_active(name: str) -> None:
    space = made(name)
    torch.manual_seed(0)
    supernet = space.supernet().eval()
    with torch.no_grad():
        for architecture in drawn(space):
            batch = images(space, architecture)
            supernet.activate(architecture)  # type: ignore[operator]  # a Supernet
            expected = supernet(batch)
            found = supernet.subnet(architecture)(batch)  # type: ignore[operator]
            assert expected.shape == (4, 10)
            assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_subnet_recalibrated_equals_the_supernet_recalibrated(name: str) -> None:
    space = made(name)
    torch.manual_seed(0)
    architecture = drawn(space)[-1]
    batch = images(space, architecture, 16)
    supernet = space.supernet()
    subnet: nn.Module = supernet.subnet(architecture)  # type: ignore[operator]  # a Supernet
    supernet.activate(architecture)  # type: ignore[operator]
    with torch.no_grad():
        expected, found = (recalibrate(network, [batch])(batch) for network in (supernet, subnet))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_trains_in_some_architecture(name: str) -> None:
    space = made(name)
    torch.manual_seed(0)
    supernet = space.supernet().train()
    for row in arch.sample(space.genes, 60, np.random.default_rng(0)):
        supernet.activate(arch.to_architecture(row))  # type: ignore[operator]  # a Supernet
        supernet(images(space, arch.to_architecture(row))).square().sum().backward()
    assert [key for key, parameter in supernet.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", NAMES)
def test_blocks_count_the_parameters_of_the_subnet(name: str) -> None:
    space = made(name)
    supernet = space.supernet()
    count = AdditiveCost.of(space, block_params)
    for architecture in drawn(space):
        subnet: nn.Module = supernet.subnet(architecture)  # type: ignore[operator]  # a Supernet
        assert count(np.array([architecture]))[0] == sum(p.numel() for p in subnet.parameters())


@pytest.mark.parametrize("name", [name for name in NAMES if getattr(load_plugin(spaces, name), "ORDERED", True)])
def test_the_largest_has_the_most_macs(name: str) -> None:
    space = made(name)
    macs = AdditiveCost.of(space, block_macs)
    costs = macs(np.array(drawn(space, 50)))
    assert costs[0] == costs.max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_restricted_space_keeps_the_meaning_of_its_indices(name: str) -> None:
    space = made(name)
    gene = max(range(len(space.genes)), key=lambda i: len(space.genes[i].options))
    mask = [[i != gene or option > 0 for option in range(len(each.options))] for i, each in enumerate(space.genes)]
    narrow = space.restrict(mask)
    supernet = space.supernet()
    for architecture in drawn(narrow, 5):
        assert arch.check(space.genes, architecture) == architecture
        supernet.activate(architecture)  # type: ignore[operator]  # a Supernet


@pytest.mark.parametrize("name", NAMES)
def test_fresh_supernets_of_one_seed_are_equal(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(made(name).supernet().state_dict())
    assert all(torch.equal(states[0][key], tensor) for key, tensor in states[1].items())
