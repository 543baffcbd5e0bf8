"""The drift that a batch shares is found, and nothing else is taken for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.devices import Measurement, Protocol
from hwnas.devices.drift import FEWEST, common_drift, note_drift

PROTOCOL = Protocol(rounds=12, repeats=5)


def _batch(n: int, seed: int, drift: np.ndarray) -> tuple[np.ndarray, list[Measurement]]:
    """Latencies of `n` artefacts and their runs on a device whose rounds are `drift` times as slow."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.01, 2, n)
    noise = rng.lognormal(0, 0.01, (n, 12, 5))
    runs = truth[:, None, None] * drift[:, None] * noise
    return truth, [Measurement(tuple(r.ravel().tolist()), PROTOCOL, "now") for r in runs]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), n=st.integers(FEWEST, 40))
def test_two_speeds_of_a_device_are_found(seed: int, n: int) -> None:
    drift = np.where(np.random.default_rng(seed).random(12) < 0.5, 1.0, 1.35)
    _, batch = _batch(n, seed, drift)
    found = common_drift(np.array([m.runs_ms for m in batch]).reshape(n, 12, 5))
    assert np.allclose(found / found[0], drift / drift[0], rtol=0.03)


def test_latencies_of_one_batch_keep_their_ratios() -> None:
    # a device that is slow for more than half of some artefacts' rounds would put their plain medians wrong
    truth, batch = _batch(20, 3, np.array([1.0, 1.4] * 6))
    noted = np.array([m.latency_ms for m in note_drift(batch)])
    assert np.allclose(noted / noted[0], truth / truth[0], rtol=0.02)


def test_raw_runs_stay_as_they_are() -> None:
    _, batch = _batch(FEWEST, 1, np.ones(12))
    assert [m.runs_ms for m in note_drift(batch)] == [m.runs_ms for m in batch]


def test_a_small_batch_has_no_drift_to_tell_from_noise() -> None:
    _, batch = _batch(FEWEST - 1, 1, np.array([1.0, 1.4] * 6))
    assert [m.drift for m in note_drift(batch)] == [()] * (FEWEST - 1)


def test_an_artefact_slow_by_itself_is_not_taken_for_drift() -> None:
    _, batch = _batch(15, 2, np.ones(12))
    slow = replace(batch[0], runs_ms=tuple(3 * run if i >= 30 else run for i, run in enumerate(batch[0].runs_ms)))
    assert np.allclose(note_drift([slow, *batch[1:]])[1].drift, 1, atol=0.02)
