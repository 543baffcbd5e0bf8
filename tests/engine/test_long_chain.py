"""The L-chain: its genes mean networks, and its subnets are its supernet."""

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
from hwnas.engine.spaces import long_chain
from hwnas.engine.spaces.long_chain import Config, LongChainSpace, Stage


def space(nodes: tuple[int, ...] = (4, 3), reach: int = 3) -> LongChainSpace:
    stages = tuple(Stage(nodes=n, channels=4 + 2 * s) for s, n in enumerate(nodes))
    return long_chain.build(Config(resolution=9, stages=stages, reach=reach), in_channels=1, classes=5)


SPACE = space()


@pytest.fixture(scope="module")
def supernet() -> nn.Module:
    """A supernet whose statistics, affine parameters and strengths are not the ones it is born with."""
    torch.manual_seed(0)
    network = SPACE.supernet()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    nn.init.normal_(network.strengths)
    for _ in range(5):
        network(torch.randn(16, 1, 9, 9))
    return network.eval()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000))
@torch.no_grad()
def test_a_subnet_equals_the_supernet_with_its_architecture_active(supernet: nn.Module, seed: int) -> None:
    architecture = arch.to_architecture(arch.sample(SPACE.genes, 1, np.random.default_rng(seed))[0])
    images = torch.randn(3, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    supernet.activate(architecture)
    assert torch.allclose(supernet.subnet(architecture)(images), supernet(images), atol=1e-5)


def test_macs_and_params_of_the_blocks_are_those_of_the_network(supernet: nn.Module) -> None:
    X = arch.sample(SPACE.genes, 4, np.random.default_rng(1))
    subnets = [supernet.subnet(arch.to_architecture(row)) for row in X]
    assert AdditiveCost.of(SPACE, block_macs)(X).tolist() == [macs(subnet, (1, 1, 9, 9)) for subnet in subnets]
    params = [sum(p.numel() for p in subnet.parameters()) for subnet in subnets]
    assert AdditiveCost.of(SPACE, block_params)(X).tolist() == params


def test_every_node_reads_the_nodes_within_reach_and_no_others() -> None:
    names = [gene.name.removeprefix("s1.") for gene in space((4,), reach=2).genes]
    assert names == ["n1.from0", "n2.from0", "n2.from1", "n3.from1", "n3.from2", "n4.from2", "n4.from3"]


def test_a_longer_reach_only_adds_edges() -> None:
    short, long = ({gene.name for gene in space((6,), reach=reach).genes} for reach in (2, 4))
    assert short < long


def test_a_node_takes_a_single_edge_whole_and_the_mean_of_several_at_equal_strengths(supernet: nn.Module) -> None:
    fresh = SPACE.supernet()
    nn.init.zeros_(fresh.strengths)
    full = arch.extreme(SPACE.genes, largest=True)
    assert all(torch.allclose(weights, torch.tensor(0.5)) for weights in fresh.edge_weights(full))
    subnet = fresh.subnet(full)
    assert subnet.parts["s1_n4_from1"].scale == pytest.approx(1 / 3)  # of three edges
    assert subnet.parts["s1_n1_from0"].scale == 1
    links = arch.extreme(SPACE.genes, largest=False)
    assert fresh.edge_weights(links) == ()
    assert {float(part.scale) for name, part in fresh.subnet(links).parts.items() if "from" in name} == {1.0}


def test_strengths_learn_where_a_node_has_a_choice(supernet: nn.Module) -> None:
    network = SPACE.supernet()
    full = arch.extreme(SPACE.genes, largest=True)
    network.activate(full)
    network(torch.randn(4, 1, 9, 9)).sum().backward()
    moved = network.strengths.grad != 0
    single = [edge.target == 1 for edge in network.edges]
    assert (moved == ~torch.tensor(single)).all()


def test_weak_edges_are_left_out_of_the_derived_network() -> None:
    network = SPACE.supernet()
    with torch.no_grad():
        network.strengths.fill_(3.0)
        for i, edge in enumerate(network.edges):
            if edge.target == 3:
                network.strengths[i] = -3.0  # sigmoid 0.05
    values = arch.options(SPACE.genes, network.derived())
    assert values["s1.n3.from0"] == values["s1.n3.from1"] == "none"
    assert values["s1.n3.from2"] == "skip+separable3"  # a link stays
    assert values["s1.n4.from1"] == "skip+separable3"


def test_a_restricted_space_keeps_the_meaning_of_its_indices() -> None:
    mask = [[i == len(gene.options) - 1 for i in range(len(gene.options))] for gene in SPACE.genes]
    restricted = SPACE.restrict(mask)
    largest = arch.extreme(SPACE.genes, largest=True)
    assert arch.size(restricted.genes) == 1
    assert arch.blocks(restricted, largest) == arch.blocks(SPACE, largest)
    assert restricted.supernet().derived(least=0.9) == largest


def test_operations_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="from small to large"):
        Config(resolution=8, stages=(Stage(nodes=2, channels=4),), operations=("separable3", "skip"))
