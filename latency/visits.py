"""One visit to a device: a batch timed together with anchors of earlier visits, and committed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hwnas.devices import Fingerprint, Measurement, Protocol, Runner
from hwnas.devices.compile import Artefact
from hwnas.latency.table import LatencyTable
from hwnas.latency.work import Made, Row

# So many artefacts of the first visit are timed again in every later one: their median ratio is the device's speed.
ANCHORS = 3
# So many first failures in a row tell of the tools, not of the blocks.
_HOPELESS = 4


class BuildError(RuntimeError):
    """A build in which nothing compiles or runs: its failures are not worth keeping."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Something that was timed in the table's first visit."""

    key: str
    path: Path
    then_ms: float


@dataclass(frozen=True, slots=True)
class Visited:
    """What a visit gave."""

    rows: tuple[Row, ...]
    added: int
    failed: int
    speed: float | None  # of the device, relative to the first visit: above 1 is slower; None where it is not known


@dataclass(slots=True)
class Visitor:
    """Takes batches to devices and commits what they answer. Safe to share between threads, one a device."""

    table: LatencyTable
    library: Callable[[str], Path | None]  # key of an artefact -> its file, where there still is one
    protocol: Protocol
    _anchors: list[Anchor] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arrive(self, runner: Runner) -> Fingerprint:
        """The state of the device now. Raises DeviceError where it is not there, or is another than the table's."""
        state = runner.fingerprint()
        self.table.check_same_device(state, self.protocol)  # a farm may hand out another board than before
        return state

    def visit(self, runner: Runner, batch: Sequence[Made], before: Fingerprint) -> Visited:
        """Time what compiled of `batch`; all of it becomes rows. `before` is what `arrive` found.

        Raises DeviceError where the device is lost (nothing is kept then), BuildError where nothing works.
        """
        anchors = self.anchors()
        artefacts = [made.result.path for made in batch if isinstance(made.result, Artefact)]
        answers = runner.time([*artefacts, *(anchor.path for anchor in anchors)], self.protocol) if artefacts else []
        after = runner.fingerprint() if artefacts else None
        timed = iter(answers[: len(artefacts)])
        rows = tuple(made.row(next(timed) if isinstance(made.result, Artefact) else None) for made in batch)
        again = [
            (anchor, answer)
            for anchor, answer in zip(anchors, answers[len(artefacts) :], strict=bool(artefacts))
            if isinstance(answer, Measurement)
        ]
        speed = float(np.median([now.latency_ms / anchor.then_ms for anchor, now in again])) if again else None
        errors = [row.evidence.result for row in rows if isinstance(row.evidence.result, str)]
        with self._lock:
            if len(errors) == len(rows) >= _HOPELESS and not self.table.latencies_ms():
                raise BuildError(
                    f"all of the first {len(rows)} failed, nothing was kept; the first {errors[0]}: check the compiler "
                    f"and the device {self.table.device.name!r} with one block before the next build"
                )
            added = self.table.add(
                rows,
                fingerprint=before,
                protocol=self.protocol,
                after=after,
                speed=speed,
                anchors=[(anchor.key, now) for anchor, now in again],
            )
        return Visited(rows, added, len(errors), speed)

    def anchors(self) -> list[Anchor]:
        """Up to `ANCHORS` of the first visit, of small, middling and large latency; none before that visit."""
        with self._lock:
            if not self._anchors:
                self._anchors = find_anchors(self.table, self.library)
            return self._anchors


def find_anchors(table: LatencyTable, library: Callable[[str], Path | None], count: int = ANCHORS) -> list[Anchor]:
    """`count` artefacts of the table's first visit that still have their file, spread over its latencies."""
    found = []
    for row in table.first_visit_rows():
        result, artefact = row.evidence.result, row.evidence.artefact
        path = library(artefact) if artefact is not None else None
        if isinstance(result, Measurement) and path is not None:
            found.append(Anchor(row.key, path, result.latency_ms))
    found.sort(key=lambda anchor: anchor.then_ms)
    places = np.unique(np.linspace(0, len(found) - 1, min(count, len(found)) + 2).round().astype(int)[1:-1])
    return [found[i] for i in places] if len(found) > count else found
