"""Candidates that are clearly beaten stop early; those that are not beaten stop as rarely as stated."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, BoolArray, FloatArray, IntArray
from hwnas.engine.evaluation.inherited import InheritedAccuracy
from hwnas.engine.evaluation.racing import (
    Course,
    Drawn,
    RacedAccuracy,
    Stopped,
    beaten,
    least,
    most,
    surpassed,
)
from hwnas.engine.journal import Journal
from tests.engine.training_runs import SPACE, dataset

# ---- the bounds -----------------------------------------------------------------------------------------------------


def _chance(hits: int, drawn: int, population: int, marked: int) -> float:
    """Of exactly so many hits."""
    return comb(marked, hits) * comb(population - marked, drawn - hits) / comb(population, drawn)


populations = st.integers(1, 14).flatmap(
    lambda population: st.tuples(st.just(population), st.integers(0, population), st.integers(0, population))
)


@given(populations, st.sampled_from([0.3, 0.1, 0.02]))
def test_the_bounds_are_wrong_as_rarely_as_stated(sampled: tuple[int, int, int], error: float) -> None:
    population, marked, drawn = sampled
    possible = range(max(0, drawn - population + marked), min(drawn, marked) + 1)
    at_least = least(np.array(possible), drawn, population, error=error)
    at_most = most(np.array(possible), drawn, population, error=error)
    too_many = [hits for hits, bound in zip(possible, at_least, strict=True) if bound > marked]
    too_few = [hits for hits, bound in zip(possible, at_most, strict=True) if bound < marked]
    assert sum(_chance(hits, drawn, population, marked) for hits in too_many) <= error
    assert sum(_chance(hits, drawn, population, marked) for hits in too_few) <= error


@given(populations, st.data())
def test_the_bounds_are_as_near_as_that_allows(sampled: tuple[int, int, int], data: st.DataObject) -> None:
    population, _, drawn = sampled
    hits = data.draw(st.integers(0, drawn))
    bound = int(least(np.array([hits]), drawn, population, error=0.1)[0])
    assert hits <= bound
    if bound > hits:  # one less would be too unlikely to have given so many hits
        likely = sum(_chance(k, drawn, population, bound - 1) for k in range(hits, min(drawn, bound - 1) + 1))
        assert likely <= 0.1


@given(st.integers(0, 30), st.integers(0, 30))
def test_who_has_seen_everybody_knows(marked: int, others: int) -> None:
    population = marked + others
    assert least(np.array([marked]), population, population, error=0.01) == [marked]
    assert most(np.array([marked]), population, population, error=0.01) == [marked]


@given(populations, populations, st.sampled_from([0.3, 0.1, 0.02]))
def test_who_gains_as_much_as_it_loses_is_surpassed_as_rarely_as_stated(
    losing: tuple[int, int, int], gaining: tuple[int, int, int], error: float
) -> None:
    (rights, lost, n), (wrongs, gained, m) = losing, gaining
    lost = min(lost, gained)
    right, wrong = Drawn(n, rights), Drawn(m, wrongs)
    chance = 0.0
    for losses in range(max(0, n - rights + lost), min(n, lost) + 1):
        for gains in range(max(0, m - wrongs + gained), min(m, gained) + 1):
            if surpassed(losses, gains, right, wrong, error=error):
                chance += _chance(losses, n, rights, lost) * _chance(gains, m, wrongs, gained)
    assert chance <= error + 1e-12


def test_losses_and_gains_are_weighed_together() -> None:
    """Sooner than by the least losses and the most gains, each with half of the error."""
    right, wrong, error = Drawn(300, 600), Drawn(200, 400), 0.01
    assert least(np.array([34]), 300, 600, error=error / 2) < most(np.array([18]), 200, 400, error=error / 2)
    assert surpassed(34, 18, right, wrong, error=error)
    assert not surpassed(26, 18, right, wrong, error=error)


# ---- the course -----------------------------------------------------------------------------------------------------


def _course(rival: BoolArray, *others: BoolArray, seed: int = 0, first: int = 4) -> Course:
    return Course.of(rival, [rival, *others], first=first, rng=np.random.default_rng(seed))


def _stops(candidate: BoolArray, course: Course, error: float) -> int | None:
    """Images after which the candidate is stopped, where it is."""
    answers = candidate[course.order]
    each = error / max(1, len(course.looks) - 1)
    return next((look for look in course.looks[:-1] if beaten(answers[None, :look], course, error=each)[0]), None)


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(1, 50))
def test_contested_images_come_first_and_looks_grow_up_to_the_whole_split(seed: int, images: int, first: int) -> None:
    rng = np.random.default_rng(seed)
    rival, other = rng.random((2, images)) < 0.7
    course = Course.of(rival, [rival, other], first=first, rng=rng)
    assert sorted(course.order.tolist()) == list(range(images))
    hard = ~(rival & other)[course.order]
    assert hard[: course.contested].all()
    assert not hard[course.contested :].any()
    assert (course.rival == rival[course.order]).all()
    assert course.looks[-1] == images
    assert all(0 < a < b for a, b in pairwise(course.looks))


@pytest.mark.parametrize(("lost", "gained"), [((8, 0), 8), ((4, 4), 8), ((20, 10), 31)])
def test_who_is_not_beaten_is_stopped_as_rarely_as_stated(lost: tuple[int, int], gained: int) -> None:
    """Of 120 images the rival has 40 wrong and another network 30 more: what the candidate loses lies in or beyond."""
    rival, other, candidate = np.ones((3, 120), dtype=bool)
    rival[:40] = other[40:70] = candidate[:40] = False
    candidate[:gained] = True
    candidate[40 : 40 + lost[0]] = candidate[70 : 70 + lost[1]] = False
    assert candidate.sum() >= rival.sum()
    runs, error = 100, 0.2
    wrong = sum(_stops(candidate, _course(rival, other, seed=seed), error) is not None for seed in range(runs))
    # three standard deviations of what the stated error would give
    assert wrong <= runs * error + 3 * (runs * error * (1 - error)) ** 0.5


def test_a_clear_loser_is_seen_early() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(2000)
    rival, other, candidate = hard < 0.9, hard < 0.85, hard < 0.8
    stop = _stops(candidate, _course(rival, other, first=64), 0.05)
    assert stop is not None
    assert stop <= 128
    assert _stops(rival, _course(candidate, other, first=64), 0.5) is None


def test_once_the_losses_are_certain_no_error_is_needed() -> None:
    """All that the candidate may gain is known, and it has lost more."""
    rival, other, candidate = np.ones((3, 40), dtype=bool)
    rival[:4] = other[4:20] = candidate[:10] = False
    course = _course(rival, other)
    seen = candidate[course.order][: course.contested]
    assert beaten(seen[None], course, error=1e-12)[0]


# ---- races ----------------------------------------------------------------------------------------------------------

NAMES = [gene.name for gene in SPACE.genes]


class Answering(InheritedAccuracy):
    """Answers of made-up networks of known accuracy: an image is as hard for one as for another."""

    def answers(self, architectures: Sequence[Architecture], split, *, order=None, held=None):  # type: ignore[no-untyped-def]
        for architecture in architectures:
            if held is not None:
                held[architecture] = []
            right = answers_of(architecture, len(split))
            yield architecture, right if order is None else right[order]


def answers_of(architecture: Architecture, images: int) -> BoolArray:
    difficulty = np.random.default_rng(0).random(images)
    noise = np.random.default_rng([1, *architecture]).normal(0, 0.05, images)
    return difficulty + noise < quality(np.array([architecture]))[0]


def quality(X: IntArray) -> FloatArray:
    """Deeper is better; larger kernels cost and are worth nothing; the larger expansion harms."""
    depth, kernel, expansion = (X[:, NAMES.index(f"s1.{name}")] for name in ("depth", "b1.kernel", "b1.expansion"))
    return 0.5 + 0.2 * depth - 0.25 * expansion + 0.0 * kernel


def size(X: IntArray) -> FloatArray:
    return X.sum(1).astype(float)


def _evaluator(path: Path, kind: type[InheritedAccuracy] = InheritedAccuracy) -> InheritedAccuracy:
    torch.manual_seed(1)
    journal = Journal(f"sqlite:///{path / 'journal.sqlite'}")
    return kind(SPACE, SPACE.supernet().eval(), dataset(1500), journal, calibration=64)


def _every() -> IntArray:
    return np.unique(arch.sample(SPACE.genes, 2000, np.random.default_rng(0)), axis=0)


def _halves() -> tuple[IntArray, IntArray]:
    X = np.random.default_rng(1).permutation(_every())
    return X[: len(X) // 2], X[len(X) // 2 :]


def test_a_stopped_candidate_is_worse_than_a_known_one_that_costs_no_more(tmp_path: Path) -> None:
    stops: list[Stopped] = []
    evaluator = _evaluator(tmp_path, Answering)
    race = RacedAccuracy(evaluator, (size,), first=16, on_stopped=stops.append)
    first, second = _halves()
    known, raced = race.errors(first), race.errors(second)
    images = len(evaluator.data.validation)
    truth = np.array([1 - answers_of(arch.to_architecture(row), images).mean() for row in second])
    stopped = {stop.architecture: stop for stop in stops}
    assert 0 < len(stopped) < len(second)
    for row, cost, true in zip(second, raced, truth, strict=True):
        stop = stopped.get(arch.to_architecture(row))
        if stop is None:
            assert cost == pytest.approx(true)
        else:
            rival = next(i for i, r in enumerate(first) if arch.to_architecture(r) == stop.rival)
            assert size(first[rival : rival + 1]) <= size(row[None])
            assert known[rival] < cost
            assert stop.images < images
            assert stop.estimate < true + 5 * stop.deviation + 1e-9  # what was not seen counts as right


def test_nobody_is_stopped_before_somebody_is_known(tmp_path: Path) -> None:
    stops: list[Stopped] = []
    race = RacedAccuracy(_evaluator(tmp_path, Answering), (size,), first=16, on_stopped=stops.append)
    race.errors(_every())
    assert not stops


def test_a_candidate_that_costs_less_than_every_known_one_is_never_stopped(tmp_path: Path) -> None:
    stops: list[Stopped] = []
    race = RacedAccuracy(_evaluator(tmp_path, Answering), (size,), first=16, on_stopped=stops.append)
    X = _every()
    X = X[np.argsort(-size(X), kind="stable")]
    for row in X:
        race.errors(row[None])
    assert all(size(np.array([stop.rival]))[0] <= size(np.array([stop.architecture]))[0] for stop in stops)
    smallest = arch.extreme(SPACE.genes, largest=False)
    assert smallest not in {stop.architecture for stop in stops}


def test_a_stop_is_never_taken_for_an_accuracy(tmp_path: Path) -> None:
    stops: list[Stopped] = []
    evaluator = _evaluator(tmp_path, Answering)
    race = RacedAccuracy(evaluator, (size,), first=16, on_stopped=stops.append)
    for half in _halves():
        race.errors(half)
    rows = [stop.architecture for stop in stops]
    assert rows
    assert not evaluator.journal.read(evaluator.context, "accuracy", rows)
    truth = [answers_of(row, len(evaluator.data.validation)).mean() for row in rows]
    assert evaluator.errors(np.array(rows)) == pytest.approx(1 - np.array(truth))


def test_other_cheap_costs_know_nothing_of_these_stops(tmp_path: Path) -> None:
    stops: list[Stopped] = []
    evaluator = _evaluator(tmp_path, Answering)
    race = RacedAccuracy(evaluator, (size,), first=16, on_stopped=stops.append)
    for half in _halves():
        race.errors(half)
    assert stops
    other = RacedAccuracy(evaluator, (lambda X: -size(X),), first=16)
    rows = np.array([stop.architecture for stop in stops])
    truth = [answers_of(stop.architecture, len(evaluator.data.validation)).mean() for stop in stops]
    assert other.errors(rows) == pytest.approx(1 - np.array(truth))


def test_an_interrupted_race_ends_as_it_would_have(tmp_path: Path) -> None:
    first, second = _halves()
    whole = tmp_path / "whole"
    whole.mkdir()
    race = RacedAccuracy(_evaluator(whole, Answering), (size,), first=16)
    expected = [race.errors(first), race.errors(second)]
    for after in (1, len(first) + 1, len(first) + 3, len(_every()) - 1):
        folder = tmp_path / str(after)
        folder.mkdir()
        race = RacedAccuracy(Interrupted.after(after, folder), (size,), first=16)
        with pytest.raises(KeyboardInterrupt):
            _ = [race.errors(half) for half in (first, second)]
        race = RacedAccuracy(_evaluator(folder, Answering), (size,), first=16)
        assert (race.errors(first) == expected[0]).all()
        assert (race.errors(second) == expected[1]).all()


class Interrupted(Journal):
    """A journal whose process ends while it writes."""

    left = 0

    @classmethod
    def after(cls, writes: int, folder: Path) -> InheritedAccuracy:
        evaluator = _evaluator(folder, Answering)
        journal = cls(f"sqlite:///{folder / 'journal.sqlite'}")
        journal.left = writes
        return Answering(evaluator.space, evaluator.supernet, evaluator.data, journal, evaluator.calibration)

    def write(self, context: str, metric: str, architecture: Architecture, value: float) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        super().write(context, metric, architecture, value)


def test_deviations_are_those_of_stopped_candidates(tmp_path: Path) -> None:
    stops: list[Stopped] = []
    race = RacedAccuracy(_evaluator(tmp_path, Answering), (size,), first=16, on_stopped=stops.append)
    for half in _halves():
        race.errors(half)
    found = race.deviations(_every())
    by_row = {stop.architecture: stop.deviation for stop in stops}
    assert found.tolist() == [by_row.get(arch.to_architecture(row), 0.0) for row in _every()]
    assert (found > 0).any()


def test_real_networks_race_to_the_accuracies_that_they_have(tmp_path: Path) -> None:
    plain, raced = tmp_path / "plain", tmp_path / "raced"
    plain.mkdir()
    raced.mkdir()
    stops: list[Stopped] = []
    race = RacedAccuracy(_evaluator(raced), (size,), first=16, error=0.2, on_stopped=stops.append)
    expected = _evaluator(plain)
    for half in _halves():
        costs, errors = race.errors(half), expected.errors(half)
        stopped = np.isin(np.arange(len(half)), [_index(half, stop.architecture) for stop in stops])
        assert (costs[~stopped] == errors[~stopped]).all()


def _index(X: IntArray, architecture: Architecture) -> int:
    found = np.flatnonzero((np.array(architecture) == X).all(1))
    return int(found[0]) if len(found) else -1


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"error": 0.0}, "error is 0.0"), ({"error": 1.0}, "error is 1.0"), ({"first": 0}, "first")],
)
def test_settings_that_make_no_race_are_refused(tmp_path: Path, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RacedAccuracy(_evaluator(tmp_path), (size,), **settings)  # type: ignore[arg-type]
