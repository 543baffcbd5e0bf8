from __future__ import annotations

from math import comb
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.devices import Measurement, Protocol

TIMES = st.lists(st.floats(0.001, 1000), min_size=1, max_size=60)


def _measurement(*runs_ms: float) -> Measurement:
    return Measurement(runs_ms, Protocol(), "2026-01-01T00:00:00+00:00")


def _coverage(n: int, low: int, high: int) -> float:
    """Chance that the true median lies between the order statistics `low` and `high`, 0-based, both included."""
    return sum(comb(n, k) for k in range(low + 1, high + 1)) / 2**n


def test_the_latency_is_the_median() -> None:
    assert _measurement(1.0, 2.0, 30.0).latency_ms == 2.0


def test_the_quiet_latency_is_the_median_of_the_fastest_run_of_each_round() -> None:
    runs_ms = (1.0, 9.0, 2.0, 8.0, 7.0, 0.1)  # three rounds of two
    measured = Measurement(runs_ms, Protocol(rounds=3, repeats=2), "now")
    assert measured.quiet_ms == measured.latency("quiet") == 1.0
    assert measured.latency("median") == 4.5


def test_runs_that_fill_no_rounds_have_a_fastest_one() -> None:
    assert Measurement((3.0, 2.0, 4.0), Protocol(rounds=2, repeats=2), "now").quiet_ms == 2.0


@given(st.integers(1, 6), st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_quiet_latency_agrees_with_sorting_the_fastest_runs(rounds: int, repeats: int, random: Random) -> None:
    runs_ms = tuple(random.uniform(0.1, 10) for _ in range(rounds * repeats))
    measured = Measurement(runs_ms, Protocol(rounds=rounds, repeats=repeats), "now")
    slow = sorted(min(runs_ms[i * repeats : (i + 1) * repeats]) for i in range(rounds))
    assert measured.quiet_ms == (slow[(rounds - 1) // 2] + slow[rounds // 2]) / 2


def test_no_run_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        _measurement()


@given(TIMES)
def test_the_interval_is_made_of_runs_around_the_median(runs_ms: list[float]) -> None:
    measured = _measurement(*runs_ms)
    low, high = measured.ci_ms()
    assert low in runs_ms
    assert high in runs_ms
    assert low <= measured.latency_ms <= high


@given(st.integers(1, 120), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_covers_the_median_as_often_as_counted(n: int, confidence: float) -> None:
    low, high = _measurement(*map(float, range(1, n + 1))).ci_ms(confidence)
    whole = _coverage(n, 0, n - 1)  # all that n runs can promise
    assert _coverage(n, int(low) - 1, int(high) - 1) >= min(confidence, whole) - 1e-12


def test_the_interval_of_a_hundred_runs_is_the_textbook_one() -> None:
    # Conover's tables: order statistics 40 and 61 hold the median of 100 with at least 95 %
    low, high = _measurement(*map(float, range(1, 101))).ci_ms()
    assert 40 <= low <= 41
    assert 60 <= high <= 61


def test_the_interval_covers_the_median_of_skewed_runs() -> None:
    rng = np.random.default_rng(0)
    true_median = float(np.log(2))
    hits = 0
    for _ in range(400):
        low, high = _measurement(*rng.exponential(size=25)).ci_ms()
        hits += low <= true_median <= high
    assert hits / 400 > 0.93


def test_a_protocol_survives_json() -> None:
    protocol = Protocol(rounds=2, repeats=7, niceness=0)
    assert Protocol.from_json(protocol.to_json()) == protocol
