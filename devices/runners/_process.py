"""Runs and times artefacts through a process of their own, which may hang or crash alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.devices.device import LOST, Device, DeviceError
from hwnas.devices.measurement import Measurement, Protocol
from hwnas.devices.rounds import Answers, time_in_rounds
from hwnas.devices.runners import FloatArray, KernelHung, RunFailure

_SCRIPT = Path(__file__).with_name("_timing.py")
_START_S = 120.0  # the process starts in 0.7 s on a quiet machine


class _Hang(Exception):  # noqa: N818
    """The process did not answer in time."""


class _Death(Exception):  # noqa: N818
    """The process ended; says how."""


class _TimingProcess:
    """The process of `_timing.py` and the pipe to it."""

    def __init__(self, bench: Path, arguments: Mapping[str, Any], environment: Mapping[str, str], start_s: float):
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `kill`
        self._link, other = Pipe()
        numbers = [str(os.getpid()), str(other.fileno())]
        with other:
            self._process = subprocess.Popen(
                # -P: the folder of runners must not shadow installed modules
                [sys.executable, "-P", str(_SCRIPT), *numbers, str(bench), json.dumps(arguments)],
                env={**os.environ, **environment},
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
            )
        try:
            kind, value = self.receive(start_s)
        except (_Hang, _Death) as error:
            self.kill()
            raise DeviceError(
                f"the timing process did not start ({error}): check that `{sys.executable} -c 'import tvm'` works"
            ) from None
        if kind != "ok":
            self.kill()
            raise LOST.get(kind, DeviceError)(value)

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

    def end(self) -> None:
        """Kill it; who waits for it hears of its death."""
        self._process.kill()

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


class ProcessRunner:
    """An open device behind a process.

    One process stays up over all calls; where an artefact hangs or crashes it, that artefact has failed,
    a fresh process takes over and what was timed before is kept. It dies with this one, even on SIGKILL.
    """

    def __init__(
        self,
        device: Device,
        bench: Path,
        arguments: Mapping[str, Any],
        *,
        environment: Mapping[str, str],
        run_timeout_s: float = 60.0,
        start_s: float = _START_S,
    ) -> None:
        """`bench` is the file that says where artefacts run, `arguments` (JSON) is what it is told."""
        self._device = device
        self._bench = bench
        self._arguments = arguments
        self._environment = environment
        self._run_timeout_s = run_timeout_s
        self._start_s = start_s
        self._process: _TimingProcess | None = None
        self._granted: tuple[int | None, tuple[int, ...]] = (None, ())
        self._interrupted = False
        self._hung: list[str] = []  # files of what did not answer in time in the visit under way

    def run(self, artefact: Path, inputs: Sequence[FloatArray]) -> FloatArray:
        """The artefact's first output for `inputs`. Raises RunFailure, or DeviceError where the device is gone."""
        try:
            process = self._started()
            process.send("run", str(artefact), [np.asarray(array) for array in inputs])
            output: FloatArray = self._value(process.receive(self._run_timeout_s), artefact)
        except _Hang as error:
            self.close()
            raise KernelHung(f"{artefact.name}: {error}") from None
        except _Death as error:
            self.close()
            raise RunFailure(f"{artefact.name}: {error}") from None
        return output

    def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
        """Runs of each artefact in ms, round after round. Raises DeviceError where the device is gone.

        Libraries are unloaded before it returns, so that memory does not grow with the batches.
        """
        if protocol.threads != self._device.threads:
            raise ValueError(
                f"the protocol asks for {protocol.threads} threads and device {self._device.name!r} runs "
                f"{self._device.threads}: make the two equal"
            )
        self._hung.clear()
        self._interrupted = False  # an earlier call was meant
        try:
            timed = time_in_rounds(
                len(artefacts), protocol, lambda order: self._time_round(order, artefacts, protocol), self._now()
            )
        except DeviceError as lost:
            lost.suspects = tuple(self._hung)
            raise
        self._release()
        return timed

    def facts(self) -> dict[str, Any]:
        """What the other end says of itself. Raises DeviceError."""
        try:
            process = self._started()
            process.send("facts")
            facts: dict[str, Any] = self._value(process.receive(self._run_timeout_s), None)
        except (_Hang, _Death) as error:
            self.close()
            raise DeviceError(f"device {self._device.name!r} does not answer: {error}") from None
        return facts

    def interrupt(self) -> None:
        """End a call that another thread waits for: it raises DeviceError there."""
        self._interrupted = True
        process = self._process
        if process is not None:
            process.end()

    def close(self) -> None:
        """End the timing process; the next call would start another."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def _now(self) -> str:
        return datetime.now(UTC).isoformat(timespec="seconds")

    def _value(self, answer: tuple[str, Any], artefact: Path | None) -> Any:
        kind, value = answer
        if kind == "ok":
            return value
        if kind in LOST:
            self.close()
            raise LOST[kind](value)
        raise RunFailure(f"{artefact.name}: {value}" if artefact else value)

    def _time_round(self, order: Sequence[int], artefacts: Sequence[Path], protocol: Protocol) -> Answers:
        answers: Answers = {}
        waiting = deque(order)
        suspects: set[int] = set()
        numbers = (protocol.warmup, protocol.repeats, protocol.flush_mib)
        while waiting:
            try:
                process = self._settled(protocol)
                process.send("time", [str(artefacts[i]) for i in waiting], *numbers)
                while waiting:
                    answer = process.receive(protocol.timeout_s)
                    try:
                        answers[waiting[0]] = self._value(answer, artefacts[waiting[0]])
                    except RunFailure as failure:
                        answers[waiting[0]] = failure
                    waiting.popleft()
            except (_Hang, _Death) as error:
                self.close()
                if self._interrupted:
                    self._interrupted = False
                    raise DeviceError(f"the visit to {self._device.name!r} was interrupted") from None
                first = waiting[0]
                # memory that one artefact spoils may crash the next: a crash counts when it comes in a fresh process
                if isinstance(error, _Hang) or first in suspects:
                    kind = KernelHung if isinstance(error, _Hang) else RunFailure
                    if kind is KernelHung:
                        self._hung.append(artefacts[first].name)
                    answers[waiting.popleft()] = kind(f"{artefacts[first].name}: {error}")
                suspects.add(first)
        return answers

    def _started(self) -> _TimingProcess:
        if self._process is not None and not self._process.alive():
            self.close()
        if self._process is None:
            self._process = _TimingProcess(self._bench, self._arguments, self._environment, self._start_s)
        return self._process

    def _settled(self, protocol: Protocol) -> _TimingProcess:
        process = self._started()
        process.send("settle", protocol.pinned, protocol.niceness)
        self._granted = self._value(process.receive(protocol.timeout_s), None)
        return process

    def _release(self) -> None:
        if self._process is None:
            return
        try:
            self._process.send("release")
            self._process.receive(self._run_timeout_s)
        except (_Hang, _Death):
            self.close()
