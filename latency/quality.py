"""How well predicted latencies match measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap, kendalltau, norm, spearmanr
from sklearn.metrics import mean_absolute_percentage_error

from hwnas.devices import Measurement


@dataclass(frozen=True, slots=True)
class PredictionQuality:
    """Predicted against measured latency over `n` networks; ratios, not percentages."""

    n: int
    mape: float  # mean absolute relative error
    mape_low: float  # 95 % bootstrap interval over the networks
    mape_high: float
    bias: float  # mean relative error: positive where predictions are too slow
    spearman: float | None  # None where ranks say nothing: fewer than three networks, or all equal
    kendall: float | None
    within_5_percent: float  # share of the networks
    within_10_percent: float
    rmse_ms: float  # root of the mean squared error
    rmse: float  # and of the mean squared relative error
    noise_floor: float | None = None  # mape of the same networks against themselves
    coverage: float | None = None  # share of the networks inside their intervals; None where there were none
    nominal: float | None = None  # the share that the intervals were made for

    @classmethod
    def of(
        cls,
        predicted_ms: ArrayLike,
        measured_ms: ArrayLike,
        *,
        std_ms: ArrayLike | None = None,
        interval_ms: tuple[ArrayLike, ArrayLike] | None = None,
        nominal: float = 0.9,
        noise_floor: float | None = None,
        rng: np.random.Generator | None = None,
    ) -> PredictionQuality:
        """Quality of `predicted_ms` against `measured_ms`, both of shape (networks,). Raises ValueError.

        Coverage is that of `interval_ms` (low, high), or of the normal interval of `std_ms` that should hold a share
        `nominal`; each array has shape (networks,).
        """
        predicted = np.asarray(predicted_ms, dtype=np.float64)
        measured = np.asarray(measured_ms, dtype=np.float64)
        if predicted.shape != measured.shape or predicted.ndim != 1 or not len(predicted):
            raise ValueError(
                f"predictions {predicted.shape} and measurements {measured.shape} must be one number a network, "
                "in the same order"
            )
        if not (np.all(measured > 0) and np.all(np.isfinite(predicted))):
            raise ValueError("measured latencies must be positive and predictions finite: drop what was not measured")
        relative = predicted / measured - 1
        if interval_ms is None and std_ms is not None:
            half = float(norm.ppf(0.5 + nominal / 2)) * np.asarray(std_ms, dtype=np.float64)
            interval_ms = predicted - half, predicted + half
        covered = None if interval_ms is None else _covered(measured, interval_ms)
        low, high = _interval(np.abs(relative), rng or np.random.default_rng(0))
        return cls(
            n=len(measured),
            mape=float(mean_absolute_percentage_error(measured, predicted)),
            mape_low=low,
            mape_high=high,
            bias=float(relative.mean()),
            spearman=_rank(spearmanr, predicted, measured),
            kendall=_rank(kendalltau, predicted, measured),
            within_5_percent=float(np.mean(np.abs(relative) <= 0.05)),
            within_10_percent=float(np.mean(np.abs(relative) <= 0.10)),
            rmse_ms=float(np.sqrt(np.mean((predicted - measured) ** 2))),
            rmse=float(np.sqrt(np.mean(relative**2))),
            noise_floor=noise_floor,
            coverage=covered,
            nominal=None if covered is None else nominal,
        )


def split_noise_floor(measurements: Sequence[Measurement]) -> float:
    """Mean relative difference between the medians of odd and even rounds: no predictor can be seen to beat it.

    Each half has half the runs, so it is somewhat larger than the noise of the whole. Raises ValueError for
    measurements of one round.
    """
    differences = []
    for measurement in measurements:
        rounds = len(measurement.runs_ms) // measurement.protocol.repeats
        if rounds < 2 or len(measurement.runs_ms) % rounds:
            raise ValueError(f"{len(measurement.runs_ms)} runs in {rounds} round(s) have no halves: measure 2 or more")
        runs = measurement.steady_ms.reshape(rounds, -1)  # (rounds, repeats)
        odd, even = float(np.median(runs[::2])), float(np.median(runs[1::2]))
        differences.append(abs(odd - even) / measurement.latency_ms)
    if not differences:
        raise ValueError("no measurements to take a noise floor from")
    return float(np.mean(differences))


def _interval(errors: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    if len(errors) < 2 or np.ptp(errors) == 0:  # nothing to resample
        return float(errors.mean()), float(errors.mean())
    found = bootstrap((errors,), np.mean, confidence_level=0.95, method="percentile", rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _covered(measured: np.ndarray, interval_ms: tuple[ArrayLike, ArrayLike]) -> float:
    low, high = (np.asarray(bound, dtype=np.float64) for bound in interval_ms)
    if low.shape != measured.shape or high.shape != measured.shape:
        raise ValueError(f"intervals {low.shape}, {high.shape} for {measured.shape} networks: give one a network")
    return float(np.mean((low <= measured) & (measured <= high)))


def _rank(correlation: object, predicted: np.ndarray, measured: np.ndarray) -> float | None:
    if len(measured) < 3 or np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return None
    return float(correlation(predicted, measured).statistic)  # type: ignore[operator]  # scipy ships no types
