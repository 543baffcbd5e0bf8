"""Paths down a lattice of resolutions: counted and drawn as enumeration says, and each one architecture."""

from __future__ import annotations

from collections import Counter
from itertools import product
from math import comb, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hwnas.engine import architecture as arch
from hwnas.engine.spaces import downsampling_paths
from hwnas.engine.spaces.downsampling_paths import EXAMPLE, MOVES, PAPER, Config, DownsamplingPathSpace, Lattice

lattices = st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 2)).filter(lambda t: t[2] <= t[1] <= t[0])
SPACE = downsampling_paths.build(EXAMPLE, in_channels=1, classes=5)


def enumerated(lattice: Lattice) -> list[tuple[int, ...]]:
    """Every path, by looking at every sequence of moves."""
    return [
        moves
        for moves in product(range(3), repeat=lattice.layers)
        if sum(MOVES[m][0] for m in moves) == lattice.heights and sum(MOVES[m][1] for m in moves) == lattice.widths
    ]


def walked(lattice: Lattice, moves: tuple[int, ...]) -> float:
    """Chance that choosing alike among the moves that lead on makes this path."""
    paths, chance = enumerated(lattice), 1.0
    for layer in range(lattice.layers):
        alike = {path[layer] for path in paths if path[:layer] == moves[:layer]}
        # what is behind depends on the state alone, so those with the same beginning tell which moves lead on
        chance /= len(alike)
    return chance


# ---- the lattice ----------------------------------------------------------------------------------------------------


@given(lattices)
def test_paths_are_counted_as_enumeration_counts_them(shape: tuple[int, int, int]) -> None:
    assert Lattice(*shape).count_paths() == len(enumerated(Lattice(*shape)))


def test_the_papers_lattice_has_155040_paths() -> None:
    assert PAPER.lattice.count_paths() == 155_040 == comb(20, 5) * comb(5, 2)


@settings(max_examples=25, deadline=None)
@given(lattices, st.booleans(), st.integers(0, 100))
def test_paths_are_drawn_by_their_chances(shape: tuple[int, int, int], uniform: bool, seed: int) -> None:
    lattice = Lattice(*shape)
    paths = enumerated(lattice)
    expected = {path: 1 / len(paths) if uniform else walked(lattice, path) for path in paths}
    n = 2000
    drawn = lattice.sample(n, np.random.default_rng(seed), uniform=uniform)
    counts = Counter(map(arch.to_architecture, drawn))
    assert set(counts) <= set(paths)
    for path, chance in expected.items():
        assert abs(counts[path] - n * chance) < 6 * np.sqrt(n * chance) + 6


@settings(max_examples=30)
@given(lattices)
def test_the_entropy_of_a_walk_is_that_of_its_paths(shape: tuple[int, int, int]) -> None:
    lattice = Lattice(*shape)
    chances = [walked(lattice, path) for path in enumerated(lattice)]
    assert sum(chances) == pytest.approx(1)
    assert lattice.entropy(uniform=False) == pytest.approx(-sum(p * log(p) for p in chances), abs=1e-9)
    assert lattice.entropy(uniform=False) <= lattice.entropy(uniform=True) + 1e-9


@settings(max_examples=30)
@given(lattices.filter(lambda t: t[1] > 0), st.booleans())
def test_the_mean_lowest_layer_is_that_of_all_paths(shape: tuple[int, int, int], uniform: bool) -> None:
    lattice = Lattice(*shape)
    paths = enumerated(lattice)
    last = [max(i for i, move in enumerate(path, 1) if move > 0) for path in paths]
    chances = [1 / len(paths) if uniform else walked(lattice, path) for path in paths]
    expected = sum(chance * layer for chance, layer in zip(chances, last, strict=True))
    assert lattice.mean_lowest_layer(uniform=uniform) == pytest.approx(expected)


def test_a_walk_sees_a_hundredth_of_the_papers_paths_and_few_that_stay_high() -> None:
    lattice = PAPER.lattice
    assert np.exp(lattice.entropy(uniform=False)) == pytest.approx(2314, abs=1)
    assert lattice.mean_lowest_layer(uniform=False) < 9
    assert lattice.mean_lowest_layer(uniform=True) == pytest.approx(17.5)


def test_a_lattice_without_a_path_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 layers cannot halve height 4 times"):
        Lattice(3, 4, 1)


# ---- the space ------------------------------------------------------------------------------------------------------


def space(blocks: tuple[int, ...], heights: int, widths: int) -> DownsamplingPathSpace:
    config = Config(
        height=16,
        width=16,
        blocks=blocks,
        height_halvings=heights,
        width_halvings=widths,
        channels=(4,) * (heights + 1),
        operations=("k3_e1",),
    )
    return downsampling_paths.build(config, in_channels=1, classes=2)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple), st.integers(0, 3), st.integers(0, 2))
def test_every_path_is_one_architecture(blocks: tuple[int, ...], heights: int, widths: int) -> None:
    heights = min(heights, sum(blocks))
    made = space(blocks, heights, min(widths, heights))
    paths = enumerated(made.config.lattice)
    assert arch.size(made.genes) == made.count_paths() == len(paths)
    encoded = {made.encoded(path, [0] * sum(blocks)): path for path in paths}
    assert len(encoded) == len(paths)
    assert all(made.moves(architecture) == path for architecture, path in encoded.items())


def test_the_papers_space_counts_its_operations_along() -> None:
    made = downsampling_paths.build(PAPER, in_channels=1, classes=80)
    assert arch.size(made.genes) == 155_040 * 3**20


def test_moves_that_are_no_path_are_an_error() -> None:
    with pytest.raises(ValueError, match="are no path of this space"):
        space((2, 2), 2, 1).encoded((1, 0, 0, 0), [0] * 4)


def test_rows_are_drawn_so_that_paths_are_alike() -> None:
    made = space((3, 3), 3, 1)
    X = made.sample_uniform(6000, np.random.default_rng(0))
    counts = Counter(made.moves(arch.to_architecture(row)) for row in X)
    assert len(counts) == made.count_paths() == 60
    assert max(counts.values()) / min(counts.values()) < 2
    plain = Counter(
        made.moves(arch.to_architecture(row)) for row in arch.sample(made.genes, 6000, np.random.default_rng(0))
    )
    assert max(plain.values()) / min(plain.values()) > 5  # paths of rare spreads come too often


@torch.no_grad()
def test_blocks_say_the_shapes_that_flow_through_the_network() -> None:
    network = SPACE.supernet()
    for row in arch.sample(SPACE.genes, 10, np.random.default_rng(3)):
        architecture = arch.to_architecture(row)
        x = torch.randn(2, *SPACE.input_shape(architecture))
        subnet = network.subnet(architecture)
        for module, block in zip(subnet.children(), arch.blocks(SPACE, architecture), strict=True):
            assert (tuple(x.shape)[1:],) == (block.inputs[0][1:],)
            x = module(x)


def test_the_last_halvings_of_height_halve_the_width_where_the_gene_says_so() -> None:
    values = arch.options(SPACE.genes, SPACE.encoded((0, 1, 0, 2), [0] * 4))
    assert (values["heights"], values["widths"], values["b1.at1"], values["b2.at1"]) == ("1-1", "2", "2", "2")


def test_weights_are_shared_by_resolution_and_by_nothing_else() -> None:
    network = SPACE.supernet()

    def operation(moves: tuple[int, ...], place: str) -> torch.nn.Module:
        placed = arch.placed_blocks(SPACE, SPACE.encoded(moves, [0] * 4))
        (found,) = (network.parts[_key(slot, block)] for slot, block in placed if slot.startswith(f"{place}.op"))
        return found

    assert operation((1, 0, 2, 0), "b1.l2") is operation((0, 1, 2, 0), "b1.l2")  # one height, reached by two ways
    assert operation((1, 0, 2, 0), "b1.l1") is not operation((0, 1, 2, 0), "b1.l1")  # another height
    assert operation((1, 0, 2, 0), "b2.l1") is not operation((1, 2, 0, 0), "b1.l2")  # another layer


def _key(slot: str, block: object) -> str:
    from hwnas.engine.spaces._downsampling_paths import _key as key

    return key(slot, block)  # type: ignore[arg-type]


def test_an_exit_ends_the_network_behind_its_block() -> None:
    torch.manual_seed(0)
    network = SPACE.supernet()
    with pytest.raises(ValueError, match=r"no exit behind b1: call open_exits\(\)"):
        network.stop_after("b1")
    network.open_exits()
    network.stop_after("b1")
    logits = network(torch.randn(4, 1, 8, 8))
    assert logits.shape == (4, 5)
    logits.sum().backward()
    trained = {
        name.split(".")[1][:2] for name, p in network.named_parameters() if p.grad is not None and "parts" in name
    }
    assert trained == {"st", "b1"}
    assert sum(p.grad is not None for p in network.exits.parameters()) == 2  # weight and bias of one head
    network.stop_after("b2")
    assert network.stop is None  # the last block ends at the head
    with pytest.raises(ValueError, match="'b3': the blocks are b1, b2"):
        network.stop_after("b3")
    network.close_exits()
    assert not list(network.exits.parameters())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"channels": (8, 8)}, "2 halvings of height need 3 numbers of channels"),
        ({"width_halvings": 3}, "cannot halve height 2 times and width 3 times"),
        ({"operations": ("k3_e3", "k3_e1")}, "from small to large"),
    ],
)
def test_a_configuration_that_cannot_be_built_says_why(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Config.model_validate({**EXAMPLE.model_dump(), **changes})
