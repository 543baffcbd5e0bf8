"""Timed runs of one artefact on one device, and the protocol they were taken under."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

TAIL_RUNS = 200  # fewest runs a 99th percentile is read from: two of them lie beyond it

_MAD_TO_STD = 1.4826  # of a normal distribution


@dataclass(frozen=True, slots=True)
class Protocol:
    """How an artefact is timed.

    One call a repeat: an average over several calls lets a preemption speak for all of them.
    `rounds` visits every artefact of a batch in a fresh random order, so that a slow spell of the device
    falls on all of them alike. Many short rounds beat few long ones: runs of one round share its luck.
    """

    rounds: int = 20  # at least
    repeats: int = 5  # timed calls a round
    max_rounds: int = 0  # at most, for what is not yet known to `precision`; below `rounds`: never more than those
    precision: float = 0.02  # half the median's 95 % interval, relative to the median
    burn_in: int = 3  # rounds at most that are not kept, until two in a row agree
    cool_down_s: float = 2.0  # rest where rounds become slower and slower
    flush_mib: int = 0  # written over the caches before each call; 0: caches are hot
    warmup: int = 2  # calls before the timed ones of a round, not kept: only the first is 5 to 15 % slow
    threads: int = 1
    pinned: bool = True  # to one core
    niceness: int = -10  # asked for; what was granted is recorded by the runner's fingerprint
    timeout_s: float = 60.0  # for one artefact in one round
    seed: int = 0  # of the order

    @property
    def runs(self) -> int:
        """Timed calls an artefact, at least."""
        return self.rounds * self.repeats

    @property
    def cache(self) -> str:
        """State of the caches when a call begins: "hot" or "flushed"."""
        return f"flushed ({self.flush_mib} MiB)" if self.flush_mib else "hot"

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
    energy_mj: float | None = None  # of one run, where a counter or a model says so

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

    def tail_ms(self, q: float) -> float:
        """The q-th percentile where there are runs enough to speak of a tail. Raises ValueError below `TAIL_RUNS`."""
        if len(self.runs_ms) < TAIL_RUNS:
            raise ValueError(
                f"the {q:g}th percentile of {len(self.runs_ms)} runs is luck: measure at least {TAIL_RUNS} "
                "(rounds times repeats)"
            )
        return self.percentile_ms(q)

    @property
    def outliers(self) -> int:
        """Steady runs farther from the median than three scaled median absolute deviations; they stay in `runs_ms`."""
        steady = self.steady_ms
        distance = np.abs(steady - np.median(steady))
        return int(np.sum(distance > 3 * _MAD_TO_STD * np.median(distance)))

    def relative_ci(self, confidence: float = 0.95) -> float:
        """Half the width of `ci_ms`, relative to the median."""
        low, high = self.ci_ms(confidence)
        return (high - low) / 2 / self.latency_ms

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
