"""What stands between pymoo and the algorithm role."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.engine import algorithms
from hwnas.engine.algorithms._pymoo import directions
from hwnas.engine.algorithms.age_moea2 import scores
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.selection import constrained_rank

DRIVEN = ("age_moea2", "ctaea", "ga", "moead", "nsga3", "sms_emoa", "unsga3")
GENES = tuple(Gene(f"g{i}", tuple(range(5))) for i in range(10))


def made(name: str, *, population: int = 10, seed: int = 0) -> algorithms.Algorithm:
    return algorithms.make(name, GENES, population=population, rng=np.random.default_rng(seed))


def costs_of(X: IntArray) -> FloatArray:
    return np.stack([X.sum(1), ((X - 3) ** 2).sum(1)], axis=1).astype(float)


# ---- directions -----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 130), objectives=st.integers(1, 7))
def test_there_are_as_many_directions_as_asked_for_all_different_and_on_the_simplex(n: int, objectives: int) -> None:
    found = directions(n, objectives)
    assert found.shape == (n, objectives)
    assert (found >= 0).all()
    assert found.sum(1) == pytest.approx(1)
    assert objectives == 1 or len(np.unique(found.round(12), axis=0)) == n


def test_two_objectives_are_divided_evenly() -> None:
    assert directions(5, 2)[:, 0] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_directions_reach_every_corner() -> None:
    found = directions(100, 3)
    for corner in np.eye(3):
        assert (found == corner).all(1).any()


# ---- ask and tell ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRIVEN)
def test_what_was_told_in_pieces_is_the_same_as_at_once(name: str) -> None:
    whole, pieces = made(name), made(name)
    X = whole.ask()
    assert (pieces.ask() == X).all()
    whole.tell(X, costs_of(X), np.zeros(10))
    for rows in (X[:3], X[3:4], X[4:]):
        pieces.tell(rows, costs_of(rows), np.zeros(len(rows)))
    assert (whole.ask() == pieces.ask()).all()


@pytest.mark.parametrize("name", DRIVEN)
def test_rows_of_an_earlier_search_are_bred_from(name: str) -> None:
    X = np.full((40, 10), 4)
    X[np.arange(40), np.arange(40) % 10] = np.arange(40) // 10
    algorithm = made(name, population=20)
    algorithm.tell(X, costs_of(X), np.zeros(40))
    assert (algorithm.ask() == 4).mean() > 0.7


@pytest.mark.parametrize("name", ["nsga3", "unsga3", "age_moea2", "sms_emoa", "ga"])
def test_a_row_told_again_has_its_new_costs(name: str) -> None:
    """The best row, told again as the worst, no longer breeds."""
    ones, twos = np.full((1, 10), 1), np.full((1, 10), 2)
    algorithm = made(name, population=1)
    algorithm.tell(ones, np.array([[0.0]]), np.zeros(1))
    algorithm.tell(ones, np.array([[2.0]]), np.zeros(1))
    algorithm.tell(twos, np.array([[1.0]]), np.zeros(1))
    assert (algorithm.ask() == 2).sum() >= 8


@pytest.mark.parametrize("name", DRIVEN)
def test_pymoo_leaves_warnings_and_output_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = list(warnings.filters)
    algorithm = made(name)
    for _ in range(3):
        X = algorithm.ask()
        algorithm.tell(X, costs_of(X), np.zeros(len(X)))
    assert list(warnings.filters) == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", DRIVEN)
def test_chance_comes_from_the_generator_given_alone(name: str) -> None:
    """Equal violations were once decided by a generator without a seed."""

    def asked() -> IntArray:
        algorithm, rows = made(name), []
        for _ in range(4):
            rows.append(algorithm.ask())
            algorithm.tell(rows[-1], np.full((10, 2), np.nan), np.ones(10))
        return np.concatenate(rows)

    state = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    assert (asked() == asked()).all()
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]


@pytest.mark.parametrize("name", DRIVEN)
def test_a_feasible_row_without_finite_costs_is_an_error(name: str) -> None:
    algorithm = made(name)
    X = algorithm.ask()
    with pytest.raises(ValueError, match="violation inf"):
        algorithm.tell(X, np.full((10, 2), np.nan), np.zeros(10))


@pytest.mark.parametrize("name", DRIVEN)
def test_the_number_of_objectives_may_not_change(name: str) -> None:
    algorithm = made(name)
    X = algorithm.ask()
    algorithm.tell(X, np.zeros((10, 2)), np.zeros(10))
    with pytest.raises(ValueError, match="2 objectives were told before, now 3"):
        algorithm.tell(X, np.zeros((10, 3)), np.zeros(10))


# ---- AGE-MOEA-II ----------------------------------------------------------------------------------------------------


def slow_scores(F: FloatArray) -> FloatArray:
    """The first front's scores, step by step as the paper has them; its ends cut the axes at their largest costs."""
    n, objectives = F.shape
    front = F - F.min(0)
    ends: list[int] = []
    for axis in range(objectives):
        distance = [np.linalg.norm(np.delete(row, axis)) if i not in ends else np.inf for i, row in enumerate(front)]
        ends.append(int(np.argmin(distance)))
    front = front / (1 / np.linalg.solve(front[ends], np.ones(objectives)))
    inner = [row for i, row in enumerate(front) if i not in ends]
    central = min(inner, key=np.linalg.norm)
    grid = np.linspace(0.1, 20, 200_001)
    p = float(grid[np.abs(sum(value**grid for value in central if value > 0) - 1).argmin()])

    def norm(row: FloatArray) -> float:
        return float((row**p).sum() ** (1 / p))

    def distance_of(a: FloatArray, b: FloatArray) -> float:
        a, b = a / norm(a), b / norm(b)
        middle = (a + b) / 2
        middle = middle / norm(middle)
        return float(np.linalg.norm(a - middle) + np.linalg.norm(b - middle))

    taken, score = list(ends), np.full(n, np.inf)
    while len(taken) < n:
        worth = {
            i: sum(sorted(distance_of(front[i], front[j]) for j in taken)[:2]) / norm(front[i])
            for i in range(n)
            if i not in taken
        }
        best = max(worth, key=worth.__getitem__)
        score[best] = worth[best]
        taken.append(best)
    return score


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), objectives=st.integers(3, 4), shape=st.floats(0.6, 3))
def test_scores_of_a_front_are_those_of_the_paper(seed: int, objectives: int, shape: float) -> None:
    # on a curve of two objectives all rows between the same two are worth the same: anybody may be first
    weights = np.random.default_rng(seed).dirichlet(np.ones(objectives), 9)
    F = np.concatenate([np.eye(objectives), weights ** (1 / shape)])  # on the surface sum f^shape = 1
    np.testing.assert_allclose(scores(F, np.zeros(len(F), dtype=np.int64)), slow_scores(F), rtol=2e-3)


def test_behind_the_first_front_the_nearer_is_worth_more() -> None:
    F = np.array([[0, 1], [0.5, 0.5], [1, 0], [2, 2], [1, 1.5], [1.5, 1.5]], dtype=float)
    rank = constrained_rank(F, np.zeros(6))
    assert scores(F, rank)[4] > scores(F, rank)[5] > scores(F, rank)[3]


@pytest.mark.parametrize("objectives", [1, 2, 4])
def test_one_row_that_is_best_in_everything_has_a_score(objectives: int) -> None:
    F = np.array([[0.0] * objectives, [0.0] * objectives, [1.0] * objectives])
    found = scores(F, constrained_rank(F, np.zeros(3)))
    assert not np.isnan(found).any()
