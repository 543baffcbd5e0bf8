"""`hwnas devices` with a real tracker and a real board, both started by the commands themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas.devices.compile import host_target
from tests.devices.boards import HOST, Served, free_port, serve
from tests.engine.commands import COMMAND, FAST, answered, failure, hwnas


@pytest.fixture(scope="module")
def lender() -> Iterator[Served]:
    with serve([*COMMAND, "devices", "tracker", "--host", HOST, "--port", str(free_port())]) as served:
        yield served


@pytest.fixture(scope="module")
def board(lender: Served) -> Iterator[Served]:
    place = ["--host", HOST, "--port", str(free_port()), "--tracker", lender.place]
    with serve([*COMMAND, "devices", "serve", "--key", "shelf", *place]) as served:
        deadline = time.monotonic() + 60
        while "shelf" not in answered("devices", "tracker", "--summary", lender.place):
            assert time.monotonic() < deadline, "the board does not come to the tracker"
        yield served


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HWNAS_HOME": str(tmp_path / "home")}


def _add(lender: Served, home: dict[str, str], *, key: str = "shelf", target: str | None = None) -> None:
    address = f"tracker://{lender.place}/{key}"
    answered("devices", "add", "pi", "--target", target or host_target(), "--address", address, **home)


def test_a_board_is_named_probed_and_forgotten(lender: Served, board: Served, home: dict[str, str]) -> None:
    _add(lender, home)
    listed = {device["name"]: device for device in answered("devices", "list", **home)["devices"]}
    assert {"host", "host-onnxruntime", "model-systolic-16x16", "pi"} <= set(listed)
    assert listed["pi"]["built_in"] is False

    done = hwnas("devices", "probe", "pi", "--json", **home)
    found = json.loads(done.stdout)
    assert found["boards"] == 1
    assert found["deviation"] < 1e-4
    assert found["noise_floor"] > 0
    assert found["before"]["board"] == board.place
    assert done.returncode == (1 if found["problems"] else 0)  # a busy machine's times may really scatter

    answered("devices", "remove", "pi", **home)
    assert "pi" not in {device["name"] for device in answered("devices", "list", **home)["devices"]}


def test_a_wrong_key_names_the_known_ones(lender: Served, board: Served, home: dict[str, str]) -> None:
    _add(lender, home, key="attic")
    code, said = failure("devices", "probe", "pi", **home)
    assert code == 4
    assert "attic" in said
    assert "shelf" in said


def test_no_tracker_is_said_at_once(home: dict[str, str]) -> None:
    nowhere = f"tracker://{HOST}:{free_port()}/pi"
    answered("devices", "add", "pi", "--target", "raspberry-pi-4", "--address", nowhere, **home)
    code, said = failure("devices", "probe", "pi", **home)
    assert code == 4
    assert "hwnas devices tracker" in said


def test_a_board_of_another_architecture_is_refused(lender: Served, board: Served, home: dict[str, str]) -> None:
    _add(lender, home, target="raspberry-pi-4")
    code, said = failure("devices", "probe", "pi", **home)
    assert code in (1, 4)
    assert "aarch64" in said


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (("probe", "nobody"), "hwnas devices add"),
        (("remove", "host"), "cannot be removed"),
        (("add", "pi", "--target", "raspberry-pi-99", "--address", "rpc://a:1"), "raspberry-pi-4"),
        (("add", "pi", "--target", "raspberry-pi-4", "--address", "a board"), "tracker://HOST:PORT/KEY"),
        (("add", "host", "--target", "raspberry-pi-4", "--address", "rpc://a:1"), "choose another name"),
    ],
)
def test_wrong_devices_are_refused_with_a_cure(arguments: tuple[str, ...], cure: str, home: dict[str, str]) -> None:
    code, said = failure("devices", *arguments, **home)
    assert code == 4
    assert cure in said


def test_a_board_without_hwnas_is_told_what_to_run() -> None:
    said = hwnas("devices", "serve", "--key", "pi", "--tracker", "10.0.0.2:9190", "--instructions").stdout
    for part in ("board.py --tracker 10.0.0.2:9190 --key pi", "tvm_rpc server", "adb reverse", "apache-tvm=="):
        assert part in said


def test_a_modelled_device_says_so() -> None:
    assert answered("devices", "probe", "model-roofline-edge-npu")["modelled"] is True


def test_a_table_is_built_on_a_board_by_name(
    lender: Served, board: Served, home: dict[str, str], tmp_path: Path
) -> None:
    _add(lender, home)
    config = tmp_path / "run.toml"
    config.write_text(FAST + '\n[device]\nname = "pi"\nrounds = 2\nmax_rounds = 2\nniceness = 0\n')
    built = answered("table", "build", config, "--out", tmp_path / "runs", **home)
    assert built["failed"] == 0
    assert built["quality"]["n"] >= 2
    assert built["visits"] > 1
    assert built["fingerprint"]["board"] == board.place
