"""Is the device still what it was when its table was measured? A few of the table's artefacts, timed again, tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from hwnas.devices import Measurement, Protocol, Runner
from hwnas.latency.rows import DriftCheck, now
from hwnas.latency.table import LatencyTable
from hwnas.latency.visits import Anchor, find_anchors

SENTINELS = 12
_SECONDS = 100.0  # of runs, so that a check stays below two minutes with its start and its warm-up
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

    @property
    def moved(self) -> bool:
        """Whether the device has changed by more than it does by itself."""
        return self.check.verdict == "moved"


def check_drift(
    table: LatencyTable, runner: Runner, library: Callable[[str], Path | None], protocol: Protocol
) -> Drift:
    """Time up to `SENTINELS` of the table's first visit again, interleaved, in less than two minutes.

    Moved: the 95 % interval of the common factor lies outside what is allowed, or the sentinels moved apart by more
    than that. Raises DeviceError for another device than the table's, DriftError where too few artefacts are left.
    """
    fingerprint = runner.fingerprint()
    table.check_same_device(fingerprint, protocol)
    anchors = find_anchors(table, library, SENTINELS)
    if len(anchors) < _FEWEST:
        raise DriftError(
            f"{len(anchors)} of the first artefacts of {table.device.name!r} are still in the cache, a check needs "
            f"{_FEWEST}: give the cache folder that its table was built with, or build a new table"
        )
    answers = runner.time([anchor.path for anchor in anchors], _short(protocol, anchors))
    pairs = [(a, m) for a, m in zip(anchors, answers, strict=True) if isinstance(m, Measurement)]
    if len(pairs) < _FEWEST:
        raise DriftError(f"{len(pairs)} of {len(anchors)} sentinels ran on {table.device.name!r}: {answers[0]}")
    scale = table.scale
    ratios = {anchor.key: measured.latency_ms / (scale * anchor.then_ms) for anchor, measured in pairs}
    speed, low, high = common_factor(np.array(list(ratios.values())))
    allowed = swing(table)
    apart = float(np.median(np.abs(np.log(list(ratios.values())) - np.log(speed)))) > np.log1p(allowed)
    moved = apart or low > 1 + allowed or high < 1 / (1 + allowed)
    check = DriftCheck(
        created_at=now(),
        fingerprint=fingerprint,
        # the table keeps factors relative to its first visit, whatever it was rescaled by since
        speed=speed * scale,
        low=low * scale,
        high=high * scale,
        sentinels=len(pairs),
        verdict="moved" if moved else "unchanged",
        accepted=False,
    )
    return Drift(check, allowed, ratios, common=not apart)


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
