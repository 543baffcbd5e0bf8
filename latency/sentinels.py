"""Is the device still what it was when its table was measured? A few of the table's artefacts, timed again, tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from hwnas.devices import Fingerprint, Measurement, Protocol, Runner
from hwnas.latency.rows import DriftCheck, now
from hwnas.latency.table import LatencyTable
from hwnas.latency.visits import Anchor, find_anchors

SENTINELS = 12
LOOKS = 10
_SECONDS = 2.0  # of runs a look, so that a check stays below two minutes with its pauses
_FEWEST = 3
_ALLOWED = 0.05  # a device that swings less than this by itself may still differ by so much from day to day


class DriftError(RuntimeError):
    """A table whose device has moved since; the message says by how much, and the cure."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A drift check with what it stands on."""

    check: DriftCheck
    allowed: float  # share that the speed may differ by: what the device did by itself while its table was measured
    ratios: dict[str, float]  # by key: time now over time in the table
    common: bool  # whether one factor tells the whole change, so that the table can be rescaled by it
    looks: int  # how often the sentinels were timed

    @property
    def moved(self) -> bool:
        """Whether the device has changed by more than it does by itself."""
        return self.check.verdict == "moved"


def check_drift(
    table: LatencyTable,
    runner: Runner,
    library: Callable[[str], Path | None],
    protocol: Protocol,
    *,
    patience_s: float = 80.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Drift:
    """Time up to `SENTINELS` of the table's first visit again, interleaved, in less than two minutes.

    A look finds the device moved where the 95 % interval of the common factor lies outside what is allowed, or where
    the sentinels moved apart by more than that. One look that finds it unchanged is enough; it has moved only where
    `LOOKS` of them, spread over `patience_s`, all say so, because the clock of a shared or a warm machine comes and
    goes. Raises DeviceError for another device than the table's, DriftError where too few artefacts are left.
    """
    fingerprint = runner.fingerprint()
    table.check_same_device(fingerprint, protocol)
    anchors = find_anchors(table, library, SENTINELS)
    if len(anchors) < _FEWEST:
        raise DriftError(
            f"{len(anchors)} of the first artefacts of {table.device.name!r} are still in the cache, a check needs "
            f"{_FEWEST}: give the cache folder that its table was built with, or build a new table"
        )
    short, allowed = _short(protocol, anchors), swing(table)
    looks: list[_Look] = []
    while len(looks) < LOOKS and (not looks or looks[-1].moved(allowed)):
        if looks:
            sleep(patience_s / (LOOKS - 1))
        looks.append(_look(table, runner, anchors, short))
    return _judged(looks, allowed, fingerprint, table.scale)


@dataclass(frozen=True, slots=True)
class _Look:
    """The sentinels timed once more: how long they took, over what the table says."""

    ratios: dict[str, float]
    speed: float
    low: float
    high: float

    def apart(self, allowed: float) -> bool:
        """Whether no common factor tells the change."""
        logs = np.log(list(self.ratios.values()))
        return bool(np.median(np.abs(logs - np.log(self.speed))) > np.log1p(allowed))

    def moved(self, allowed: float) -> bool:
        return self.apart(allowed) or self.low > 1 + allowed or self.high < 1 / (1 + allowed)


def _look(table: LatencyTable, runner: Runner, anchors: Sequence[Anchor], protocol: Protocol) -> _Look:
    answers = runner.time([anchor.path for anchor in anchors], protocol)
    pairs = [(a, m) for a, m in zip(anchors, answers, strict=True) if isinstance(m, Measurement)]
    if len(pairs) < _FEWEST:
        raise DriftError(f"{len(pairs)} of {len(anchors)} sentinels ran on {table.device.name!r}: {answers[0]}")
    ratios = {anchor.key: measured.latency_ms / (table.scale * anchor.then_ms) for anchor, measured in pairs}
    return _Look(ratios, *common_factor(np.array(list(ratios.values()))))


def _judged(looks: Sequence[_Look], allowed: float, fingerprint: Fingerprint, scale: float) -> Drift:
    moved = looks[-1].moved(allowed)
    # a device that moved is told by all looks together, one that did not by the look that saw it
    told = sorted(looks if moved else looks[-1:], key=lambda look: look.speed)
    middle = told[len(told) // 2]
    check = DriftCheck(
        created_at=now(),
        fingerprint=fingerprint,
        # the table keeps factors relative to its first visit, whatever it was rescaled by since
        speed=scale * float(np.median([look.speed for look in told])),
        low=scale * min(look.low for look in told),
        high=scale * max(look.high for look in told),
        sentinels=len(middle.ratios),
        verdict="moved" if moved else "unchanged",
        accepted=False,
    )
    return Drift(check, allowed, middle.ratios, not middle.apart(allowed), len(looks))


def common_factor(ratios: np.ndarray) -> tuple[float, float, float]:
    """(median, low, high) of ratios (n,): a 95 % Student interval of the logarithms' centre, by their scaled MAD."""
    logs = np.log(ratios)
    centre = float(np.median(logs))
    spread = 1.4826 * float(np.median(np.abs(logs - centre)))
    # a median of normal numbers has 1.25 times the standard error of their mean
    half = float(student.ppf(0.975, len(logs) - 1)) * 1.2533 * spread / np.sqrt(len(logs))
    return float(np.exp(centre)), float(np.exp(centre - half)), float(np.exp(centre + half))


def swing(table: LatencyTable) -> float:
    """Share by which the device's speed varied by itself while the table was measured, at least 5 %.

    Half the range of the middle 90 % of the rounds' drift factors in the first visit; a usual departure of later ones.
    """
    factors = [
        factor
        for row in table.first_visit_rows()[:1]  # the rounds of a visit are common to its rows
        if isinstance(row.evidence.result, Measurement)
        for factor in row.evidence.result.drift
    ]
    inside = float(np.ptp(np.quantile(factors, [0.05, 0.95]))) / 2 if len(factors) > 1 else 0.0
    departures = [abs(visit.speed - 1) for visit in table.visits() if visit.speed is not None]
    return max(_ALLOWED, inside, float(np.median(departures)) if departures else 0.0)


def accept(table: LatencyTable, drift: Drift) -> DriftCheck:
    """Rescale `table` by what `drift` found; raw runs stay. Raises DriftError where one factor does not tell it."""
    if not drift.common:
        raise DriftError(
            f"the blocks of {table.device.name!r} changed by different factors "
            f"({min(drift.ratios.values()):.2f} to {max(drift.ratios.values()):.2f}): no rescaling mends that, "
            "build a new table"
        )
    accepted = replace(drift.check, accepted=True)
    table.note_check(accepted)
    return accepted


def refuse_moved(table: LatencyTable) -> None:
    """Raises DriftError where the last check found that the device has moved and nobody accepted it."""
    checks = table.checks()
    if checks and checks[-1].verdict == "moved" and not checks[-1].accepted:
        last = checks[-1]
        raise DriftError(
            f"the device {table.device.name!r} takes {last.speed / table.scale:.2f} times as long as its table says "
            f"(checked at {last.created_at}): bring it back to the state it was measured in and run "
            "`hwnas table check` again, accept it with `hwnas table check --rescale`, or build a new table"
        )


def _short(protocol: Protocol, anchors: Sequence[Anchor]) -> Protocol:
    """The protocol with no more rounds than fit the time."""
    round_s = sum(anchor.then_ms for anchor in anchors) * (protocol.repeats + protocol.warmup) / 1000
    rounds = int(np.clip(_SECONDS / max(round_s, 1e-9), 3, protocol.rounds))
    return replace(protocol, rounds=rounds, max_rounds=rounds)
