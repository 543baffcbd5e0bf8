"""The runner role: one file a transport."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol as Role

from numpy.typing import NDArray

from hwnas.devices.device import Fingerprint
from hwnas.devices.measurement import Measurement, Protocol

FloatArray = NDArray


class RunFailure(RuntimeError):
    """An artefact that did not run on the device: a result that is kept, not a reason to stop."""


class Runner(Role):
    """An open device. `close` releases it; every call is bounded in time."""

    def fingerprint(self) -> Fingerprint:
        """What the device is and the state it is in now."""
        ...

    def run(self, artefact: Path, inputs: Sequence[FloatArray]) -> FloatArray:
        """The artefact's first output for `inputs`. Raises RunFailure."""
        ...

    def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
        """Runs of each artefact, interleaved; one that fails does not stop the others."""
        ...

    def close(self) -> None:
        """Give the device back."""
        ...
