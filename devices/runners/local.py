"""Runs and times artefacts on this machine, in a process of their own that may hang or crash alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.devices.device import Device, DeviceError, Fingerprint
from hwnas.devices.drift import note_drift
from hwnas.devices.host import read_fingerprint
from hwnas.devices.measurement import Measurement, Protocol
from hwnas.devices.runners import FloatArray, RunFailure

_SCRIPT = Path(__file__).with_name("_timing.py")
_START_S = 120.0  # the process starts in 0.7 s on a quiet machine


class _Hang(Exception):  # noqa: N818
    """The process did not answer in time."""


class _Death(Exception):  # noqa: N818
    """The process ended; says how."""


class _TimingProcess:
    """The process of `_timing.py` and the pipe to it."""

    def __init__(self, threads: int) -> None:
        one_runtime = {"TVM_USE_RUNTIME_LIB": "1", "TVM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `kill`
        self._link, other = Pipe()
        with other:
            self._process = subprocess.Popen(
                # -P: the folder of runners must not shadow installed modules
                [sys.executable, "-P", str(_SCRIPT), str(os.getpid()), str(other.fileno())],
                env={**os.environ, **one_runtime},
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
            )
        try:
            self.receive(_START_S)
        except (_Hang, _Death) as error:
            self.kill()
            raise DeviceError(
                f"the timing process did not start ({error}): check that `{sys.executable} -c 'import tvm'` works"
            ) from None

    def send(self, *request: Any) -> None:
        try:
            self._link.send(request)
        except OSError:
            raise _Death(self._epitaph()) from None

    def receive(self, timeout_s: float) -> Any:
        """The next answer. Raises _Hang or _Death."""
        try:
            if not self._link.poll(timeout_s):
                raise _Hang(f"no answer within {timeout_s:g} s")
            return self._link.recv()
        except (EOFError, OSError):
            raise _Death(self._epitaph()) from None

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._link.close()
        self._said.close()

    def _epitaph(self) -> str:
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "its pipe closed"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self._said.seek(0)
        last = self._said.read().decode(errors="replace").strip().splitlines()[-1:]
        return " ".join([f"the process ended by {how}", *(f"after saying {line!r}" for line in last)])


class LocalRunner:
    """The host CPU as an open device.

    One process stays up over all calls; where an artefact hangs or crashes it, that artefact has failed,
    a fresh process takes over and what was timed before is kept. It dies with this one, even on SIGKILL.
    """

    def __init__(
        self,
        device: Device,
        *,
        compiler: str = "unknown",
        run_timeout_s: float = 60.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._device = device
        self._compiler = compiler
        self._run_timeout_s = run_timeout_s
        self._clock = clock
        self._process: _TimingProcess | None = None
        self._granted: tuple[int | None, tuple[int, ...]] = (None, ())

    def fingerprint(self) -> Fingerprint:
        """What this machine is, its state now, and the priority and core that the last timing was granted."""
        niceness, cores = self._granted
        return read_fingerprint(self._device, compiler=self._compiler, niceness=niceness, pinned_to=cores)

    def run(self, artefact: Path, inputs: Sequence[FloatArray]) -> FloatArray:
        """The artefact's first output for `inputs`. Raises RunFailure."""
        try:
            process = self._started()
            process.send("run", str(artefact), [np.asarray(array) for array in inputs])
            ran, value = process.receive(self._run_timeout_s)
        except (_Hang, _Death) as error:
            self.close()
            raise RunFailure(f"{artefact.name}: {error}") from None
        if not ran:
            raise RunFailure(f"{artefact.name}: {value}")
        output: FloatArray = value
        return output

    def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
        """Runs of each artefact in ms, round after round. Raises DeviceError where no process can be started.

        Libraries are unloaded before it returns, so that memory does not grow with the batches.
        """
        if protocol.threads != self._device.threads:
            raise ValueError(
                f"the protocol asks for {protocol.threads} threads and device {self._device.name!r} runs "
                f"{self._device.threads}: make the two equal"
            )
        rng = np.random.default_rng(protocol.seed)
        runs_ms: list[list[float]] = [[] for _ in artefacts]
        failures: dict[int, RunFailure] = {}
        for _ in range(protocol.rounds):
            order = [int(i) for i in rng.permutation(len(artefacts)) if i not in failures]
            self._time_round(order, artefacts, protocol, runs_ms, failures)
        self._release()
        now = self._clock().isoformat(timespec="seconds")
        ran = [i for i in range(len(artefacts)) if i not in failures]
        measured = dict(zip(ran, note_drift([Measurement(tuple(runs_ms[i]), protocol, now) for i in ran]), strict=True))
        return [failures[i] if i in failures else measured[i] for i in range(len(artefacts))]

    def close(self) -> None:
        """End the timing process; the next call would start another."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def _time_round(
        self,
        order: Sequence[int],
        artefacts: Sequence[Path],
        protocol: Protocol,
        runs_ms: list[list[float]],
        failures: dict[int, RunFailure],
    ) -> None:
        waiting = deque(order)
        suspects: set[int] = set()
        while waiting:
            try:
                process = self._settled(protocol)
                process.send("time", [str(artefacts[i]) for i in waiting], protocol.warmup, protocol.repeats)
                while waiting:
                    ran, value = process.receive(protocol.timeout_s)
                    index = waiting.popleft()
                    if ran:
                        runs_ms[index].extend(value)
                    else:
                        failures[index] = RunFailure(f"{artefacts[index].name}: {value}")
            except (_Hang, _Death) as error:
                self.close()
                first = waiting[0]
                # memory that one artefact spoils may crash the next: a crash counts when it comes in a fresh process
                if isinstance(error, _Hang) or first in suspects:
                    failures[waiting.popleft()] = RunFailure(f"{artefacts[first].name}: {error}")
                suspects.add(first)

    def _started(self) -> _TimingProcess:
        if self._process is not None and not self._process.alive():
            self.close()
        if self._process is None:
            self._process = _TimingProcess(self._device.threads)
        return self._process

    def _settled(self, protocol: Protocol) -> _TimingProcess:
        process = self._started()
        process.send("settle", protocol.pinned, protocol.niceness)
        self._granted = process.receive(protocol.timeout_s)
        return process

    def _release(self) -> None:
        if self._process is None:
            return
        try:
            self._process.send("release")
            self._process.receive(self._run_timeout_s)
        except (_Hang, _Death):
            self.close()


def open_device(device: Device, *, compiler: str) -> LocalRunner:
    """The host as a runner. Raises DeviceError for a device that has an address: it is somewhere else."""
    if device.address:
        raise DeviceError(
            f"device {device.name!r} has the address {device.address!r}, and the local runner opens only this machine: "
            "remove the address or name the runner that reaches it"
        )
    return LocalRunner(device, compiler=compiler)
