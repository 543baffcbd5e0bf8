from __future__ import annotations

from math import comb

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


def test_drift_is_divided_out_of_the_latency_and_not_of_the_raw_runs() -> None:
    measured = Measurement((1.0, 1.2, 2.0, 2.4), Protocol(rounds=2, repeats=2), "now", (1.0, 2.0))
    assert measured.steady_ms.tolist() == [1.0, 1.2, 1.0, 1.2]
    assert measured.latency_ms == 1.1
    assert measured.percentile_ms(100) == 2.4


def test_drift_of_other_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="3 runs do not fall into 2 rounds"):
        Measurement((1.0, 1.0, 1.0), Protocol(), "now", (1.0, 1.0))


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
