"""What a device is, and what was found there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

DeviceKind = Literal["edge-cpu", "mobile-gpu", "accelerator"]


class DeviceError(RuntimeError):
    """A device cannot be reached, or is not the device that was asked for."""

    suspects: tuple[str, ...] = ()  # files of artefacts that had not answered in time when it was lost


class NoTrackerError(DeviceError):
    """Nothing, or no tracker, answers where the tracker should be."""


class UnknownKeyError(DeviceError):
    """The tracker knows no board under the key."""


class NoFreeBoardError(DeviceError):
    """Every board under the key is busy, and stayed so for as long as one may wait."""


class BoardLostError(DeviceError):
    """The server on the board died, or the way to it broke; what was under way there has to be done again."""


class WrongBoardError(DeviceError):
    """The board is there and is not what the device says: another architecture or another runtime."""


# Names by which a timing process tells its parent how a device was lost.
LOST: dict[str, type[DeviceError]] = {
    kind.__name__: kind for kind in (NoTrackerError, UnknownKeyError, NoFreeBoardError, BoardLostError, WrongBoardError)
}


@dataclass(frozen=True, slots=True)
class Device:
    """A place where networks run: what to compile for and how to reach it.

    `target` is a TVM target as JSON text (dictionaries are not hashable, and a target has nested ones);
    `runner` is the file name in `devices/runners` that opens it; `address` is for that runner alone;
    `runtime` is the file name in `devices/runtimes` of what executes the artefacts there.
    """

    name: str
    target: str
    kind: DeviceKind = "edge-cpu"
    runner: str = "local"
    address: str = ""
    threads: int = 1
    runtime: str = "tvm"  # file name in `devices/runtimes`

    def to_json(self) -> dict[str, Any]:
        """The device as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Device:
        """The device that `to_json` wrote."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What was found on a device when it was opened.

    The stable part (`identity`) decides whether two tables speak of the same device;
    the rest is the state that the device was in, kept as evidence.
    """

    soc: str
    cores: int
    isa: tuple[str, ...]  # instruction set extensions that matter to the compiler, sorted
    os: str
    runtime: str  # e.g. "tvm 0.27.0.post1"
    compiler: str  # versions of what turned a network into an artefact
    target: str
    threads: int
    governor: str = field(default="unknown")  # "unknown" where the system does not say
    clock_mhz: float | None = None
    load_1m: float | None = None
    niceness: int | None = None  # what the timing process was granted, whatever the protocol asked for
    pinned_to: tuple[int, ...] = ()  # cores that the timing process was held on; empty where it was free
    modelled: bool = False  # a formula answered, no device was measured
    board: str = ""  # which of several equal boards answered, e.g. its host and port

    @property
    def identity(self) -> str:
        """16 hex digits that change with the chip, the runtime, the compiler, the target and the threads."""
        stable = (self.soc, self.cores, self.isa, self.runtime, self.compiler, self.target, self.threads)
        return hashlib.sha256(json.dumps(stable).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """The fingerprint as plain JSON values, identity included."""
        lists: dict[str, Any] = {"isa": list(self.isa), "pinned_to": list(self.pinned_to)}
        return {**asdict(self), **lists, "identity": self.identity}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Fingerprint:
        """The fingerprint that `to_json` wrote."""
        values = {k: v for k, v in data.items() if k != "identity"}
        tuples: dict[str, Any] = {name: tuple(values[name]) for name in ("isa", "pinned_to") if name in values}
        return cls(**{**values, **tuples})
