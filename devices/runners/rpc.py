"""Runs and times artefacts on a board behind TVM's RPC, through a process that may hang or crash alone.

A device's address is `tracker://HOST:PORT/KEY`, one of the boards that a tracker lends under a key, or
`rpc://HOST:PORT` (`/KEY` where the server has one), a board that is asked directly.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.devices.device import BoardLostError, Device, DeviceError, Fingerprint
from hwnas.devices.host import fingerprint_of
from hwnas.devices.measurement import Measurement, Protocol
from hwnas.devices.rounds import Answers
from hwnas.devices.runners import FloatArray, RunFailure
from hwnas.devices.runners._process import ProcessRunner, _Death, _Hang, _TimingProcess
from hwnas.devices.tracker import tracker_summary

_START_S = 120.0  # the timing process starts in a second on a quiet machine
_FACTS_S = 30.0


@dataclass(frozen=True, slots=True)
class Address:
    """How a board is reached: through a tracker or directly, and under which key."""

    host: str
    port: int
    key: str
    tracked: bool


_FORM = re.compile(r"(?P<way>tracker|rpc)://(?P<host>\[[0-9a-fA-F:]+\]|[^/:\s\[\]]+):(?P<port>\d{1,5})(/(?P<key>\S*))?")


def parse_address(text: str) -> Address:
    """The address that `text` says. Raises DeviceError for another form."""
    found = _FORM.fullmatch(text)
    if found is None or (found["way"] == "tracker" and not found["key"]) or not 0 < int(found["port"]) < 1 << 16:
        raise DeviceError(f"{text!r} is no address of a board: write tracker://HOST:PORT/KEY or rpc://HOST:PORT")
    return Address(found["host"].strip("[]"), int(found["port"]), found["key"] or "", found["way"] == "tracker")


class RpcRunner(ProcessRunner):
    """A session on a board, held from the first call until `close`.

    A visit (one `time`) never mixes two boards: where the one that it began on does not come back after a hang or a
    crash it raises BoardLostError, and what was under way has to be done again.
    """

    shares_host = False

    def __init__(
        self,
        device: Device,
        *,
        compiler: str = "unknown",
        wait_s: float = 60.0,
        return_s: float = 15.0,
        session_s: float = 300.0,
        run_timeout_s: float = 60.0,
    ) -> None:
        """`wait_s` is how long to wait for a free board, `return_s` for the same one after a hang or a crash.

        The board ends a session after `session_s` whatever happens: so long a kernel that hangs occupies a board whose
        server is not hwnas's own. Nothing is asked before the first call.
        """
        if device.runtime != "tvm":
            raise DeviceError(
                f"device {device.name!r} names the runtime {device.runtime!r}, and over RPC only tvm runs: "
                "take it out of the device, or run the program on the board itself with the local runner"
            )
        address = parse_address(device.address)
        place = [address.host, address.port]
        self._request: dict[str, Any] = {
            "tracker": place if address.tracked else None,
            "server": None if address.tracked else place,
            "key": address.key,
            "target": device.target,
            "threads": device.threads,
            "wait_s": wait_s,
            "session_s": session_s,
            "again": "",
        }
        super().__init__(
            device,
            Path(__file__).with_name("_rpc.py"),
            self._request,
            environment={"TVM_USE_RUNTIME_LIB": "1"},
            run_timeout_s=run_timeout_s,
            start_s=_START_S + wait_s,
        )
        self._compiler = compiler
        self._wait_s, self._return_s = wait_s, return_s
        self._session_s = session_s
        self._facts: dict[str, Any] = {}
        self._opened_at = 0.0
        self._visiting = False

    def open(self) -> None:
        """Take a board. Raises DeviceError: one of its five kinds, each with its cure."""
        self._started()

    def fingerprint(self) -> Fingerprint:
        """What the board says of itself, its state now, and the priority and core that the last timing was granted."""
        self._renew(_FACTS_S)
        niceness, cores = self._granted
        facts = self.facts()
        return fingerprint_of(
            facts, self._device, compiler=self._compiler, niceness=niceness, pinned_to=cores, board=facts["place"]
        )

    def run(self, artefact: Path, inputs: Sequence[FloatArray]) -> FloatArray:
        """The artefact's first output for `inputs`. Raises RunFailure, or DeviceError where the board is gone."""
        self._renew(self._run_timeout_s)
        try:
            return super().run(artefact, inputs)
        except RunFailure:
            self.open()  # a board that is gone is no fault of the artefact
            raise

    def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
        """Runs of each artefact in ms, round after round, all on one board. Raises DeviceError where it is gone."""
        self._renew(2 * self._session_s / 3)
        self.open()
        self._visiting = True
        try:
            return super().time(artefacts, protocol)
        finally:
            self._visiting = False

    def _time_round(self, order: Sequence[int], artefacts: Sequence[Path], protocol: Protocol) -> Answers:
        answers = super()._time_round(order, artefacts, protocol)
        if any(isinstance(answer, RunFailure) for answer in answers.values()):
            self.open()  # raises where the board is gone: what failed there may be none of the artefact's fault
        return answers

    def _renew(self, needed_s: float) -> None:
        """End a session that the board may end within the next `needed_s`; the next call begins another."""
        if time.monotonic() > self._opened_at + self._session_s - needed_s:
            self.close()

    def _started(self) -> _TimingProcess:
        if self._process is not None and self._process.alive():
            return self._process
        self._request["again"] = self._facts["place"] if self._visiting else ""
        self._request["wait_s"] = self._return_s if self._visiting else self._wait_s
        process = super()._started()
        try:
            process.send("facts")
            self._facts = self._value(process.receive(_FACTS_S), None)
        except (_Hang, _Death, RunFailure) as error:
            self.close()
            raise BoardLostError(f"device {self._device.name!r} was reached and is gone again: {error}") from None
        self._opened_at = time.monotonic()
        return process


def open_device(device: Device, *, compiler: str) -> RpcRunner:
    """A session on a free board. Raises DeviceError: see `RpcRunner.open`."""
    runner = RpcRunner(device, compiler=compiler)
    runner.open()
    return runner


def boards(device: Device) -> int:
    """How many boards, free and busy, the device's tracker shows under its key; 1 for one that is asked directly.

    Raises NoTrackerError, and DeviceError for an address of another form.
    """
    address = parse_address(device.address)
    if not address.tracked:
        return 1
    found = tracker_summary(address.host, address.port).get(address.key)
    return len(found.places) if found else 0
