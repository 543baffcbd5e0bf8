"""Runs and times artefacts on this machine, in a process of their own that may hang or crash alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

from hwnas.devices.device import Device, DeviceError, Fingerprint
from hwnas.devices.energy import Counter, energy_per_call_mj, rapl_counter
from hwnas.devices.host import read_fingerprint
from hwnas.devices.measurement import Measurement, Protocol
from hwnas.devices.runfailure import RunFailure
from hwnas.devices.runners._process import ProcessRunner
from hwnas.devices.runtimes import find_runtime

_ENERGY_S = 0.3  # of one artefact alone: counters move about every millisecond


class LocalRunner(ProcessRunner):
    """The host CPU as an open device."""

    shares_host = True

    def __init__(
        self,
        device: Device,
        *,
        compiler: str = "unknown",
        run_timeout_s: float = 60.0,
        counter: Counter | None = None,
    ) -> None:
        """`counter` counts the energy of this machine; without one a measurement has none."""
        runtime = find_runtime(device.runtime)
        runtime.version()  # raises where it is not installed
        file = str(runtime.__file__)  # type: ignore[attr-defined]  # a runtime is a module
        threads = str(device.threads)
        super().__init__(
            device,
            Path(__file__).with_name("_here.py"),
            {"runtime": file, "threads": device.threads},
            environment={"TVM_USE_RUNTIME_LIB": "1", "TVM_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            run_timeout_s=run_timeout_s,
        )
        self._compiler = compiler
        self._counter = counter

    def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
        """Runs of each artefact in ms, round after round; then, where there is a counter, energy of one at a time."""
        timed = super().time(artefacts, protocol)
        if self._counter is None:
            return timed
        return [
            replace(result, energy_mj=self._energy_mj(self._counter, path, result, protocol))
            if isinstance(result, Measurement)
            else result
            for path, result in zip(artefacts, timed, strict=True)
        ]

    def _energy_mj(self, counter: Counter, artefact: Path, measured: Measurement, protocol: Protocol) -> float | None:
        calls = ceil(_ENERGY_S * 1000 / measured.latency_ms)
        longer = replace(protocol, repeats=calls, timeout_s=protocol.timeout_s + 10 * _ENERGY_S)
        self._time_round([0], [artefact], replace(protocol, repeats=1))  # loads it
        try:
            return energy_per_call_mj(
                counter, lambda: len(self._time_round([0], [artefact], longer)) * (calls + protocol.warmup)
            )
        except OSError:  # the counter has gone: a latency without its energy is still a latency
            return None
        finally:
            self._release()

    def fingerprint(self) -> Fingerprint:
        """What this machine is, its state now, and the priority and core that the last timing was granted."""
        niceness, cores = self._granted
        return read_fingerprint(self._device, compiler=self._compiler, niceness=niceness, pinned_to=cores)


def open_device(device: Device, *, compiler: str) -> LocalRunner:
    """The host as a runner. Raises DeviceError for a device that has an address: it is somewhere else."""
    if device.address:
        raise DeviceError(
            f"device {device.name!r} has the address {device.address!r}, and the local runner opens only this machine: "
            "remove the address or name the runner that reaches it"
        )
    try:
        return LocalRunner(device, compiler=compiler, counter=rapl_counter())
    except ImportError as missing:
        raise DeviceError(f"device {device.name!r} cannot run {device.runtime!r}: {missing}") from None
