"""A compiler and a device that take no time, so that tests of tables and builders are about tables and builders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hwnas.devices import Device, Fingerprint, Measurement, Protocol, RunFailure
from hwnas.devices.compile import Artefact, CompileFailure, CompileJob
from hwnas.devices.runners import FloatArray

DEVICE = Device("toy", "{}")
PROTOCOL = Protocol(rounds=2, repeats=2)
FINGERPRINT = Fingerprint(
    soc="toy", cores=1, isa=(), os="none", runtime="tvm 1", compiler="toy 1", target="{}", threads=1
)
MEASURED_AT = "2026-01-01T00:00:00+00:00"


@dataclass
class ToyCompiler:
    """Compiles in reverse order, as processes may finish; jobs whose label holds a word of `refuses` fail."""

    refuses: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)

    def compile(self, jobs: Sequence[CompileJob]) -> Iterator[tuple[int, Artefact | CompileFailure]]:
        for index, job in reversed(list(enumerate(jobs))):
            self.asked.append(job.label)
            if any(word in job.label for word in self.refuses):
                yield index, CompileFailure(f"cannot compile {job.label}")
            else:
                shape = "-".join(map(str, job.inputs[0]))
                yield index, Artefact(Path(f"{shape}.so"), shape, 1.5, cached=False)

    def library(self, key: str) -> Path | None:
        return Path(f"{key}.so")


@dataclass
class ToyRunner:
    """The second number of an artefact's name is its latency in ms; artefacts named in `refuses` do not run."""

    refuses: tuple[str, ...] = ()
    state: Fingerprint = FINGERPRINT
    batches: list[int] = field(default_factory=list)
    shares_host: bool = True
    speed: float = 1.0

    def fingerprint(self) -> Fingerprint:
        return self.state

    def run(self, artefact: Path, inputs: Sequence[FloatArray]) -> FloatArray:
        raise RunFailure("a toy has no outputs")

    def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
        self.batches.append(len(artefacts))
        return [self._time(artefact, protocol) for artefact in artefacts]

    def close(self) -> None: ...

    def _time(self, artefact: Path, protocol: Protocol) -> Measurement | RunFailure:
        if artefact.stem in self.refuses:
            return RunFailure(f"{artefact.name} hangs")
        ms = self.speed * float(artefact.stem.split("-")[1])
        return Measurement((ms,) * protocol.runs, protocol, MEASURED_AT)
