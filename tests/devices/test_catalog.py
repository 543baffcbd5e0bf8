"""A block compiles for every target of the catalogue, and what comes out is for that machine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from hwnas.devices import DeviceError, runner_names
from hwnas.devices.catalog import catalog, device_from_catalog, entry
from hwnas.devices.compile import Lowered, generate, import_torch, link, lower
from hwnas.devices.compile.elf import elf_machine
from hwnas.devices.compile.target import as_target, target_machine
from hwnas.devices.runtimes import runtime_names
from tests.devices.blocks import Gated, with_statistics

ENTRIES = catalog()

# what a kernel of each language begins with
KERNELS = {
    "opencl": rb"__kernel void \w+",
    "cuda": rb"__global__ void[^;{]* \w+\(",
    "webgpu": rb"@compute @workgroup_size",
}


@pytest.fixture(scope="module")
def block() -> Any:  # an IRModule
    """A gated mobile block, imported once: lowering leaves it as it is."""
    torch.manual_seed(0)
    return import_torch(with_statistics(Gated(8, 24, 3, 1, gate=True)), ((1, 8, 6, 6),))


def generated(lowered: Lowered, target: str) -> bytes:
    """The text that is generated for a graphics processor, beside the host code that launches it."""

    def every(module: Any) -> list[Any]:
        return [module, *(inner for outer in module.imports for inner in every(outer))]

    modules = {str(m.kind): m for m in every(generate(lowered, target).mod)}
    assert "llvm" in modules
    return str(modules[str(as_target(target).kind.name)].inspect_source()).encode()


@pytest.mark.parametrize("name", ENTRIES)
def test_a_mobile_block_compiles_for(name: str, block: Any, tmp_path: Path) -> None:
    target, path = ENTRIES[name].target, tmp_path / "block.so"
    lowered = lower(block, target)
    assert lowered.fallbacks == ()
    try:
        link(lowered, target, path)
        made = path.read_bytes()
        assert elf_machine(path) == target_machine(target)
    except FileNotFoundError:  # no compiler of Android's on this machine: the kernels alone
        assert name.endswith("android")
        made = generated(lowered, target)
    except ValueError:
        assert not ENTRIES[name].links
        made = generated(lowered, target)
    kernel = KERNELS.get(str(as_target(target).kind.name))
    if kernel is not None:
        assert len(re.findall(kernel, made)) >= len(lowered.scheduled) == 6
    else:
        assert len(lowered.scheduled) == 7


def test_a_cpu_schedule_is_not_applied_to_a_graphics_processor(block: Any) -> None:
    assert not any(kernel.startswith("last_") for kernel in lower(block, ENTRIES["mali-linux"].target).scheduled)


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_names_what_hwnas_has(name: str) -> None:
    found = ENTRIES[name]
    assert found.runtime in runtime_names()
    assert found.runner in runner_names()
    assert found.description
    assert found.source


def test_the_boards_that_people_have_are_there() -> None:
    asked = {"raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5", "aarch64", "armv7", "riscv64", "x86-64-avx2"}
    asked |= {"x86-64-avx512", "adreno-android", "mali-linux", "jetson-orin", "jetson-xavier", "nvidia-a100"}
    assert asked <= set(ENTRIES)


def test_a_device_takes_all_but_its_name_and_address_from_its_entry() -> None:
    device = device_from_catalog("desk", "raspberry-pi-4", address="10.0.0.2:9090", threads=4)
    assert (device.name, device.kind, device.runner) == ("desk", "edge-cpu", "rpc")
    assert (device.address, device.threads, device.runtime) == ("10.0.0.2:9090", 4, "tvm")
    assert json.loads(device.target)["mcpu"] == "cortex-a72"


def test_a_device_may_be_reached_in_another_way() -> None:
    assert device_from_catalog("this", "aarch64", runner="local").runner == "local"


def test_an_unknown_target_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(DeviceError, match=r"no target 'raspberry' in the catalogue.*raspberry-pi-4"):
        entry("raspberry")


def test_code_that_becomes_no_library_is_no_device() -> None:
    with pytest.raises(DeviceError, match="webgpu becomes code, not a library"):
        device_from_catalog("browser", "webgpu")


OWN = """
[my-board]
kind = "edge-cpu"
description = "a board of mine"
source = "its data sheet"
target = { kind = "llvm", mtriple = "aarch64-linux-gnu", mcpu = "cortex-a55" }

[aarch64]
kind = "edge-cpu"
description = "mine comes first"
source = "me"
runner = "local"
target = { kind = "llvm", mtriple = "aarch64-linux-gnu", mcpu = "cortex-a35" }
"""


def test_a_file_of_one_s_own_extends_the_catalogue_and_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(OWN)
    entries = catalog(own)
    assert set(entries) == {*ENTRIES, "my-board"}
    assert entries["aarch64"].description == "mine comes first"
    assert device_from_catalog("desk", "my-board", own=own).runner == "rpc"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[board", "cannot be read"),
        ("[board]\n", "wrong at board.kind"),
        (OWN.replace('kind = "edge-cpu"', 'kind = "toaster"', 1), "wrong at my-board.kind.*'edge-cpu'"),
        (OWN.replace("source", "sauce", 1), "wrong at my-board.s"),
        (OWN.replace('{ kind = "llvm", ', "{ ", 1), "wrong at my-board.target.*has a kind"),
        (OWN + "links = 1\n", "wrong at aarch64.links"),
    ],
)
def test_a_wrong_file_of_one_s_own_says_where(text: str, message: str, tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(text)
    with pytest.raises(DeviceError, match=message):
        catalog(own)


def test_a_missing_file_of_one_s_own_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"catalogue .*none\.toml cannot be read"):
        catalog(tmp_path / "none.toml")


def test_every_entry_is_in_the_page_of_targets() -> None:
    page = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()
    assert [name for name in ENTRIES if f"`{name}`" not in page] == []
