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

import numpy as np
import pytest

from hwnas.engine import algorithms
from hwnas.engine.architecture import FloatArray, Gene, IntArray, check, restrict, size

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
    """Hash of everything asked with one seed."""
    return hashlib.sha256(np.concatenate(list(asks(name, GENES))).tobytes()).hexdigest()


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

    def test_a_population_of_none_is_an_error(self, name: str) -> None:
        with pytest.raises(ValueError, match="population of 0"):
            algorithms.make(name, GENES, population=0, rng=np.random.default_rng(0))


if __name__ == "__main__":
    for algorithm in algorithms.names():
        print(algorithm, fingerprint(algorithm))
