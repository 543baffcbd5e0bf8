"""Measure more until the error is below a bound: which networks to measure next, and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol as Role

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from hwnas.latency.predictors import FloatArray

IntArray = NDArray[np.int64]

# One-sided confidence with which the mean error is below the bound when success is claimed.
_CONFIDENCE = 0.95


class Learner(Role):
    """A predictor over a fixed pool of networks, known by their positions in it."""

    def fit(self, rows: IntArray, latency_ms: FloatArray) -> None:
        """Forget what was learned and learn from these rows of the pool, measured in ms."""
        ...

    def predict(self) -> tuple[FloatArray, FloatArray]:
        """(mean, standard deviation) in ms of the whole pool, each (pool,)."""
        ...


@dataclass(frozen=True, slots=True)
class Probed:
    """What was measured, and what is known of the error; `reached` is True only where the bound holds."""

    reached: bool
    rows: tuple[int, ...]  # of the pool, in the order of measurement
    latency_ms: tuple[float, ...]
    error: float  # mean absolute relative error on the last networks measured before they taught anything
    upper: float  # its one-sided 95 % confidence bound
    history: tuple[tuple[int, float, float], ...]  # (networks measured, error, upper) after every batch

    def __str__(self) -> str:
        verb = "reached" if self.reached else "not reached"
        return f"{verb} with {len(self.rows)} networks: error {self.error:.1%}, at most {self.upper:.1%}"


def measure_until(
    learner: Learner,
    pool: int,
    measure: Callable[[int], float],
    *,
    error: float,
    budget: int,
    start: Sequence[int],
    rng: np.random.Generator,
    batch: int = 5,
) -> Probed:
    """Measure networks of a pool of `pool` until the learner's mean absolute relative error is below `error`.

    `start` are measured first (a transfer's farthest points); then batches of the most uncertain networks, to learn
    from, and of as many random ones, to judge by. A random network is predicted before it is measured, so that its
    error is one on a network never seen; only those of a learner at least as well taught count, of the last batches
    that hold eight. `error` is claimed when the confidence bound of their mean is below it, never otherwise;
    at `budget` measurements, or with the pool measured, it ends without the claim. Raises ValueError.
    """
    rows = [int(i) for i in start]
    if not 0 < len(rows) <= min(budget, pool) or error <= 0:
        raise ValueError(f"{len(rows)} first networks, a budget of {budget}, {pool} in the pool: give 1 to the budget")
    latency_ms = [measure(i) for i in rows]
    judged: list[float] = []
    history: list[tuple[int, float, float]] = []
    while True:
        learner.fit(np.array(rows, dtype=np.int64), np.array(latency_ms))
        mean_ms, std_ms = learner.predict()
        mean, upper = _judge(judged)
        if judged:
            history.append((len(rows), mean, upper))
        left = np.setdiff1d(np.arange(pool), rows)
        if upper < error or len(rows) >= budget or not len(left):
            return Probed(upper < error, tuple(rows), tuple(latency_ms), mean, upper, tuple(history))
        room = min(2 * batch, budget - len(rows), len(left))
        drawn = rng.permutation(left)[: (room + 1) // 2]
        rest = np.setdiff1d(left, drawn)
        doubtful = rest[np.argsort(-(std_ms / mean_ms)[rest], kind="stable")][: room - len(drawn)]
        for i in (*drawn.tolist(), *doubtful.tolist()):
            rows.append(i)
            latency_ms.append(measure(i))
        judged += [abs(float(mean_ms[i]) / latency_ms[rows.index(i)] - 1) for i in drawn.tolist()]


def _judge(errors: Sequence[float]) -> tuple[float, float]:
    """Mean of the last errors, at least eight, and the upper confidence bound of it; infinite for too few."""
    recent = np.array(errors[-max(8, len(errors) // 2) :])
    if len(recent) < 8:
        return float(recent.mean()) if len(recent) else float("inf"), float("inf")
    width = t.ppf(_CONFIDENCE, len(recent) - 1) * recent.std(ddof=1) / np.sqrt(len(recent))
    return float(recent.mean()), float(recent.mean() + width)
