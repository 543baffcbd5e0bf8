"""What every proxy keeps to. A plugin's own test inherits it:

class TestMine(ProxyContract):
    @pytest.fixture
    def name(self) -> str:
        return "mine"
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hwnas.engine import proxies
from hwnas.engine.architecture import IntArray, sample
from hwnas.engine.proxies import Score, TrainingFree
from hwnas.engine.spaces.cell import CellSpace, Config, build
from tests.engine.spaces import mobilenet

CELLS = build(Config(resolution=8, channels=4, stages=2, cells=1), in_channels=1, classes=10)
NO_PATH = np.array([[0, 0, 0, 0, 0, 0]])  # `none` on every edge
DENSE = np.array([[3, 3, 3, 3, 3, 3]])


def batch(n: int = 16, resolution: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 1, resolution, resolution, generator=generator)
    return images, torch.randint(10, (n,), generator=generator)


def cells(n: int, seed: int = 0) -> IntArray:
    return np.unique(sample(CELLS.genes, n, np.random.default_rng(seed)), axis=0)


@cache
def trained() -> torch.nn.Module:
    torch.manual_seed(3)
    return CELLS.supernet()


def score_of(name: str, *, space: CellSpace = CELLS) -> Score:
    return proxies.make(name, space, *batch(), seeds=(0, 1), supernet=trained())


@cache
def scores_elsewhere(names: tuple[str, ...]) -> dict[str, str]:
    """Fingerprints of these proxies, taken in one other process with other string hashes."""
    run = subprocess.run(
        [sys.executable, __file__, *names],
        env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return dict(line.split(maxsplit=1) for line in run.stdout.splitlines())


def fingerprint(name: str) -> str:
    torch.set_num_threads(1)  # sums over threads round differently
    return str(score_of(name).each(cells(2)).tolist())


class ProxyContract:
    def test_every_network_has_a_finite_score(self, name: str) -> None:
        assert np.isfinite(score_of(name).each(cells(3))).all()

    def test_a_network_that_ignores_its_input_has_a_finite_score(self, name: str) -> None:
        assert np.isfinite(score_of(name).each(NO_PATH)).all()

    def test_the_score_of_a_network_does_not_depend_on_which_were_scored_before(self, name: str) -> None:
        X = cells(3)
        together, alone = score_of(name).each(X), score_of(name).each(X[::-1])[:, ::-1]
        np.testing.assert_array_equal(together, alone)

    def test_it_leaves_the_supernet_and_the_generator_as_they_were(self, name: str) -> None:
        before = {key: value.clone() for key, value in trained().state_dict().items()}
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        score_of(name).each(DENSE)
        assert torch.equal(torch.rand(3), expected)
        assert all(torch.equal(before[key], value) for key, value in trained().state_dict().items())

    @pytest.mark.slow
    def test_a_seed_gives_the_same_scores_in_another_process(self, name: str) -> None:
        assert scores_elsewhere(tuple(proxies.names()))[name] == fingerprint(name)

    def test_networks_of_another_kind_are_scored_too(self, name: str) -> None:
        space = mobilenet()
        X = sample(space.genes, 2, np.random.default_rng(0))
        score = proxies.make(name, space, *batch(resolution=12), seeds=(0,), supernet=space.supernet())
        assert np.isfinite(score.each(X)).all()

    def test_as_a_ranker_it_says_what_the_score_says(self, name: str) -> None:
        X, score = cells(3), score_of(name)
        mean, std = TrainingFree(score).fit(X, np.zeros(len(X))).predict(X)
        np.testing.assert_array_equal(mean, score(X))
        assert (std >= 0).all()
        draws = TrainingFree(score).draw(X, 4, np.random.default_rng(0))
        assert draws.shape == (4, len(X))
        assert all(any((line == -each).all() for each in score.each(X)) for line in draws)


if __name__ == "__main__":
    for proxy in sys.argv[1:]:
        print(proxy, fingerprint(proxy))
