from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwnas.devices import Device, DeviceError
from hwnas.devices.catalog import entry
from hwnas.devices.registry import BUILT_IN, Entry, Registry, registry_path

PI = Entry(target="raspberry-pi-4", address="tracker://10.0.0.2:9190/rpi4")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "hwnas" / "devices.toml")


def test_a_device_that_was_added_is_found_by_another_process(registry: Registry) -> None:
    added = registry.add("kitchen-pi", PI)
    assert Registry(registry.path).find("kitchen-pi") == added
    assert added.target == entry("raspberry-pi-4").target
    assert added.runner == "rpc"


def test_a_target_may_be_text_of_its_own(registry: Registry) -> None:
    device = registry.add("own", Entry(target='{"kind": "llvm", "mcpu": "skylake"}', runner="local", threads=2))
    assert device == Device("own", '{"kind": "llvm", "mcpu": "skylake"}', runner="local", threads=2)
    assert registry.find("own") == device


def test_this_machine_is_always_there_and_stays(registry: Registry) -> None:
    assert registry.names()[:2] == ("host", "host-onnxruntime")
    assert registry.find("host-onnxruntime").runtime == "onnxruntime"
    with pytest.raises(DeviceError, match="'host' is on every machine and cannot be removed"):
        registry.remove("host")
    with pytest.raises(DeviceError, match=r"called 'host' already: choose another name$"):
        registry.add("host", PI)


def test_a_removed_device_is_gone_and_the_others_stay(registry: Registry) -> None:
    registry.add("one", PI)
    registry.add("two", PI)
    registry.remove("one")
    assert registry.names() == (*BUILT_IN, "two")
    with pytest.raises(DeviceError, match=r"no device is called 'one' in .* \(known: two\)"):
        registry.remove("one")


def test_an_unknown_device_names_the_known_ones(registry: Registry) -> None:
    registry.add("two", PI)
    with pytest.raises(DeviceError, match=r"'one' \(known: host, host-onnxruntime, .*two\).*`hwnas devices add`"):
        registry.find("one")


def test_a_name_is_not_taken_twice(registry: Registry) -> None:
    registry.add("one", PI)
    with pytest.raises(DeviceError, match="run `hwnas devices remove one` first"):
        registry.add("one", PI)


@pytest.mark.parametrize("name", ["", "-x", "a b", "../x", "a/b", "ü", "x" * 65, "a\n"])
def test_a_name_is_a_plain_word(registry: Registry, name: str) -> None:
    with pytest.raises(DeviceError, match="is no name for a device"):
        registry.add(name, PI)
    assert not registry.path.exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Entry(target="raspberry-pi-9", address=PI.address), "no target 'raspberry-pi-9' in the catalogue"),
        (Entry(target="{kind: llvm}", address=PI.address), "is no JSON"),
        (Entry(target='{"mcpu": "x"}', address=PI.address), "has no kind"),
        (Entry(target="raspberry-pi-4", address="10.0.0.2:9190"), "no address of a board"),
        (Entry(target="raspberry-pi-4", address=PI.address, runner="telepathy"), "no runner is called 'telepathy'"),
        (Entry(target="raspberry-pi-4", address=PI.address, runtime="abacus"), "no runtime is called 'abacus'"),
    ],
)
def test_what_cannot_be_a_device_is_not_added(registry: Registry, wrong: Entry, said: str) -> None:
    with pytest.raises(DeviceError, match=said):
        registry.add("pi", wrong)
    assert not registry.path.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[pi\n", "cannot be read"),
        ("[pi]\naddress = 'x'\n", r"is wrong at pi\.target: Field required"),
        ("[pi]\ntarget = 3\n", r"is wrong at pi\.target"),
        ("[pi]\ntarget = 'x'\nthreads = 0\n", r"is wrong at pi\.threads"),
        ("[pi]\ntarget = 'x'\ncolour = 'red'\n", r"is wrong at pi\.colour"),
        ("pi = 3\n", "is wrong at pi"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_broken_file_is_named_and_left_alone(registry: Registry, text: str, said: str) -> None:
    registry.path.parent.mkdir()
    registry.path.write_bytes(text.encode(errors="surrogateescape"))
    before = registry.path.read_bytes()
    for use in (lambda: registry.find("pi"), registry.names, lambda: registry.add("new", PI)):
        with pytest.raises(DeviceError, match=rf"{registry.path}.*{said}|{said}"):
            use()
    assert registry.path.read_bytes() == before


def test_any_text_survives_the_file(registry: Registry) -> None:
    address = 'tracker://10.0.0.2:9190/a"b\\c\x7fé😀\x01'
    registry.add("odd", Entry(target="raspberry-pi-4", address=address))
    assert registry.find("odd").address == address


def test_additions_at_the_same_time_are_all_kept(registry: Registry) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom hwnas.devices.registry import Entry, Registry\n"
        f"registry = Registry(Path({str(registry.path)!r}))\n"
        "for i in range(20):\n"
        "    registry.add(f'{sys.argv[1]}-{i}', Entry(target='raspberry-pi-4', address='rpc://h:1'))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(registry.names()) == len(BUILT_IN) + 40


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="cannot be changed"):
        Registry(tmp_path / "file" / "devices.toml").add("pi", PI)


def test_the_file_lies_where_the_system_keeps_configuration() -> None:
    assert registry_path({"HWNAS_HOME": "/h", "XDG_CONFIG_HOME": "/c"}) == Path("/h/devices.toml")
    assert registry_path({"XDG_CONFIG_HOME": "/c"}) == Path("/c/hwnas/devices.toml")
    assert registry_path({}) == Path(os.path.expanduser("~/.config/hwnas/devices.toml"))
