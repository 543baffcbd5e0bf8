from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.engine import algorithms
from hwnas.engine.algorithms import Known
from hwnas.engine.algorithms._best_parents import BestParents, Constants
from hwnas.engine.algorithms.natural_gradient import NaturalGradient, utilities
from hwnas.engine.architecture import FloatArray, Gene, IntArray

WIDE = tuple(Gene(f"g{i}", tuple(range(6))) for i in range(20))
WEIGHTS = np.random.default_rng(5).random((2, 20, 6))
LIMITED = ("flownas", "hat", "natural_gradient")


def sums(X: IntArray) -> FloatArray:
    return np.stack([w[np.arange(20), X].sum(1) for w in WEIGHTS], axis=1)


def over(X: IntArray) -> FloatArray:
    """By how much the second sum is beyond a limit that a sixth of random rows keeps."""
    return np.maximum(sums(X)[:, 1] - 8.7, 0)


def searched(name: str, rounds: int, *, population: int = 20, known: Known | None = None) -> IntArray:
    """All rows asked."""
    algorithm = algorithms.make(name, WIDE, population=population, rng=np.random.default_rng(0), known=known)
    asked = []
    for _ in range(rounds):
        asked.append(algorithm.ask())
        algorithm.tell(asked[-1], sums(asked[-1]), over(asked[-1]))
    return np.concatenate(asked)


def slow_utility(i: int, costs: list[float], violation: list[float]) -> float:
    """Share of the others that are worse taken from the share that is better."""

    def key(k: int) -> tuple[float, float]:
        return (violation[k], 0.0) if violation[k] > 0 else (0.0, costs[k])

    better = sum(key(k) < key(i) for k in range(len(costs)))
    worse = sum(key(k) > key(i) for k in range(len(costs)))
    return (better - worse) / (len(costs) - 1)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 0, 1, 2])), min_size=2, max_size=9))
def test_a_utility_is_how_many_rows_are_better_less_how_many_are_worse(rows: list[tuple[int, int]]) -> None:
    costs, violation = [float(c) for c, _ in rows], [float(v) for _, v in rows]
    found = utilities(np.array(costs), np.array(violation))
    assert found == pytest.approx([slow_utility(i, costs, violation) for i in range(len(rows))])


def test_the_distribution_gathers_where_costs_are_low() -> None:
    algorithm = NaturalGradient(WIDE, population=20, rng=np.random.default_rng(0))
    for _ in range(40):
        X = algorithm.ask()
        algorithm.tell(X, sums(X), np.zeros(len(X)))
    mode = np.array([algorithm.policy.mode()])
    assert sums(mode)[0, 0] < WEIGHTS[0].min(1).sum() + 0.1 * np.ptp(WEIGHTS[0], axis=1).sum()


def test_no_option_ever_loses_its_last_tenth() -> None:
    algorithm = NaturalGradient(WIDE, population=8, rng=np.random.default_rng(0))
    for _ in range(60):
        X = algorithm.ask()
        algorithm.tell(X, X.sum(1, keepdims=True) * 1.0, np.zeros(len(X)))
        assert algorithm.policy.table.min() > 0.1 / 6 - 1e-9


def test_units_and_outliers_move_the_distribution_alike() -> None:
    def policy(scale) -> FloatArray:  # type: ignore[no-untyped-def]
        algorithm = NaturalGradient(WIDE, population=16, rng=np.random.default_rng(0))
        for _ in range(5):
            X = algorithm.ask()
            algorithm.tell(X, scale(sums(X)), np.zeros(len(X)))
        return algorithm.policy.table

    assert (policy(lambda F: F) == policy(lambda F: np.exp(9 * F))).all()


def test_rows_told_one_at_a_time_move_it_too() -> None:
    X = searched("natural_gradient", 200, population=1)
    assert sums(X)[-40:, 0].mean() < sums(X)[:40, 0].mean() - 1


@pytest.mark.parametrize("name", LIMITED)
def test_a_limit_that_can_be_computed_is_never_asked_beyond(name: str) -> None:
    known = Known(costs=(None, None), violation=over)
    assert (over(searched(name, 15, known=known)) == 0).all()
    assert (over(searched(name, 1)) > 0).any()  # what is not known cannot be kept from the first row on


@pytest.mark.parametrize("name", LIMITED)
def test_it_finds_more_than_random_search_under_a_limit(name: str) -> None:
    def best(name: str, known: Known | None) -> float:
        X = searched(name, 15, known=known)
        return float(sums(X)[over(X) == 0, 0].min())

    known = Known(costs=(None, None), violation=over)
    assert best(name, known) < best("random", None) - 1
    assert best(name, None) < best("random", None) - 1


def test_a_generation_is_half_mutants_and_half_crossings_of_the_best() -> None:
    constants = Constants(parents=0.5, resampled=0.0)
    algorithm = BestParents(constants, WIDE, population=4, rng=np.random.default_rng(0))
    parents = np.repeat([[0], [1]], 20, axis=1)
    told = np.concatenate([parents, np.repeat([[4], [5]], 20, axis=1)])
    algorithm.tell(told, np.arange(4.0)[:, None], np.zeros(4))
    children = algorithm._children(200)
    assert set(np.unique(children)) == {0, 1}  # nothing of those that were not among the best two
    whole = (children == children[:, :1]).all(1)
    assert whole.sum() == 100  # a mutant of which nothing is resampled is its parent, a crossing never is here
