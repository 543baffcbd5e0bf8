from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from hwnas.engine.algorithms.nsga2 import Nsga2
from hwnas.engine.algorithms.random import Random
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.front import hypervolume, non_dominated
from hwnas.engine.selection import constrained_rank, crowding
from tests.engine.toy_spaces import GATED, every

BITS = tuple(Gene(f"bit{i}", (0, 1)) for i in range(12))
WIDE = tuple(Gene(f"g{i}", tuple(range(6))) for i in range(30))


def feasible(X: IntArray) -> FloatArray:
    return np.zeros(len(X))


def two_sums(X: IntArray) -> FloatArray:
    weights = np.random.default_rng(5).random((2, 30, 6))
    return np.stack([w[np.arange(30), X].sum(1) for w in weights], axis=1)


def run(algorithm: Nsga2 | Random, costs, rounds: int) -> tuple[IntArray, FloatArray]:  # type: ignore[no-untyped-def]
    asked = []
    for _ in range(rounds):
        asked.append(algorithm.ask())
        algorithm.tell(asked[-1], costs(asked[-1]), feasible(asked[-1]))
    X = np.concatenate(asked)
    return X, costs(X)


def test_it_finds_the_best_of_one_objective() -> None:
    X, _ = run(Nsga2(BITS, population=20, rng=np.random.default_rng(0)), lambda X: -X.sum(1, keepdims=True) * 1.0, 30)
    assert X.sum(1).max() == len(BITS)


def test_it_finds_the_whole_front_of_a_small_space() -> None:
    def costs(X: IntArray) -> FloatArray:
        return np.stack([X[:, :2].sum(1), -(X**2).sum(1)], axis=1).astype(float)

    whole = np.array(sorted(every(GATED)))
    best = whole[non_dominated(costs(whole))]
    X, _ = run(Nsga2(GATED, population=6, rng=np.random.default_rng(0)), costs, 4)
    assert {tuple(row) for row in best} <= {tuple(row) for row in X}


def test_it_reaches_more_hypervolume_than_random_search() -> None:
    rng = np.random.default_rng(0)
    evolved = run(Nsga2(WIDE, population=50, rng=rng), two_sums, 20)[1]
    drawn = run(Random(WIDE, population=50, rng=rng), two_sums, 20)[1]
    assert hypervolume(evolved, (20, 20)) > 1.2 * hypervolume(drawn, (20, 20))


def test_it_leaves_an_infeasible_start_by_the_smaller_violation() -> None:
    # only rows of ten ones or more are feasible: 79 of 4096, of which 8 are expected in 400 random ones
    algorithm = Nsga2(BITS, population=10, rng=np.random.default_rng(0))
    found = 0
    for _ in range(40):
        X = algorithm.ask()
        algorithm.tell(X, X[:, :1] * 1.0, np.maximum(10 - X.sum(1), 0) * 1.0)
        found += int((X.sum(1) >= 10).sum())
    assert found > 40


def test_costs_of_infeasible_rows_are_not_read() -> None:
    algorithm = Nsga2(BITS, population=4, rng=np.random.default_rng(0))
    X = algorithm.ask()
    algorithm.tell(X, np.full((4, 2), np.nan), np.full(4, np.inf))
    assert len(algorithm.ask()) == 4


def test_a_feasible_row_without_finite_costs_is_an_error() -> None:
    algorithm = Nsga2(BITS, population=1, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="violation inf"):
        algorithm.tell(algorithm.ask(), np.array([[np.nan, 1.0]]), np.zeros(1))


@pytest.mark.parametrize("costs", [np.zeros(4), np.zeros((3, 2))])
def test_costs_of_another_shape_are_an_error(costs: FloatArray) -> None:
    algorithm = Nsga2(BITS, population=4, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="4 rows need costs"):
        algorithm.tell(algorithm.ask(), costs, np.zeros(4))


def test_the_number_of_objectives_may_not_change() -> None:
    algorithm = Nsga2(BITS, population=4, rng=np.random.default_rng(0))
    X = algorithm.ask()
    algorithm.tell(X, np.zeros((4, 2)), np.zeros(4))
    with pytest.raises(ValueError, match="2 objectives were told before, now 3"):
        algorithm.tell(X, np.zeros((4, 3)), np.zeros(4))


def test_a_row_told_again_has_its_new_costs() -> None:
    """The best row, told again as the worst, no longer breeds."""
    genes = tuple(Gene(f"g{i}", (0, 1, 2, 3, 4, 5)) for i in range(6))
    ones, twos = np.full((1, 6), 1), np.full((1, 6), 2)
    algorithm = Nsga2(genes, population=1, rng=np.random.default_rng(0))
    algorithm.tell(ones, np.array([[0.0]]), np.zeros(1))
    algorithm.tell(ones, np.array([[2.0]]), np.zeros(1))
    algorithm.tell(twos, np.array([[1.0]]), np.zeros(1))
    assert (algorithm.ask() == 2).sum() >= 3


def test_nothing_told_changes_nothing() -> None:
    algorithm = Nsga2(BITS, population=4, rng=np.random.default_rng(0))
    algorithm.tell(np.zeros((0, len(BITS)), dtype=np.int64), np.zeros((0, 2)), np.zeros(0))
    assert len(algorithm.ask()) == 4


def test_asking_before_telling_gives_more_rows() -> None:
    algorithm = Nsga2(BITS, population=4, rng=np.random.default_rng(0))
    assert len(np.unique(np.concatenate([algorithm.ask(), algorithm.ask()]), axis=0)) == 8


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 60), objectives=st.integers(2, 3))
def test_ranks_and_crowding_are_those_of_pymoo(seed: int, n: int, objectives: int) -> None:
    costs = np.random.default_rng(seed).random((n, objectives))
    rank = constrained_rank(costs, np.zeros(n))
    distance = crowding(costs, rank)
    for number, front in enumerate(NonDominatedSorting().do(costs)):
        assert (rank[front] == number).all()
        if len(front) < 3:
            continue  # everybody is at an end: infinite for us, and zero for pymoo where there is one
        # pymoo takes the mean over the objectives, Deb the sum
        np.testing.assert_allclose(distance[front], objectives * calc_crowding_distance(costs[front]))
