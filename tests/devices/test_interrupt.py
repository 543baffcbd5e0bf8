"""A call that hangs is ended from another thread."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.devices import Device, DeviceError, Measurement
from hwnas.devices.runners.local import LocalRunner
from tests.devices import artefacts
from tests.devices.runner_contract import SHORT


def test_a_visit_is_interrupted_and_the_runner_goes_on(tmp_path: Path) -> None:
    runner = LocalRunner(Device("host", '{"kind": "llvm"}'))
    good = artefacts.add_one(tmp_path / "good.so")
    runner.time([good], SHORT)  # so that the process is up
    timer = threading.Timer(1.0, runner.interrupt)
    timer.start()
    with pytest.raises(DeviceError, match="interrupted"):
        runner.time([artefacts.hanging(tmp_path / "hanging.so")], replace(SHORT, timeout_s=300))
    (again,) = runner.time([good], SHORT)
    assert isinstance(again, Measurement)
    runner.close()
