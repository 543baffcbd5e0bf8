"""Candidates that are clearly beaten stop early; those that are not beaten stop as rarely as stated."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, pairwise
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, BoolArray, FloatArray, IntArray
from hwnas.engine.evaluation.inherited import InheritedAccuracy
from hwnas.engine.evaluation.racing import RacedAccuracy, Stopped, is_beaten, log_capital, looks
from hwnas.engine.journal import Journal
from tests.engine.training_runs import SPACE, dataset


def _bits(*values: int) -> BoolArray:
    return np.array(values, dtype=bool)


# ---- the bet --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_the_capital_is_what_betting_coin_by_coin_makes_of_it(answers: list[tuple[bool, bool]]) -> None:
    capital, lead, coins = Fraction(1), 0, 0
    for candidate, rival in answers:
        if candidate == rival:
            continue
        share = Fraction(max(lead, 0), coins + 1)
        outcome = 1 if rival else -1
        capital *= 1 + share * outcome
        lead, coins = lead + outcome, coins + 1
    candidate, rival = np.array(answers, dtype=bool).reshape(-1, 2).T
    assert log_capital(candidate, rival) == pytest.approx(log(capital), abs=1e-9)


@pytest.mark.parametrize(("for_candidate", "for_rival"), [(7, 7), (8, 6), (5, 5), (9, 4), (1, 1)])
@pytest.mark.parametrize("error", [0.5, 0.2, 0.05])
def test_no_order_of_the_images_is_needed_to_keep_the_stated_error(
    for_candidate: int, for_rival: int, error: float
) -> None:
    """Every order of every split with so many discordant images, looked at after each of them."""
    n = for_candidate + for_rival
    wrong = total = 0
    for places in combinations(range(n), for_rival):
        rival = np.zeros(n, dtype=bool)
        rival[list(places)] = True
        total += 1
        wrong += any(is_beaten(~rival[:k], [rival[:k]], error=error) for k in range(1, n + 1))
    assert wrong / total <= error


def test_the_error_covers_all_rivals_together() -> None:
    """Ten rivals exactly as accurate as the candidate, looked at after every image."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        difficulty = rng.random(120)
        answers = rng.random((11, 120)) < 0.4 + 0.5 * difficulty
        # equal accuracy on the split: images beyond the smallest number of right answers become wrong ones
        for row in answers:
            right = np.flatnonzero(row)
            row[rng.permutation(right)[: len(right) - answers.sum(1).min()]] = False
        order = rng.permutation(120)
        candidate, *rivals = answers[:, order]
        wrong += any(is_beaten(candidate[:k], [r[:k] for r in rivals], error=0.1) for k in range(5, 121, 5))
    assert wrong / 400 <= 0.1


def test_a_clear_loser_is_seen_early() -> None:
    rng = np.random.default_rng(0)
    rival = rng.random(1000) < 0.9
    candidate = rival & (rng.random(1000) < 0.85)
    assert is_beaten(candidate[:128], [rival[:128]], error=0.01)
    assert not is_beaten(rival, [candidate], error=0.5)


def test_without_rivals_nobody_is_beaten() -> None:
    assert not is_beaten(_bits(0, 0, 0), [], error=0.5)


def test_many_weak_rivals_raise_the_stake() -> None:
    candidate, strong, weak = np.zeros(8, dtype=bool), np.ones(8, dtype=bool), np.zeros(8, dtype=bool)
    error = 1.01 / exp(log_capital(candidate, strong))
    assert is_beaten(candidate, [strong], error=error)
    assert not is_beaten(candidate, [strong, weak], error=error)


@given(st.integers(1, 5000), st.integers(1, 500))
def test_looks_double_up_to_the_whole_split(images: int, first: int) -> None:
    found = looks(images, first)
    assert found[-1] == images
    assert all(b <= 2 * a for a, b in pairwise(found))
    assert all(a < b for a, b in pairwise(found))


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
            assert abs(stop.estimate - true) < 5 * stop.deviation + 1e-9


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
    ("settings", "message"), [({"error": 0.0}, "error is 0.0"), ({"rivals": 0}, "rivals is 0"), ({"first": 0}, "first")]
)
def test_settings_that_make_no_race_are_refused(tmp_path: Path, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RacedAccuracy(_evaluator(tmp_path), (size,), **settings)  # type: ignore[arg-type]
