from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from hwnas.engine import algorithms
from hwnas.engine.architecture import FloatArray, Gene, IntArray, to_architecture
from hwnas.engine.front import hypervolume
from tests.engine.algorithm_contract import GENES, AlgorithmContract, asks
from tests.engine.toy_spaces import every

EVOLUTION = ("age_moea2", "aging", "ctaea", "ga", "moead", "nsga2", "nsga3", "sms_emoa", "unsga3")
FRONTS = tuple(name for name in EVOLUTION if name not in ("aging", "ga"))
BITS = tuple(Gene(f"bit{i}", (0, 1)) for i in range(14))
WIDE = tuple(Gene(f"g{i}", tuple(range(6))) for i in range(30))


class TestEveryAlgorithm(AlgorithmContract):
    @pytest.fixture(params=algorithms.names())
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)


def evolved(name: str, genes, costs, violation, *, population: int, rounds: int) -> IntArray:  # type: ignore[no-untyped-def]
    """All rows asked, round by round."""
    algorithm = algorithms.make(name, genes, population=population, rng=np.random.default_rng(0))
    asked = []
    for _ in range(rounds):
        X = algorithm.ask()
        over = violation(X)
        algorithm.tell(X, np.where(over[:, None] > 0, np.nan, costs(X)), over)
        asked.append(X)
    return np.concatenate(asked)


def free(X: IntArray) -> FloatArray:
    return np.zeros(len(X))


def sums(X: IntArray, objectives: int = 2) -> FloatArray:
    weights = np.random.default_rng(5).random((objectives, 30, 6))
    return np.stack([w[np.arange(30), X].sum(1) for w in weights], axis=1)


def test_the_algorithms_are_the_files_of_the_folder() -> None:
    assert {*EVOLUTION, "random", "exhaustive"} <= set(algorithms.names())


def test_files_that_begin_with_an_underscore_are_no_algorithms() -> None:
    assert not [name for name in algorithms.names() if name.startswith("_")]


def test_an_unknown_algorithm_names_the_known_ones() -> None:
    with pytest.raises(LookupError, match=r"'nsga4'.*exhaustive, .*ga, .*nsga2, .*random"):
        algorithms.make("nsga4", GENES, population=2, rng=np.random.default_rng(0))


def test_exhaustive_search_asks_the_whole_space_in_full_chunks() -> None:
    chunks = list(asks("exhaustive", GENES, population=50))
    assert {to_architecture(row) for X in chunks for row in X} == every(GENES)
    assert all(len(X) == 50 for X in chunks[:-1])


def test_the_command_line_starts_without_pymoo() -> None:
    code = "import sys, hwnas.engine.cli; sys.exit('pymoo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", EVOLUTION)
def test_evolution_finds_the_best_of_one_objective(name: str) -> None:
    X = evolved(name, BITS, lambda X: -X.sum(1, keepdims=True) * 1.0, free, population=20, rounds=20)
    assert X.sum(1).max() == len(BITS)


@pytest.mark.parametrize("name", EVOLUTION)
def test_evolution_leaves_an_infeasible_start_by_the_smaller_violation(name: str) -> None:
    # twelve ones or more are feasible: 106 of 16384, of which 2 are expected in 300 random ones
    X = evolved(
        name, BITS, lambda X: X[:, :2] * 1.0, lambda X: np.maximum(12.0 - X.sum(1), 0), population=15, rounds=20
    )
    assert (X.sum(1) >= 12).sum() > 15


@pytest.mark.parametrize("name", EVOLUTION)
def test_rows_within_the_limits_breed_on(name: str) -> None:
    """Once a tight limit is met, more of what is asked keeps it than chance would have."""
    X = evolved(name, WIDE, sums, lambda X: np.maximum(sums(X)[:, 0] - 13.0, 0), population=20, rounds=15)
    within = sums(X)[:, 0] <= 13
    assert within[-100:].mean() > 0.4
    drawn = np.random.default_rng(1).integers(0, 6, (2000, 30))
    assert (sums(drawn)[:, 0] <= 13).mean() < 0.2


@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("objectives", [2, 3])
def test_fronts_reach_more_hypervolume_than_random_search(name: str, objectives: int) -> None:
    def volume(name: str) -> float:
        X = evolved(name, WIDE, lambda X: sums(X, objectives), free, population=40, rounds=15)
        return hypervolume(sums(X, objectives), [20.0] * objectives)

    assert volume(name) > 1.15 * volume("random")


@pytest.mark.parametrize("name", EVOLUTION)
def test_the_unit_of_a_cost_does_not_matter(name: str) -> None:
    """MACs are hundreds of millions, errors hundredths. Powers of two scale without rounding."""
    units = np.array([2.0**28, 2.0**-10])
    plain = evolved(name, WIDE, sums, free, population=10, rounds=5)
    assert (evolved(name, WIDE, lambda X: sums(X) * units, free, population=10, rounds=5) == plain).all()


@pytest.mark.parametrize("name", ["aging", "ga"])
def test_with_one_objective_the_others_do_not_matter(name: str) -> None:
    plain = evolved(name, WIDE, sums, free, population=10, rounds=5)
    assert (evolved(name, WIDE, lambda X: sums(X) * [1, -3], free, population=10, rounds=5) == plain).all()
