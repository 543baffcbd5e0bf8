"""The measurement protocol: rounds over all artefacts until the device is warm and each median is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hwnas.devices.drift import FEWEST, common_drift
from hwnas.devices.measurement import Measurement, Protocol
from hwnas.devices.runfailure import RunFailure

# Index of an artefact -> its runs in ms of one round, or why there are none.
Answers = dict[int, list[float] | RunFailure]

_STEADY = 0.02  # two successive rounds this close: the device has warmed up
_SLOWED = 1.1  # three rounds in a row this much slower than the first ones: the device is throttling
_COOL_DOWNS = 3  # a visit
_BATCH = 4  # further rounds between two looks at the intervals


@dataclass(slots=True)
class _Visit:
    count: int
    protocol: Protocol
    one_round: Callable[[Sequence[int]], Answers]
    measured_at: str
    sleep: Callable[[float], None]
    rounds: list[dict[int, list[float]]] = field(default_factory=list)
    failures: dict[int, RunFailure] = field(default_factory=dict)
    cool_downs: int = 0

    def time(self) -> list[Measurement | RunFailure]:
        rng = np.random.default_rng(self.protocol.seed)
        everything = range(self.count)
        self._warm_up(rng)
        for _ in range(self.protocol.rounds):
            self._add_round(everything, rng)
            self._cool_down()
        while len(self.rounds) < self.protocol.max_rounds and (vague := self._vague()):
            for _ in range(min(_BATCH, self.protocol.max_rounds - len(self.rounds))):
                # the drift of a round is only known from enough artefacts
                rest = [i for i in everything if i not in vague and i not in self.failures]
                company = rng.permutation(rest)[: max(0, FEWEST - len(vague))]
                self._add_round([*vague, *map(int, company)], rng)
        measured = self._measurements()
        return [self.failures[i] if i in self.failures else measured[i] for i in everything]

    def _warm_up(self, rng: np.random.Generator) -> None:
        """Rounds that are not kept, until two in a row agree."""
        for _ in range(self.protocol.burn_in):
            self._add_round(range(self.count), rng)
            if len(self.rounds) > 1 and abs(self._speed(self.rounds[-1], self.rounds[-2:-1]) - 1) < _STEADY:
                break
        self.rounds.clear()

    def _add_round(self, chosen: Sequence[int], rng: np.random.Generator) -> None:
        order = [int(i) for i in rng.permutation(chosen) if i not in self.failures]
        runs: dict[int, list[float]] = {}
        for index, answer in self.one_round(order).items():
            if isinstance(answer, RunFailure):
                self.failures[index] = answer
            else:
                runs[index] = answer
        self.rounds.append(runs)

    def _cool_down(self) -> None:
        first, last = self.rounds[:3], self.rounds[-3:]
        slowed = len(self.rounds) >= 2 * len(first) and all(self._speed(each, first) > _SLOWED for each in last)
        if slowed and self.cool_downs < _COOL_DOWNS and self.protocol.cool_down_s > 0:
            self.cool_downs += 1
            self.sleep(self.protocol.cool_down_s)

    def _speed(self, now: dict[int, list[float]], then: Sequence[dict[int, list[float]]]) -> float:
        """Median over the artefacts of their time now, over their time then."""
        ratios = [
            np.median(now[i]) / np.median(np.concatenate([each[i] for each in then]))
            for i in now
            if all(i in each for each in then)
        ]
        return float(np.median(ratios)) if ratios else 1.0

    def _vague(self) -> list[int]:
        measured = self._measurements()
        return [i for i, m in measured.items() if m.relative_ci() > self.protocol.precision]

    def _measurements(self) -> dict[int, Measurement]:
        ran = [i for i in range(self.count) if i not in self.failures]
        drift = np.ones(len(self.rounds))
        known = len(ran) >= FEWEST
        if known:
            gap = [np.nan] * self.protocol.repeats
            drift = common_drift(np.array([[each.get(i, gap) for each in self.rounds] for i in ran]))
        found = {}
        for i in ran:
            present = [n for n, each in enumerate(self.rounds) if i in each]
            runs_ms = tuple(run for n in present for run in self.rounds[n][i])
            factors = tuple(round(float(drift[n]), 6) for n in present) if known else ()
            found[i] = Measurement(runs_ms, self.protocol, self.measured_at, factors)
        return found


def time_in_rounds(
    count: int,
    protocol: Protocol,
    one_round: Callable[[Sequence[int]], Answers],
    measured_at: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Measurement | RunFailure]:
    """Time `count` artefacts by `one_round`, which times those of the given indices in the given order.

    First rounds until the device is warm, not kept; then `protocol.rounds` over all artefacts; then more over those
    whose median is not yet known to `protocol.precision`, up to `protocol.max_rounds`. Every round has a random order
    of its own, so that a slow spell of the device falls on all alike; what is common to a round is noted as its drift.
    Where the device throttles it is given `protocol.cool_down_s` to cool.
    """
    return _Visit(count, protocol, one_round, measured_at, sleep).time()
