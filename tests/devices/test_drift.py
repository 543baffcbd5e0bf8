"""The drift that a batch shares is found, and nothing else is taken for it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.devices.drift import FEWEST, common_drift


def _batch(n: int, seed: int, drift: np.ndarray) -> np.ndarray:
    """Runs (n, 12, 5) of artefacts on a device whose 12 rounds are `drift` times as slow."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.01, 2, n)
    return np.asarray(truth[:, None, None] * drift[:, None] * rng.lognormal(0, 0.01, (n, 12, 5)))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), n=st.integers(FEWEST, 40))
def test_two_speeds_of_a_device_are_found(seed: int, n: int) -> None:
    drift = np.where(np.random.default_rng(seed).random(12) < 0.5, 1.0, 1.35)
    found = common_drift(_batch(n, seed, drift))
    assert np.allclose(found / found[0], drift / drift[0], rtol=0.03)


def test_an_artefact_slow_by_itself_is_not_taken_for_drift() -> None:
    runs = _batch(15, 2, np.ones(12))
    runs[0, 6:] *= 3
    assert np.allclose(common_drift(runs), 1, atol=0.02)


def test_rounds_that_few_took_part_in_are_found_too() -> None:
    drift = np.array([1.0] * 8 + [1.4] * 4)
    runs = _batch(24, 5, drift)
    runs[FEWEST:, 8:] = np.nan
    assert np.allclose(common_drift(runs), drift, rtol=0.03)
