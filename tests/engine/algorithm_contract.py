"""What every search algorithm keeps to. A plugin's own test inherits it:

class TestMine(AlgorithmContract):
    @pytest.fixture
    def name(self) -> str:
        return "mine"
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import islice

import numpy as np
import pytest

from hwnas.engine import algorithms
from hwnas.engine.architecture import Architecture, FloatArray, Gene, IntArray, check, restrict, size, to_architecture
from hwnas.engine.objective import Constraint, Objective
from hwnas.engine.search import Evaluated, search

GENES = (
    Gene("resolution", (32, 48, 64, 80)),
    Gene("depth", (1, 2, 3)),
    Gene("kernel1", (3, 5, 7)),
    Gene("kernel2", (3, 5, 7), needs=("depth", frozenset({1, 2}))),
    Gene("kernel3", (3, 5, 7), needs=("depth", frozenset({2}))),
    Gene("dilation3", (1, 2), needs=("kernel3", frozenset({0, 1}))),
    Gene("classes", (10,)),
)
RESTRICTED = restrict(
    GENES, [[False, True, True, True], [True] * 3, [True] * 3, [False, True, True], [True] * 3, [True] * 2, [True]]
)


def costs_of(X: IntArray, objectives: int) -> FloatArray:
    """Costs that pull against each other, (n, objectives)."""
    weights = np.random.default_rng(7).normal(size=(X.shape[1], objectives))
    return np.sin(X @ weights)


def asks(
    name: str, genes: tuple[Gene, ...], *, population: int = 8, objectives: int = 2, violation: float = 0.0
) -> Iterator[IntArray]:
    """What the algorithm asks until it has nothing left to ask."""
    algorithm = algorithms.make(name, genes, population=population, rng=np.random.default_rng(3))
    # a search that asks one new row each time ends by then; one that goes on longer would go on for ever
    for _ in range(size(genes) + 1):
        X = algorithm.ask()
        if len(X) == 0:
            return
        yield X
        algorithm.tell(X, costs_of(X, objectives), np.full(len(X), violation) * (1 + X.sum(1)))
    raise AssertionError(f"{name} still asks after {size(genes)} rounds")


def fingerprint(name: str) -> str:
    """Hash of what is asked with one seed in eight rounds."""
    return hashlib.sha256(np.concatenate(list(islice(asks(name, GENES), 8))).tobytes()).hexdigest()


def outcome(X: IntArray) -> tuple[FloatArray, FloatArray]:
    """Costs and violation with a third of the rows beyond a limit, which have no costs."""
    violation = np.maximum(X[:, 0] + X[:, 2] - 3.0, 0)
    return np.where(violation[:, None] > 0, np.nan, costs_of(X, 2)), violation


class Stopped(BaseException):  # like an interrupt, which is no error of the objective
    """What happens to a process in the middle of a search."""


class Supernet:
    """Two objectives as a journal keeps them: each architecture once, over interruptions."""

    def __init__(self) -> None:
        self.known: dict[Architecture, FloatArray] = {}
        self.stops_at = 1000

    def objectives(self) -> list[Objective]:
        return [Objective(f"cost{k}", "", lambda X, k=k: self._costs(X)[:, k]) for k in range(2)]  # type: ignore[misc]

    def _costs(self, X: IntArray) -> FloatArray:
        for row in X:
            if to_architecture(row) not in self.known:
                if len(self.known) == self.stops_at:
                    raise Stopped
                self.known[to_architecture(row)] = costs_of(row[None], 2)[0]
        return np.array([self.known[to_architecture(row)] for row in X]).reshape(-1, 2)

    def search(self, name: str, *, evaluations: int = 50) -> Evaluated:
        limit = Constraint("resolution", "px", lambda X: X[:, 0] + X[:, 2] * 1.0, 3.0)
        algorithm = algorithms.make(name, GENES, population=8, rng=np.random.default_rng(4))
        return search(algorithm, self.objectives(), evaluations=evaluations, constraints=[limit])


@cache
def fingerprints_elsewhere() -> dict[str, str]:
    """Fingerprints of every algorithm, taken in one other process with other string hashes."""
    run = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return dict(line.split() for line in run.stdout.splitlines())


class AlgorithmContract:
    def test_no_architecture_is_asked_twice(self, name: str) -> None:
        rows = np.concatenate(list(asks(name, GENES)))
        assert len(np.unique(rows, axis=0)) == len(rows)

    @pytest.mark.parametrize("genes", [GENES, RESTRICTED], ids=["whole", "restricted"])
    def test_every_row_asked_is_canonical_and_allowed(self, name: str, genes: tuple[Gene, ...]) -> None:
        for X in asks(name, genes):
            for row in X:
                check(genes, row.tolist())

    def test_a_seed_gives_the_same_asks_in_another_process(self, name: str) -> None:
        assert fingerprints_elsewhere()[name] == fingerprint(name)

    def test_a_space_smaller_than_the_population_is_asked_whole_and_then_nothing(self, name: str) -> None:
        assert sum(len(X) for X in asks(name, GENES, population=1000)) == size(GENES)

    def test_a_space_of_one_architecture_ends(self, name: str) -> None:
        assert [len(X) for X in asks(name, (Gene("only", (1,)),))] == [1]

    @pytest.mark.parametrize("objectives", [1, 2, 3, 4])
    def test_any_number_of_objectives(self, name: str, objectives: int) -> None:
        assert sum(len(X) for X in asks(name, GENES, objectives=objectives)) <= size(GENES)

    @pytest.mark.parametrize("violation", [0.5, np.inf])
    def test_it_ends_when_everything_is_infeasible(self, name: str, violation: float) -> None:
        assert sum(len(X) for X in asks(name, GENES, violation=violation)) <= size(GENES)

    def test_initial_rows_are_asked_first(self, name: str) -> None:
        initial = np.array([[1, 2, 0, 0, 1, 1, 0], [3, 0, 2, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0, 0]])
        algorithm = algorithms.make(name, GENES, population=2, rng=np.random.default_rng(0), initial=initial)
        first, second = algorithm.ask(), algorithm.ask()
        assert (np.concatenate([first, second])[:3] == initial).all()

    def test_rows_told_from_an_earlier_search_are_not_asked_again(self, name: str) -> None:
        known = np.concatenate(list(asks(name, GENES)))[:20]
        algorithm = algorithms.make(name, GENES, population=size(GENES), rng=np.random.default_rng(0))
        algorithm.tell(known, costs_of(known, 2), np.zeros(len(known)))
        asked = np.concatenate([known, algorithm.ask(), algorithm.ask()])
        assert len(np.unique(asked, axis=0)) == len(asked)

    def test_told_again_what_it_knew_it_goes_on_as_if_it_had_never_stopped(self, name: str) -> None:
        never, again = (algorithms.make(name, GENES, population=8, rng=np.random.default_rng(5)) for _ in range(2))
        told = []
        for _ in range(4):
            told.append(never.ask())
            never.tell(told[-1], *outcome(told[-1]))
        for X in told:
            assert (again.ask() == X).all()
            again.tell(X, *outcome(X))
        for _ in range(3):
            X = never.ask()
            assert (again.ask() == X).all()
            never.tell(X, *outcome(X))
            again.tell(X, *outcome(X))

    def test_an_interrupted_search_ends_bit_for_bit_as_if_it_had_not_been(self, name: str) -> None:
        whole, stopped = Supernet(), Supernet()
        expected = whole.search(name)
        for stopped.stops_at in (3, 17):
            with pytest.raises(Stopped):
                stopped.search(name)
        stopped.stops_at = 1000
        found = stopped.search(name)
        assert (found.X == expected.X).all()
        assert found.costs.tobytes() == expected.costs.tobytes()
        assert list(stopped.known) == list(whole.known)

    def test_what_a_search_returns_keeps_the_limits_and_holds_the_best_that_was_evaluated(self, name: str) -> None:
        net = Supernet()
        found = net.search(name)
        assert len(found) == 50
        assert len(np.unique(found.X, axis=0)) == 50
        assert (found.feasible.X[:, 0] + found.feasible.X[:, 2] <= 3).all()
        assert {to_architecture(row) for row in found.feasible.X} == set(net.known)
        front = found.feasible.costs[found.feasible.layers()[0]]
        assert (front.min(0) == np.array(list(net.known.values())).min(0)).all()

    def test_a_population_of_one_is_enough(self, name: str) -> None:
        algorithm = algorithms.make(name, GENES, population=1, rng=np.random.default_rng(0))
        for _ in range(12):
            X = algorithm.ask()
            assert len(X) == 1
            algorithm.tell(X, *outcome(X))

    def test_asking_twice_before_telling_gives_other_rows(self, name: str) -> None:
        algorithm = algorithms.make(name, GENES, population=8, rng=np.random.default_rng(0))
        algorithm.tell(first := algorithm.ask(), *outcome(first))
        rows = np.concatenate([first, algorithm.ask(), algorithm.ask()])
        assert len(np.unique(rows, axis=0)) == len(rows) == 24

    def test_equal_costs_everywhere_are_no_reason_to_fail(self, name: str) -> None:
        algorithm = algorithms.make(name, GENES, population=8, rng=np.random.default_rng(0))
        for _ in range(6):
            X = algorithm.ask()
            algorithm.tell(X, np.ones((len(X), 2)), np.zeros(len(X)))

    def test_a_population_of_none_is_an_error(self, name: str) -> None:
        with pytest.raises(ValueError, match="population of 0"):
            algorithms.make(name, GENES, population=0, rng=np.random.default_rng(0))


if __name__ == "__main__":
    for algorithm in algorithms.names():
        print(algorithm, fingerprint(algorithm))
