"""Devices that are formulas or simulators, ready to be named: their figures are modelled, not measured."""

from __future__ import annotations

import json
from collections.abc import Iterable

from hwnas.devices.device import Device
from hwnas.devices.runners import roofline, systolic

_NAMES: dict[str, Iterable[str]] = {"systolic": systolic.PRESETS, "roofline": roofline.PRESETS}


def modelled_devices() -> dict[str, Device]:
    """Every preset as a device, by name: `model-systolic-16x16`, `model-roofline-edge-npu`."""
    devices = (
        Device(
            name=f"model-{runner}-{preset}",
            target=json.dumps({"kind": "llvm"}),  # nothing is generated for it
            kind="accelerator",
            runner=runner,
            address=preset,
            runtime="layers",
        )
        for runner, presets in _NAMES.items()
        for preset in presets
    )
    return {device.name: device for device in devices}
