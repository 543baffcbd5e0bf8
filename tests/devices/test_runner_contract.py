from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.devices import Device, DeviceError, Measurement, open_runner, runner_names
from hwnas.devices.device import Fingerprint
from hwnas.devices.runners import recorded
from tests.devices.runner_contract import SHORT, RunnerContract

FINGERPRINT = Fingerprint(
    soc="a board", cores=4, isa=("asimd",), os="Linux", runtime="tvm 1", compiler="c 1", target="{}", threads=1
)


class TestRecorded(RunnerContract):
    @pytest.fixture
    def device(self, tmp_path: Path) -> Device:
        path = tmp_path / "recording.json"
        runs = {"good": Measurement((1.0, 2.0, 3.0), SHORT, "2026-01-01T00:00:00+00:00")}
        recorded.save_recording(path, FINGERPRINT, runs, recorded_at="2026-01-01T00:00:00+00:00")
        return Device("board", "{}", runner="recorded", address=str(path))

    @pytest.fixture
    def artefact(self) -> Path:
        return Path("good.so")

    @pytest.fixture
    def broken(self) -> Path:
        return Path("unheard.so")

    def test_a_device_without_a_recording_says_how_to_write_one(self) -> None:
        with pytest.raises(DeviceError, match="save_recording"):
            open_runner(Device("board", "{}", runner="recorded", address="/nowhere.json"))


def test_every_runner_found_opens_devices() -> None:
    from hwnas.devices import runners
    from hwnas.devices.plugins import load_plugin

    for name in runner_names():
        found = load_plugin(runners, name)
        assert callable(getattr(found, "open_device", found)), name


def test_an_unknown_runner_names_the_known_ones_and_the_cure() -> None:
    with pytest.raises(DeviceError, match=r"'telepathy'.*local, recorded.*install the package"):
        open_runner(Device("far", "{}", runner="telepathy"))


def test_the_process_that_times_is_no_runner() -> None:
    assert not [name for name in runner_names() if name.startswith("_")]
