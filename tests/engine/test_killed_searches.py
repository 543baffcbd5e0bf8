"""Searches killed at random moments end in the front of one that was left alone."""

from __future__ import annotations

import signal
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.journal import OUTCOMES, Journal
from hwnas.engine.objective import Objective
from hwnas.engine.search import Evaluated
from tests.engine.searches import LIMIT, OBJECTIVES, equal, error, searched

EVALUATIONS = 120


def _costly(X: IntArray) -> FloatArray:
    time.sleep(0.001 * len(X))  # so that a kill finds evaluations to interrupt
    return error(X)


SLOW = Objective("error", "", _costly), OBJECTIVES[1]


def _search(path: Path, batch: int) -> Evaluated:
    journal = Journal(str(path))
    try:
        return searched(journal, objectives=SLOW, constraints=(LIMIT,), evaluations=EVALUATIONS, batch=batch)
    finally:
        journal.close()


def _killed_after(seconds: float, path: Path, batch: int) -> bool:
    """Search in a process of its own, kill -9 it then; whether it was still at work."""
    process = get_context("fork").Process(target=_search, args=(path, batch))  # importing torch anew takes seconds
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def _outcomes(path: Path) -> int:
    journal = Journal(str(path))
    with journal.database.reading() as connection:
        kept = connection.execute(select(func.count()).select_from(OUTCOMES)).scalar_one()
    journal.close()
    return int(kept)


def _left_alone(folder: Path, batch: int) -> tuple[Evaluated, float]:
    began = time.perf_counter()
    whole = _search(folder / "whole.sqlite", batch)
    return whole, time.perf_counter() - began


def _fronts_after(kills: int, folder: Path, *, seed: int) -> int:
    """Check that many searches, each killed once; how many of them were killed at work."""
    rng, at_work = np.random.default_rng(seed), 0
    for number in range(kills):
        batch = (1, 3, 8)[number % 3]
        whole, seconds = _left_alone(folder / f"{number}", batch)
        path = folder / f"{number}" / "killed.sqlite"
        at_work += _killed_after(rng.uniform(0, seconds), path, batch)
        resumed = _search(path, batch)
        equal(resumed, whole)
        assert [layer.tolist() for layer in resumed.layers()] == [layer.tolist() for layer in whole.layers()]
        assert _outcomes(path) == EVALUATIONS
    return at_work


def test_a_search_killed_at_a_random_moment_ends_in_the_front_of_an_unbroken_one(tmp_path: Path) -> None:
    assert _fronts_after(5, tmp_path, seed=0) > 0


@pytest.mark.slow
def test_twenty_searches_killed_at_random_moments_end_in_the_fronts_of_unbroken_ones(tmp_path: Path) -> None:
    assert _fronts_after(20, tmp_path, seed=1) >= 10


def test_a_search_killed_again_and_again_ends_in_the_front_of_an_unbroken_one(tmp_path: Path) -> None:
    whole, seconds = _left_alone(tmp_path, 1)
    rng, path = np.random.default_rng(2), tmp_path / "killed.sqlite"
    for _ in range(6):
        _killed_after(rng.uniform(0, seconds / 3), path, 1)
    equal(_search(path, 1), whole)
