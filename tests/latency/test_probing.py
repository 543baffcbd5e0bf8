from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from hwnas.latency.predictors import FloatArray
from hwnas.latency.predictors._regression import Regression, View
from hwnas.latency.probing import IntArray, measure_until

DATA = Path(os.environ.get("HWNAS_DATA", Path(__file__).parents[3] / "shared" / "data"))


class Pool:
    """A pool of networks described by columns, learned by a regression."""

    def __init__(self, columns: FloatArray) -> None:
        self._columns = columns
        self._model = Regression((View((1.0,)),))

    def fit(self, rows: IntArray, latency_ms: FloatArray) -> None:
        self._model.fit([self._columns[rows]], latency_ms)

    def predict(self) -> tuple[FloatArray, FloatArray]:
        return self._model.predict([self._columns])


def _line(noise: float, seed: int = 0) -> tuple[Pool, FloatArray]:
    rng = np.random.default_rng(seed)
    columns = rng.uniform(0, 1, (300, 6))
    truth = (5 + columns @ np.arange(1.0, 7.0)) * np.exp(noise * rng.normal(size=300))
    return Pool(columns), truth


def _run(pool: Pool, truth: FloatArray, *, error: float, budget: int, seed: int = 0):  # type: ignore[no-untyped-def]
    return measure_until(
        pool,
        len(truth),
        lambda i: float(truth[i]),
        error=error,
        budget=budget,
        start=range(8),
        rng=np.random.default_rng(seed),
    )


def test_it_stops_when_the_error_is_below_the_bound() -> None:
    pool, truth = _line(0.01)
    probed = _run(pool, truth, error=0.02, budget=120)
    mean, _ = pool.predict()
    assert probed.reached
    assert probed.upper < 0.02
    assert np.mean(np.abs(mean / truth - 1)) < 0.02
    assert len(probed.rows) == len(set(probed.rows)) == len(probed.latency_ms) < 60
    assert str(probed).startswith("reached with")


def test_it_does_not_claim_what_noise_forbids() -> None:
    for seed in range(5):
        pool, truth = _line(0.1, seed)
        probed = _run(pool, truth, error=0.04, budget=60, seed=seed)  # the noise alone is 8 %
        assert not probed.reached
        assert len(probed.rows) == 60
        assert probed.upper > 0.04


def test_a_claim_is_hardly_ever_wrong() -> None:
    wrong = 0
    for seed in range(20):
        pool, truth = _line(0.05, seed)
        probed = _run(pool, truth, error=0.05, budget=60, seed=seed)
        mean, _ = pool.predict()
        wrong += probed.reached and float(np.mean(np.abs(mean / truth - 1))) > 0.05
    assert wrong <= 2


def test_without_enough_judges_nothing_is_claimed() -> None:
    pool, truth = _line(0.0)
    probed = _run(pool, truth, error=0.5, budget=14)
    assert not probed.reached
    assert probed.upper == float("inf")


@pytest.mark.parametrize(("start", "error"), [(0, 0.1), (20, 0.1), (5, 0.0)])
def test_a_plan_that_cannot_be_is_refused(start: int, error: float) -> None:
    pool, truth = _line(0.0)
    with pytest.raises(ValueError, match="in the pool"):
        measure_until(
            pool,
            300,
            lambda i: float(truth[i]),
            error=error,
            budget=10,
            start=range(start),
            rng=np.random.default_rng(0),
        )


@pytest.mark.skipif(not (DATA / "fbnet_latency.parquet").exists(), reason=f"no latency tables in {DATA}")
def test_a_recorded_device_is_learned_to_ten_percent_and_not_to_a_tenth_of_one() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.read_parquet(DATA / "fbnet_latency.parquet").head(400)
    chosen = frame[[f"op{i}" for i in range(22)]].to_numpy()
    counts = (chosen[:, :, None] == np.arange(9)).sum(1).astype(float)
    truth = frame["lat_titan_rtx_32"].to_numpy(dtype=float)
    for error, expected in ((0.10, True), (0.001, False)):
        pool = Pool(counts)
        probed = _run(pool, truth, error=error, budget=60)
        mean, _ = pool.predict()
        assert probed.reached is expected
        assert (float(np.mean(np.abs(mean / truth - 1))) < error) is expected
