from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import FloatArray, Gene, IntArray, size, to_architecture
from hwnas.engine.operators import Asked, Genome, constrained_rank, crossover, crowding, mutate, tournament
from tests.engine.toy_spaces import GATED, every, gene_sets

seeds = st.integers(0, 2**32 - 1)
# few different values, so that ties and duplicates are common
cost_arrays = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(0, 4).map(float))
)


def rows_of(X: IntArray) -> list[tuple[int, ...]]:
    return [to_architecture(row) for row in X]


def parents(genome: Genome, seed: int, n: int = 16) -> tuple[IntArray, IntArray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return genome.canonical(genome.draw(n, rng)), genome.canonical(genome.draw(n, rng)), rng


# ---- genomes --------------------------------------------------------------------------------------------------------


@given(gene_sets(), seeds)
def test_the_tables_say_the_same_as_the_genes(genes: tuple[Gene, ...], seed: int) -> None:
    X = np.random.default_rng(seed).integers(0, [len(gene.options) for gene in genes], (20, len(genes)))
    genome = Genome.of(genes)
    assert (genome.active(X) == arch.active(genes, X)).all()
    assert (genome.canonical(X) == arch.canonical(genes, X)).all()


@given(gene_sets())
def test_numbers_and_architectures_are_one_to_one(genes: tuple[Gene, ...]) -> None:
    decoded = rows_of(Genome.of(genes).decode(range(size(genes))))
    assert len(decoded) == len(every(genes))
    assert set(decoded) == every(genes)


def test_a_space_beyond_64_bits_has_numbers_too() -> None:
    genome = Genome.of([Gene(f"g{i}", tuple(range(6))) for i in range(40)])
    assert rows_of(genome.decode([6**40 - 1, 7])) == [(5,) * 40, (1, 1, *(0,) * 38)]


def test_a_long_chain_of_gates_takes_no_time() -> None:
    """Once every way through the chain was walked: 3 to the 40."""
    every_option = frozenset({0, 1, 2})
    genes = [Gene("g0", (1, 2, 3)), *(Gene(f"g{i}", (1, 2, 3), (f"g{i - 1}", every_option)) for i in range(1, 40))]
    assert size(genes) == 3**40
    assert len(set(rows_of(Genome.of(genes).decode([0, 1, 3**40 - 1])))) == 3


@given(gene_sets(), seeds)
def test_checked_rows_are_those_of_the_space(genes: tuple[Gene, ...], seed: int) -> None:
    known, genome = every(genes), Genome.of(genes)
    for row in np.random.default_rng(seed).integers(-1, 4, (20, len(genes))):
        inside = all(0 <= i < len(gene.options) for i, gene in zip(row, genes, strict=True))
        if inside and to_architecture(arch.canonical(genes, row[None])[0]) in known:
            assert rows_of(genome.check(row)) == rows_of(arch.canonical(genes, row[None]))
        else:
            with pytest.raises(ValueError, match="row 0: gene"):
                genome.check(row)


@pytest.mark.parametrize("X", [np.zeros((2, 4)), np.zeros((1, 2, 5))])
def test_rows_of_another_shape_are_an_error(X: FloatArray) -> None:
    with pytest.raises(ValueError, match="shape"):
        Genome.of(GATED).check(X.astype(np.int64))


def test_a_space_without_genes_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to search"):
        Genome.of([])


# ---- memory ---------------------------------------------------------------------------------------------------------


@given(gene_sets(), seeds)
def test_fresh_rows_end_when_the_space_is_used_up(genes: tuple[Gene, ...], seed: int) -> None:
    asked = Asked(Genome.of(genes), batch=7, rng=np.random.default_rng(seed))
    rows: list[tuple[int, ...]] = []
    while len(X := asked.fresh(7)):
        rows += rows_of(X)
    assert len(rows) == len(set(rows))
    assert set(rows) == every(genes)


def test_the_rare_half_of_a_lopsided_space_is_found() -> None:
    """A draw meets the one branch that holds nearly all architectures once in a million."""
    gates = [Gene("gate0", tuple(range(100)))]
    gates += [Gene(f"gate{i}", tuple(range(100)), needs=(f"gate{i - 1}", frozenset({99}))) for i in (1, 2)]
    genes = (*gates, *(Gene(f"g{i}", tuple(range(9)), needs=("gate2", frozenset({99}))) for i in range(3)))
    asked = Asked(Genome.of(genes), batch=1000, rng=np.random.default_rng(0))
    assert len(asked.fresh(size(genes) - 1)) == size(genes) - 1 == 297 + 9**3 - 1


def test_new_rows_are_kept_once_up_to_the_limit() -> None:
    asked = Asked(Genome.of(GATED), batch=1, rng=np.random.default_rng(0))
    X = np.array([[0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
    assert rows_of(asked.new(X, at_most=2)) == [(0, 0, 0, 0, 0), (0, 1, 0, 0, 0)]
    assert rows_of(asked.new(X, at_most=2)) == [(1, 0, 0, 0, 0)]


def test_a_gene_of_more_options_than_a_byte_holds_is_not_folded() -> None:
    asked = Asked(Genome.of([Gene("width", tuple(range(600)))]), batch=1, rng=np.random.default_rng(0))
    assert len(asked.new(np.array([[0], [256], [512]]), at_most=9)) == 3


def test_the_memory_is_of_the_canonical_row() -> None:
    asked = Asked(Genome.of(GATED), batch=2, rng=np.random.default_rng(0), initial=np.array([[0, 1, 1, 2, 0]]))
    assert rows_of(asked.initial()) == [(0, 1, 0, 0, 0)]


# ---- variation ------------------------------------------------------------------------------------------------------


@given(gene_sets(), seeds)
def test_a_child_takes_a_gene_from_a_parent_that_has_it_on(genes: tuple[Gene, ...], seed: int) -> None:
    genome = Genome.of(genes)
    A, B, rng = parents(genome, seed)
    children = crossover(genome, A, B, rng)
    assert set(rows_of(children)) <= every(genes)
    A, B = np.tile(A, (2, 1)), np.tile(B, (2, 1))
    on_a, on_b, on = genome.active(A), genome.active(B), genome.active(children)
    like_a, like_b = on_a & (children == A), on_b & (children == B)
    assert (like_a | like_b)[on & (on_a | on_b)].all()


def test_the_two_children_of_a_pair_share_its_genes_out() -> None:
    genome = Genome.of([Gene(f"g{i}", tuple(range(9))) for i in range(200)])
    first, second = crossover(genome, np.full((1, 200), 3), np.full((1, 200), 4), np.random.default_rng(0))
    assert (first + second == 7).all()
    assert 60 < (first == 3).sum() < 140


def test_a_gene_on_in_neither_parent_is_drawn_from_what_is_allowed() -> None:
    # b is on for a = 1 and c for b = 1: a child of (1, 0) and (0, -) never has c on, so gate it by two parents' genes
    genes = (
        Gene("a", (0, 1)),
        Gene("b", (0, 1), needs=("a", frozenset({1}))),
        Gene("c", (5, 6, 7), needs=("b", frozenset({1})), allowed=(False, True, True)),
    )
    genome = Genome.of(genes)
    A = np.zeros((50, 3), dtype=np.int64)
    mutated = mutate(genome, A, np.random.default_rng(0), changes=1e9)
    assert set(mutated[mutated[:, 1] == 1, 2].tolist()) == {1, 2}


@given(gene_sets(), seeds)
def test_mutants_are_architectures_of_the_space(genes: tuple[Gene, ...], seed: int) -> None:
    genome = Genome.of(genes)
    X, _, rng = parents(genome, seed)
    assert set(rows_of(mutate(genome, X, rng))) <= every(genes)


@given(gene_sets(), seeds)
def test_a_mutated_gene_never_keeps_its_option(genes: tuple[Gene, ...], seed: int) -> None:
    genome = Genome.of(genes)
    X, _, rng = parents(genome, seed)
    mutants = mutate(genome, X, rng, changes=1e9)
    stays_on = genome.active(X) & genome.active(mutants)
    assert ((mutants != X) == (genome.counts > 1))[stays_on].all()


def test_one_gene_a_row_is_expected_to_mutate() -> None:
    genome = Genome.of([Gene("fixed", (1,)), *(Gene(f"g{i}", (1, 2, 3)) for i in range(30))])
    X, _, rng = parents(genome, 0, n=4000)
    assert (mutate(genome, X, rng) != X).sum(1).mean() == pytest.approx(1, abs=0.08)


@given(gene_sets(), seeds)
def test_variation_leaves_its_inputs_alone(genes: tuple[Gene, ...], seed: int) -> None:
    genome = Genome.of(genes)
    A, B, rng = parents(genome, seed)
    before = A.copy(), B.copy()
    crossover(genome, A, B, rng)
    mutate(genome, A, rng)
    assert (before[0] == A).all()
    assert (before[1] == B).all()


# ---- selection ------------------------------------------------------------------------------------------------------


def beats(a: Sequence[float], b: Sequence[float], over_a: float, over_b: float) -> bool:
    """Constraint domination as the paper says it."""
    if over_a > 0 or over_b > 0:
        return over_a < over_b
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


@given(cost_arrays, st.data())
def test_ranks_peel_off_one_front_after_another(costs: FloatArray, data: st.DataObject) -> None:
    n = len(costs)
    over = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, np.inf]), min_size=n, max_size=n)))
    rank, expected = constrained_rank(costs, over), np.full(n, -1)
    for level in range(n):
        left = [i for i in range(n) if expected[i] < 0]
        front = [i for i in left if not any(beats(costs[j], costs[i], over[j], over[i]) for j in left)]
        expected[front] = level
    assert (rank == expected).all()


@given(cost_arrays)
def test_crowding_is_that_of_each_front_alone(costs: FloatArray) -> None:
    costs = costs + np.arange(len(costs))[:, None] * 1e-3  # with equal values the ends are anybody's
    rank = constrained_rank(costs, np.zeros(len(costs)))
    distance = crowding(costs, rank)
    for level in range(rank.max() + 1):
        front = costs[rank == level]
        expected = calc_crowding_distance(front) * costs.shape[1] if len(front) > 2 else np.full(len(front), np.inf)
        assert distance[rank == level] == pytest.approx(expected)


def test_the_crowding_of_nobody_is_empty() -> None:
    assert crowding(np.zeros((0, 2)), np.zeros(0, dtype=np.int64)).shape == (0,)


def test_the_winner_has_the_better_rank_then_the_larger_distance() -> None:
    rank, distance = np.array([0, 0, 1]), np.array([1.0, 2.0, np.inf])
    winners = tournament(rank, distance, 3000, np.random.default_rng(0))
    share = np.bincount(winners, minlength=3) / 3000
    # of three pairs the second row wins both of its own; rivals from two permutations may be the same row
    assert share[1] > share[0] > share[2]


def test_tournaments_of_one_row_are_won_by_it() -> None:
    assert (tournament(np.zeros(1, int), np.zeros(1), 5, np.random.default_rng(0)) == 0).all()
