"""Timed runs of one artefact on one device, and the protocol they were taken under."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Literal

import numpy as np
from scipy.stats import binom

Statistic = Literal["median", "quiet"]


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

    def __post_init__(self) -> None:
        if not self.runs_ms:
            raise ValueError("a measurement needs at least one run: a gap is an error, never a zero")

    @property
    def latency_ms(self) -> float:
        """Median run: a mean would let one page fault speak for all."""
        return float(np.median(self.runs_ms))

    @property
    def quiet_ms(self) -> float:
        """Median over the rounds of each round's fastest run: what is left when another process shares the core.

        On two cores shared with other work, six repeated medians of a block scattered by 17 % and this by 10 %; by 16 %
        and 5 % once the drift common to all blocks is taken out (standard deviation over the mean, 16 blocks of 0.2
        to 2 ms, 20 rounds of 5 runs). The plain minimum would fall for one short fast spell.
        """
        per_round = len(self.runs_ms) // self.protocol.rounds
        if per_round < 1 or len(self.runs_ms) % self.protocol.rounds:
            return float(np.min(self.runs_ms))  # recorded without its rounds
        return float(np.median(np.reshape(self.runs_ms, (self.protocol.rounds, per_round)).min(axis=1)))

    def latency(self, statistic: Statistic) -> float:
        """`latency_ms` or `quiet_ms`, in ms."""
        return self.latency_ms if statistic == "median" else self.quiet_ms

    def percentile_ms(self, q: float) -> float:
        """The q-th percentile of the runs, q in 0..100."""
        return float(np.percentile(self.runs_ms, q))

    def ci_ms(self, confidence: float = 0.95) -> tuple[float, float]:
        """Distribution-free confidence interval of the median, from order statistics.

        The number of runs below the true median is Binomial(n, 1/2); the interval lies between the order
        statistics at its quantiles (Conover, Practical Nonparametric Statistics, 1999, section 3.2).
        Runs of one round resemble each other, so on a device that drifts it is narrower than the truth.
        """
        runs = np.sort(self.runs_ms)
        n = len(runs)
        low = int(binom.ppf((1 - confidence) / 2, n, 0.5))
        high = min(n - 1, ceil(binom.ppf((1 + confidence) / 2, n, 0.5)))
        return float(runs[max(0, low - 1)]), float(runs[high])
