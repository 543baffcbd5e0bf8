from __future__ import annotations

import numpy as np
import pytest

from hwnas.engine import algorithms
from hwnas.engine.architecture import to_architecture
from tests.engine.algorithm_contract import GENES, AlgorithmContract, asks
from tests.engine.toy_spaces import every


class TestEveryAlgorithm(AlgorithmContract):
    @pytest.fixture(params=algorithms.names())
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)


def test_the_algorithms_are_the_files_of_the_folder() -> None:
    assert {"nsga2", "nsga3", "aging", "exhaustive"} <= set(algorithms.names())


def test_an_unknown_algorithm_names_the_known_ones() -> None:
    with pytest.raises(LookupError, match=r"'nsga4'.*exhaustive, ga, .*nsga2, .*random"):
        algorithms.make("nsga4", GENES, population=2, rng=np.random.default_rng(0))


def test_exhaustive_search_asks_the_whole_space_in_full_chunks() -> None:
    chunks = list(asks("exhaustive", GENES, population=50))
    assert {to_architecture(row) for X in chunks for row in X} == every(GENES)
    assert all(len(X) == 50 for X in chunks[:-1])
