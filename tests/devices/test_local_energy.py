"""Energy of a network on this machine, by a counter that is made of what the timing process really does."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hwnas.devices import Device, Measurement
from hwnas.devices.runners.local import LocalRunner
from tests.devices import artefacts
from tests.devices.runner_contract import SHORT

IDLE_W, BUSY_W = 3.0, 2.0


class ByCpuTime:
    """3 W all the time, and 2 W more while the timing process computes."""

    def read_mj(self) -> float:
        busy_s = sum(
            sum(child.cpu_times()[:2])
            for child in psutil.Process().children()
            if "_timing.py" in " ".join(child.cmdline())
        )
        return 1000 * (IDLE_W * time.perf_counter() + BUSY_W * busy_s)


def test_a_measurement_carries_the_energy_above_the_idle_machines(tmp_path: Path) -> None:
    library = artefacts.add_one(tmp_path / "add_one.so", shape=(512, 2048))
    runner = LocalRunner(Device("host", '{"kind": "llvm"}'), counter=ByCpuTime())
    (measured,) = runner.time([library], replace(SHORT, rounds=3))
    runner.close()
    assert isinstance(measured, Measurement)
    # mJ of 2 W over the call; the process reads its CPU time in steps of 10 ms
    assert measured.energy_mj == pytest.approx(BUSY_W * measured.latency_ms, rel=0.6)


def test_without_a_counter_there_is_no_energy(tmp_path: Path) -> None:
    runner = LocalRunner(Device("host", '{"kind": "llvm"}'))
    (measured,) = runner.time([artefacts.add_one(tmp_path / "add_one.so")], SHORT)
    runner.close()
    assert isinstance(measured, Measurement)
    assert measured.energy_mj is None
