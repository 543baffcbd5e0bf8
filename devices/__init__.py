"""What a device is, and how a compiled network is run and timed on it."""

from hwnas.devices.device import (
    BoardLostError,
    Device,
    DeviceError,
    Fingerprint,
    NoFreeBoardError,
    NoTrackerError,
    UnknownKeyError,
    WrongBoardError,
)
from hwnas.devices.host import probe_host
from hwnas.devices.measurement import Measurement, Protocol
from hwnas.devices.runners import KernelHung, RunFailure, Runner, noise_floor, open_runner, runner_names

__all__ = [
    "BoardLostError",
    "Device",
    "DeviceError",
    "Fingerprint",
    "KernelHung",
    "Measurement",
    "NoFreeBoardError",
    "NoTrackerError",
    "Protocol",
    "RunFailure",
    "Runner",
    "UnknownKeyError",
    "WrongBoardError",
    "noise_floor",
    "open_runner",
    "probe_host",
    "runner_names",
]
