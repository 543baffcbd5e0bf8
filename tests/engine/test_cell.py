"""Cells: genes mean networks, subnets are their supernet, and a mixture of one operation an edge is that network."""

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
from hwnas.engine.spaces.cell import CellSpace, CellSupernet, Config, DropBlockIdentity, build

OPERATIONS = ("none", "skip", "conv1x1", "conv3x3", "separable3x3", "avgpool")
# an odd size: what halves it must agree with itself
SPACE = build(Config(resolution=7, operations=OPERATIONS, channels=4, stages=2, cells=2), in_channels=3, classes=5)


@pytest.fixture(scope="module")
def supernet() -> CellSupernet:
    """A supernet whose statistics and affine parameters are not the ones it is born with."""
    torch.manual_seed(0)
    network = CellSupernet(SPACE).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def images(space: CellSpace = SPACE, n: int = 2) -> torch.Tensor:
    shape = space.input_shape((0,) * len(space.genes))
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1))


def drawn(seed: int, n: int = 1) -> list[arch.Architecture]:
    return [arch.to_architecture(row) for row in arch.sample(SPACE.genes, n, np.random.default_rng(seed))]


def test_genes_are_the_edges_of_nas_bench_201_in_its_order() -> None:
    space = build(Config(), in_channels=3, classes=10)
    assert [gene.name for gene in space.genes] == ["0-1", "0-2", "1-2", "0-3", "1-3", "2-3"]
    assert space.genes[0].options == ("none", "skip", "conv1x1", "conv3x3", "avgpool")
    assert arch.size(space.genes) == 15_625


@torch.no_grad()
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_a_subnet_equals_the_supernet_with_its_architecture_active(supernet: CellSupernet, seed: int) -> None:
    (architecture,) = drawn(seed)
    supernet.activate(architecture)
    expected = supernet(images())
    assert torch.allclose(supernet.subnet(architecture)(images()), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_a_mixture_with_all_weight_on_one_operation_an_edge_is_that_architecture(
    supernet: CellSupernet, seed: int
) -> None:
    (architecture,) = drawn(seed)
    weights = torch.eye(len(OPERATIONS))[list(architecture)]
    supernet.activate(architecture)
    expected = supernet(images())
    assert torch.allclose(supernet.mixture(images(), weights), expected, rtol=1e-5, atol=1e-5)
    alone = supernet.mixture(images(), weights, executed=[[option] for option in architecture])
    assert torch.allclose(alone, expected, rtol=1e-5, atol=1e-5)


def test_a_mixture_gives_every_option_a_gradient_but_none(supernet: CellSupernet) -> None:
    weights = torch.full((6, len(OPERATIONS)), 1 / len(OPERATIONS), requires_grad=True)
    supernet.mixture(images(), weights)[:, 0].sum().backward()
    assert weights.grad is not None
    assert (weights.grad[:, 0] == 0).all()
    assert (weights.grad[:, 1:] != 0).all()


@torch.no_grad()
def test_a_restricted_space_leaves_masked_operations_out_of_its_mixture() -> None:
    mask = [[name in ("skip", "conv1x1") for name in OPERATIONS]] * 6
    space = SPACE.restrict(mask)
    torch.manual_seed(0)
    network = CellSupernet(space).eval()
    weights = torch.full((6, len(OPERATIONS)), 0.5)
    before = network.mixture(images(), weights)
    weights[:, 3:] = 7.0  # of operations that do not take part
    assert torch.equal(network.mixture(images(), weights), before)


def test_a_subnet_has_its_own_weights(supernet: CellSupernet) -> None:
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    for parameter in supernet.subnet(drawn(3)[0]).parameters():
        nn.init.zeros_(parameter)
    assert all(torch.equal(before[name], tensor) for name, tensor in supernet.state_dict().items())


@torch.no_grad()
def test_macs_and_parameters_of_the_blocks_are_those_of_the_network(supernet: CellSupernet) -> None:
    by_macs, by_params = AdditiveCost.of(SPACE, block_macs), AdditiveCost.of(SPACE, block_params)
    for architecture in drawn(4, 10):
        network, X = supernet.subnet(architecture), np.array([architecture])
        assert by_macs(X).tolist() == [macs(network, (1, *SPACE.input_shape(architecture)))]
        assert by_params(X).tolist() == [sum(p.numel() for p in network.parameters())]


def test_an_edge_that_is_none_or_skip_has_no_block_of_its_own() -> None:
    placed = dict(arch.placed_blocks(SPACE, (1, 3, 0, 0, 0, 5)))  # skip | conv3x3, none | none, none, avgpool
    assert "s1.c1.0-1" not in placed
    assert placed["s1.c1.0-2"].factory == "cell.convolution"
    assert "s1.c1.1-2.add" not in placed  # nothing comes to be added
    assert placed["s2.c2.2-3"].factory == "cell.pool"


def test_a_node_adds_all_but_its_first_input() -> None:
    placed = dict(arch.placed_blocks(SPACE, (1, 0, 1, 1, 2, 3)))
    additions = [name for name in placed if name.startswith("s1.c1.") and name.endswith(".add")]
    assert additions == ["s1.c1.1-3.add", "s1.c1.2-3.add"]


def test_every_block_runs_on_the_inputs_that_it_names() -> None:
    for block in arch.every_block(SPACE):
        module = block.recipe()().eval()
        assert module(*(torch.randn(shape) for shape in block.inputs)).shape[0] == 1


def test_a_cell_without_a_way_through_is_a_constant_network(supernet: CellSupernet) -> None:
    logits = supernet.subnet((3, 3, 3, 0, 0, 0))(torch.randn(2, 3, 7, 7))
    assert torch.allclose(logits[0], logits[1])


def test_dropped_blocks_are_squares_of_a_channel_and_the_rest_is_scaled_up() -> None:
    module = DropBlockIdentity(block=3)
    module.rate, module.generator = 0.3, torch.Generator().manual_seed(0)
    found = module(torch.ones(64, 8, 9, 9))
    dropped = (found == 0).float()
    assert float(dropped.mean()) == pytest.approx(0.25, abs=0.05)  # below 0.3: blocks overlap
    assert float(found.mean()) == pytest.approx(1, abs=1e-5)
    # every dropped place lies in a dropped square
    squares = -nn.functional.max_pool2d(-dropped, 3, stride=1)
    again = nn.functional.max_pool2d(nn.functional.pad(squares, (2,) * 4), 3, stride=1)
    assert torch.equal(again, dropped)


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.5, False)])
def test_nothing_is_dropped_at_rate_zero_or_in_evaluation(rate: float, training: bool) -> None:
    module = DropBlockIdentity().train(training)
    module.rate = rate
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(module(x), x)


def test_an_operation_that_is_listed_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="each operation once"):
        Config(operations=("skip", "skip"))
