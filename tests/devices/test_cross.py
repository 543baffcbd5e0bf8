"""What is compiled for another machine runs there and says what torch says, or says clearly why it cannot be made."""

from __future__ import annotations

import copy
import json
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from numpy.typing import NDArray
from torch import nn
from tvm import relax

from hwnas.devices.catalog import entry
from hwnas.devices.compile import CompileFailure, CompileJob, Compiler, generate, import_torch, link, lower
from hwnas.devices.compile.elf import elf_machine, machine_family
from hwnas.devices.compile.linker import gnu_triple, linker
from hwnas.devices.compile.target import target_machine, vector_lanes, vector_registers
from tests.boards.arm64 import Board
from tests.boards.bare import bare_board
from tests.devices.blocks import BLOCKS, with_statistics

FORWARD = Path(__file__).parents[1] / "boards" / "forward.py"
S390X = '{"kind": "llvm", "mtriple": "s390x-linux-gnu"}'

# what a lookup table measures, and what the schedule treats apart
ON_THE_BOARD = (*BLOCKS, "depthwise", "linear")


def make(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    more: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
        "depthwise": (lambda: nn.Conv2d(20, 20, 5, 2, 2, groups=20), (1, 20, 13, 11)),
        "linear": (lambda: nn.Sequential(nn.Linear(30, 50), nn.ReLU(), nn.Linear(50, 7)), (3, 30)),
    }
    model, shape = (BLOCKS | more)[name]
    torch.manual_seed(0)
    return with_statistics(model()), shape


def relative(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@dataclass(frozen=True)
class Trial:
    """A block compiled for the board and what came out of it there."""

    library: Path
    error: float


@pytest.fixture(scope="module")
def trials(arm64_board: Board, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trial]:
    """Every block, through the compiler and its cache; one start of the board's Python runs them all."""
    cache = tmp_path_factory.mktemp("arm64")
    made, theirs = {}, {}
    blocks = {name: make(name) for name in ON_THE_BOARD}
    jobs = [CompileJob(partial(copy.deepcopy, model), (shape,), name) for name, (model, shape) in blocks.items()]
    with Compiler(arm64_board.target, cache=cache, workers=2) as compiler:
        for index, artefact in compiler.compile(jobs):
            assert not isinstance(artefact, CompileFailure), artefact
            made[jobs[index].label] = artefact.path
    for name, (model, shape) in blocks.items():
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        np.savez(made[name].with_suffix(".npz"), x.numpy())
        with torch.no_grad():
            theirs[name] = model(x).numpy()
    arm64_board.run(FORWARD, cache)
    ours = {name: np.load(path.with_suffix(".npy")) for name, path in made.items()}
    return {name: Trial(made[name], relative(ours[name], theirs[name])) for name in ON_THE_BOARD}


@pytest.mark.parametrize("name", ON_THE_BOARD)
def test_the_arm64_board_says_what_torch_says_on(name: str, trials: dict[str, Trial]) -> None:
    assert trials[name].error < 1e-5


def test_a_compiler_for_the_board_makes_the_board_s_libraries(trials: dict[str, Trial]) -> None:
    assert {elf_machine(trial.library) for trial in trials.values()} == {"aarch64"}


# qemu's processors; RISC-V vectors are as long as the code asks for, and longer, as boards have them
BARE = {
    "raspberry-pi-3": ("cortex-a53",),
    "raspberry-pi-5": ("cortex-a76",),
    "armv7": ("cortex-a7",),
    "riscv64": ("rv64",),
    "riscv64-v": ("rv64,v=true,vlen=128", "rv64,v=true,vlen=256"),
}


@pytest.mark.parametrize("name", BARE)
def test_every_kernel_of_a_mobile_block_is_right_on(name: str, tmp_path: Path) -> None:
    """No runtime of TVM's is needed there: kernel by kernel beside the same loops compiled for this machine."""
    target = entry(name).target
    machines = [bare_board(target, tmp_path, cpu=cpu) for cpu in BARE[name]]
    lowered = lower(import_torch(make("5x5, stride 2")[0], ((1, 24, 5, 5),)), target)
    assert (len(lowered.scheduled), lowered.fallbacks) == (7, ())
    link(lowered, target, tmp_path / "there.so")
    link(lowered, '{"kind": "llvm"}', tmp_path / "here.so")
    here = tvm.runtime.load_module(str(tmp_path / "here.so"))
    rng = np.random.default_rng(0)
    for kernel in lowered.scheduled:
        shapes = [[int(n) for n in parameter.ty.shape] for parameter in lowered.module[kernel].params]
        arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        here.get_function(kernel, query_imports=True)(*tensors)
        for machine in machines:
            there = machine.call(tmp_path / "there.so", kernel, arrays, tmp_path)
            assert relative(there, tensors[-1].numpy()) < 1e-5, kernel


def error_on_this_machine(made_for: str, path: Path, *, linked_for: str) -> float:
    model, shape = make("5x5, stride 2")
    link(lower(import_torch(model, (shape,)), made_for), linked_for, path)
    vm = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return relative(vm["main"](tvm.runtime.tensor(x.numpy()))[0].numpy(), model(x).numpy())


@pytest.mark.parametrize("name", ["raspberry-pi-5", "armv7", "riscv64", "riscv64-v"])
def test_loops_made_for_another_machine_are_right_on_this_one(name: str, tmp_path: Path) -> None:
    assert error_on_this_machine(entry(name).target, tmp_path / "here.so", linked_for='{"kind": "llvm"}') < 1e-5


@pytest.mark.parametrize(("name", "feature"), [("x86-64-avx2", "avx2"), ("x86-64-avx512", "avx512vl")])
def test_both_levels_of_x86_say_what_torch_says(name: str, feature: str, tmp_path: Path) -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or feature not in cpuinfo.read_text().split():
        pytest.skip(f"this machine has no {feature}")
    target = entry(name).target
    assert error_on_this_machine(target, tmp_path / "here.so", linked_for=target) < 1e-5


def test_vectors_and_registers_follow_the_instruction_set() -> None:
    names = ("raspberry-pi-4", "armv7", "riscv64", "riscv64-v", "x86-64-avx2", "x86-64-avx512")
    targets = [entry(name).target for name in names]
    assert [vector_lanes(t) for t in targets] == [4, 4, 1, 4, 8, 16]
    assert [vector_registers(t) for t in targets] == [32, 16, 32, 32, 16, 32]


def test_longer_risc_v_vectors_are_used_where_the_target_names_them() -> None:
    fields = json.loads(entry("riscv64-v").target)
    assert vector_lanes(json.dumps({**fields, "mattr": [*fields["mattr"], "+zvl256b"]})) == 8


def test_armv7_computes_in_neon_vectors() -> None:
    target = entry("armv7").target
    executable = generate(lower(import_torch(nn.Conv2d(16, 32, 1), ((1, 16, 12, 12),)), target), target)
    assembly = "".join(m.inspect_source("s") for m in executable.mod.imports if m.kind == "llvm")
    assert "vmul.f32\tq" in assembly  # LLVM holds a Cortex-A7's fused multiply-add for slow


def test_a_missing_cross_compiler_is_an_error_that_names_its_package(tmp_path: Path) -> None:
    job = CompileJob(lambda: nn.Conv2d(3, 4, 1), ((1, 3, 4, 4),), "conv")
    with Compiler(S390X, cache=tmp_path, workers=1) as compiler:
        ((_, failure),) = compiler.compile([job])
    assert isinstance(failure, CompileFailure)
    assert "no s390x-linux-gnu-g++ on this machine" in str(failure)
    assert str(failure).endswith("apt-get install g++-s390x-linux-gnu")


@pytest.mark.parametrize(
    ("compiler", "message"), [(None, "it is not set"), ("/nowhere/clang++", "'/nowhere/clang.*' is no program")]
)
def test_android_needs_the_compiler_of_its_kit(
    compiler: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TVM_NDK_CC", raising=False)
    if compiler is not None:
        monkeypatch.setenv("TVM_NDK_CC", compiler)
    with pytest.raises(FileNotFoundError, match=f"TVM_NDK_CC.*{message}.*aarch64-linux-android29-clang"):
        linker(entry("adreno-android").target)


def test_the_compiler_that_is_named_links_for_android(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = shutil.which("aarch64-linux-gnu-g++")  # in the kit's place: it takes the same arguments
    if compiler is None:
        pytest.skip("no aarch64-linux-gnu-g++ on this machine: apt-get install g++-aarch64-linux-gnu")
    monkeypatch.setenv("TVM_NDK_CC", compiler)
    target = entry("adreno-android").target
    link(lower(import_torch(nn.Conv2d(3, 4, 1), ((1, 3, 4, 4),)), target), target, tmp_path / "phone.so")
    assert elf_machine(tmp_path / "phone.so") == "aarch64"


def test_nothing_is_linked_where_there_are_no_shared_libraries() -> None:
    with pytest.raises(ValueError, match="no shared libraries"):
        linker(entry("webgpu").target)


@pytest.mark.parametrize(
    ("triple", "compiler"),
    [
        ("armv7a-unknown-linux-gnueabihf", "arm-linux-gnueabihf"),
        ("arm64-linux-gnu", "aarch64-linux-gnu"),
        ("riscv64gc-unknown-linux-gnu", "riscv64-linux-gnu"),
        ("x86_64-pc-linux-gnu", "x86_64-linux-gnu"),
    ],
)
def test_the_cross_compiler_has_debian_s_name(triple: str, compiler: str) -> None:
    assert gnu_triple(triple) == compiler


def test_a_library_says_what_machine_it_is_for() -> None:
    assert elf_machine(Path(sys.executable).resolve()) == machine_family(platform.machine())


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"MZ" + bytes(30)])
def test_a_file_that_is_no_library_has_no_machine(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ValueError, match="no ELF file"):
        elf_machine(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("arm64", "aarch64"),
        ("armv7l", "arm"),
        ("armv8l", "arm"),
        ("riscv64", "riscv"),
        ("AMD64", "x86_64"),
        ("i686", "i386"),
    ],
)
def test_systems_name_one_machine_differently(name: str, family: str) -> None:
    assert machine_family(name) == family


def test_a_graphics_processor_s_library_is_for_its_host() -> None:
    assert target_machine(entry("jetson-orin").target) == "aarch64"
    assert target_machine('{"kind": "cuda"}') == machine_family(platform.machine())
