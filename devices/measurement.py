"""Timed runs of one artefact on one device, and the protocol they were taken under."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom


@dataclass(frozen=True, slots=True)
class Protocol:
    """How an artefact is timed.

    One call a repeat: an average over several calls lets a preemption speak for all of them.
    `rounds` visits every artefact of a batch in a fresh random order, so that a slow spell of the device
    falls on all of them alike. Many short rounds beat few long ones: runs of one round share its luck.
    """

    rounds: int = 20
    repeats: int = 5  # timed calls a round
    warmup: int = 2  # calls before the timed ones of a round, not kept: only the first is 5 to 15 % slow
    threads: int = 1
    pinned: bool = True  # to one core
    niceness: int = -10  # asked for; what was granted is recorded by the runner's fingerprint
    timeout_s: float = 60.0  # for one artefact in one round
    seed: int = 0  # of the order

    @property
    def runs(self) -> int:
        """Timed calls an artefact."""
        return self.rounds * self.repeats

    def to_json(self) -> dict[str, Any]:
        """The protocol as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Protocol:
        """The protocol that `to_json` wrote."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Measurement:
    """Raw runs of one artefact in ms, with everything needed to judge them."""

    runs_ms: tuple[float, ...]  # round after round
    protocol: Protocol
    measured_at: str  # ISO 8601, UTC
    drift: tuple[float, ...] = ()  # speed of the device in each round, common to the batch; none: not known

    def __post_init__(self) -> None:
        if not self.runs_ms:
            raise ValueError("a measurement needs at least one run: a gap is an error, never a zero")
        if self.drift and len(self.runs_ms) % len(self.drift):
            raise ValueError(f"{len(self.runs_ms)} runs do not fall into {len(self.drift)} rounds of equal length")

    @property
    def steady_ms(self) -> NDArray[np.float64]:
        """The runs with the batch's common drift divided out, (runs,)."""
        runs = np.asarray(self.runs_ms, dtype=np.float64)
        return runs / np.repeat(self.drift, len(runs) // len(self.drift)) if self.drift else runs

    @property
    def latency_ms(self) -> float:
        """Median steady run: a mean would let one page fault speak for all."""
        return float(np.median(self.steady_ms))

    def percentile_ms(self, q: float) -> float:
        """The q-th percentile of the raw runs, q in 0..100: a tail is what a user meets, drift included."""
        return float(np.percentile(self.runs_ms, q))

    def ci_ms(self, confidence: float = 0.95) -> tuple[float, float]:
        """Distribution-free confidence interval of the median, from order statistics.

        The number of runs below the true median is Binomial(n, 1/2); the interval lies between the order
        statistics at its quantiles (Conover, Practical Nonparametric Statistics, 1999, section 3.2).
        Runs of one round resemble each other, so where drift is not known it is narrower than the truth.
        """
        runs = np.sort(self.steady_ms)
        n = len(runs)
        low = int(binom.ppf((1 - confidence) / 2, n, 0.5))
        high = min(n - 1, ceil(binom.ppf((1 + confidence) / 2, n, 0.5)))
        return float(runs[max(0, low - 1)]), float(runs[high])
