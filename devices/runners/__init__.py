"""The runner role: one file a transport, found by its name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol as Role

import numpy as np
from numpy.typing import NDArray

from hwnas.devices.device import Device, DeviceError, Fingerprint
from hwnas.devices.measurement import Measurement, Protocol
from hwnas.devices.plugins import load_plugin, plugin_names
from hwnas.devices.runfailure import KernelHung, RunFailure

FloatArray = NDArray[np.floating]


__all__ = [
    "FloatArray",
    "KernelHung",
    "RunFailure",
    "Runner",
    "board_count",
    "noise_floor",
    "open_runner",
    "runner_names",
]


class Runner(Role):
    """An open device. `close` releases it; every call is bounded in time.

    A class attribute `shares_host = True` says that compiling on this machine disturbs it. A runner whose calls take
    long has a method `interrupt()`, which ends a call that another thread waits for.

    A file of this folder is a runner where it has `open_device(device: Device, *, compiler: str) -> Runner`;
    another package names such a function under the entry-point group "hwnas.devices.runners". A file that also has
    `boards(device: Device) -> int` says how many equal boards stand behind one device.
    `compiler` is the versions of what makes the artefacts, which the fingerprint repeats.
    """

    def fingerprint(self) -> Fingerprint:
        """What the device is and the state it is in now."""
        ...

    def run(self, artefact: Path, inputs: Sequence[FloatArray]) -> FloatArray:
        """The artefact's first output for `inputs`. Raises RunFailure."""
        ...

    def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
        """Runs of each artefact, interleaved, round after round; one that fails does not stop the others."""
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


def runner_names() -> tuple[str, ...]:
    """Every runner found, sorted."""
    return plugin_names(sys.modules[__name__])


def open_runner(device: Device, *, compiler: str = "unknown") -> Runner:
    """Open `device` by the runner it names. Raises DeviceError for an unknown runner or a device out of reach."""
    try:
        found = load_plugin(sys.modules[__name__], device.runner)
    except LookupError as unknown:
        raise DeviceError(f"device {device.name!r} asks for a runner that is not here: {unknown}") from None
    open_device = getattr(found, "open_device", found)
    runner: Runner = open_device(device, compiler=compiler)
    return runner


def board_count(device: Device) -> int:
    """How many equal boards answer for `device`: what its runner's `boards(device) -> int` says, or else one."""
    boards = getattr(load_plugin(sys.modules[__name__], device.runner), "boards", None)
    return int(boards(device)) if boards is not None else 1


def noise_floor(runner: Runner, artefact: Path, protocol: Protocol, *, repetitions: int = 5) -> float:
    """Half the spread between `repetitions` medians of one artefact, relative to their middle.

    Two blocks whose medians lie closer than this are not told apart. Raises RunFailure where the artefact does not run.
    """
    medians = []
    for _ in range(repetitions):
        (timed,) = runner.time([artefact], protocol)
        if isinstance(timed, RunFailure):
            raise timed
        medians.append(timed.latency_ms)
    return (max(medians) - min(medians)) / 2 / float(np.median(medians))
