"""What a device is, and how a compiled network is run and timed on it."""

from hwnas.devices.device import Device, DeviceError, Fingerprint
from hwnas.devices.host import probe_host
from hwnas.devices.measurement import Measurement, Protocol
from hwnas.devices.runners import RunFailure, Runner, noise_floor, open_runner, runner_names

__all__ = [
    "Device",
    "DeviceError",
    "Fingerprint",
    "Measurement",
    "Protocol",
    "RunFailure",
    "Runner",
    "noise_floor",
    "open_runner",
    "probe_host",
    "runner_names",
]
