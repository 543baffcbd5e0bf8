"""Answers from recorded runs: a device for tests and for looking at a board's results without the board.

The device's address is a JSON file, {"fingerprint": {...}, "runs_ms": {artefact's stem: [...]}}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwnas.devices.device import Device, DeviceError, Fingerprint
from hwnas.devices.measurement import Measurement, Protocol
from hwnas.devices.runners import FloatArray, RunFailure


class RecordedRunner:
    """A device that repeats what was measured once; nothing is loaded and nothing is timed."""

    def __init__(self, fingerprint: Fingerprint, runs_ms: Mapping[str, Sequence[float]], *, recorded_at: str) -> None:
        self._fingerprint = fingerprint
        self._runs_ms = runs_ms
        self._recorded_at = recorded_at

    def fingerprint(self) -> Fingerprint:
        """What the device was when the runs were recorded."""
        return self._fingerprint

    def run(self, artefact: Path, inputs: Sequence[FloatArray]) -> FloatArray:  # noqa: ARG002
        """Always raises RunFailure: times were recorded, outputs were not."""
        raise RunFailure(f"{artefact.name}: a recorded device holds times alone, run it on the device itself")

    def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
        """The recorded runs of each artefact, whatever number of runs the protocol asks for."""
        return [self._recorded(artefact, protocol) for artefact in artefacts]

    def close(self) -> None:
        """Nothing is held."""

    def _recorded(self, artefact: Path, protocol: Protocol) -> Measurement | RunFailure:
        runs_ms = self._runs_ms.get(artefact.stem)
        if not runs_ms:
            return RunFailure(f"{artefact.name}: no runs were recorded for it ({len(self._runs_ms)} artefacts were)")
        return Measurement(tuple(runs_ms), protocol, self._recorded_at)


def save_recording(
    path: Path, fingerprint: Fingerprint, measurements: Mapping[str, Measurement], *, recorded_at: str
) -> None:
    """Write what `open_device` reads; `measurements` is keyed by the artefacts' stems."""
    runs_ms = {stem: list(measurement.runs_ms) for stem, measurement in sorted(measurements.items())}
    content = {"fingerprint": fingerprint.to_json(), "recorded_at": recorded_at, "runs_ms": runs_ms}
    path.write_text(json.dumps(content))


def open_device(device: Device, *, compiler: str) -> RecordedRunner:  # noqa: ARG001  # the recording names its own
    """The recording at the device's address. Raises DeviceError where there is none."""
    try:
        content = json.loads(Path(device.address).read_text())
        fingerprint = Fingerprint.from_json(content["fingerprint"])
        return RecordedRunner(fingerprint, content["runs_ms"], recorded_at=content["recorded_at"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeviceError(
            f"device {device.name!r} has no recording at {device.address!r} ({type(error).__name__}: {error}): "
            "write one with hwnas.devices.runners.recorded.save_recording"
        ) from None
