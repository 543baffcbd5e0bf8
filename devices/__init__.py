"""What a device is, and how a compiled network is run and timed on it."""

from hwnas.devices.device import Device, DeviceError, Fingerprint
from hwnas.devices.measurement import Measurement, Protocol
from hwnas.devices.runners import RunFailure, Runner

__all__ = ["Device", "DeviceError", "Fingerprint", "Measurement", "Protocol", "RunFailure", "Runner"]
