"""Runs and times artefacts on this machine, in a process of their own that may hang or crash alone."""

from __future__ import annotations

from pathlib import Path

from hwnas.devices.device import Device, DeviceError, Fingerprint
from hwnas.devices.host import read_fingerprint
from hwnas.devices.runners._process import ProcessRunner
from hwnas.devices.runtimes import find_runtime


class LocalRunner(ProcessRunner):
    """The host CPU as an open device."""

    shares_host = True

    def __init__(self, device: Device, *, compiler: str = "unknown", run_timeout_s: float = 60.0) -> None:
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
        return LocalRunner(device, compiler=compiler)
    except ImportError as missing:
        raise DeviceError(f"device {device.name!r} cannot run {device.runtime!r}: {missing}") from None
