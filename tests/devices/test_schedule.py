"""The generated code says what torch says, on every form of block and on sizes that fill no vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import relax

from hwnas.devices.compile import Lowered, generate, host_target, import_torch, link, lower, vector_lanes
from hwnas.devices.compile.tiles import Machine
from tests.devices.blocks import BLOCKS, Gated, head, with_statistics

ARM = '{"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}'
X86 = '{"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "%s"}'


def relative_error(model: nn.Module, shapes: tuple[tuple[int, ...], ...], path: Path) -> tuple[float, Lowered]:
    """Largest difference from torch beside the largest number of torch's."""
    model = with_statistics(model)
    lowered = lower(import_torch(model, shapes), host_target())
    link(lowered, host_target(), path)
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    ours = machine["main"](*[tvm.runtime.tensor(x.numpy()) for x in inputs])[0].numpy()
    with torch.no_grad():
        theirs = model(*inputs).numpy()
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max()), lowered


@pytest.mark.parametrize("name", BLOCKS)
def test_compiled_numbers_are_those_of_torch_on(name: str, tmp_path: Path) -> None:
    make, shape = BLOCKS[name]
    error, _ = relative_error(make(), (shape,), tmp_path / "block.so")
    assert error < 1e-5


def test_every_function_of_a_mobile_block_is_scheduled() -> None:
    lowered = lower(import_torch(Gated(8, 24, 5, 1, gate=True), ((1, 8, 6, 6),)), host_target())
    assert lowered.fallbacks == ()
    assert len(lowered.scheduled) == 7  # expand, depthwise, pool, two of the gate, project, residual


def test_a_function_that_the_schedule_refuses_is_named_and_still_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(function: object, machine: Machine) -> object:
        raise ValueError("no such loops")

    monkeypatch.setattr("hwnas.devices.compile.lowering.schedule_function", refuse)
    error, lowered = relative_error(head(), ((1, 24, 5, 5),), tmp_path / "head.so")
    assert error < 1e-5
    assert lowered.scheduled == ()
    assert ("last_pool", "ValueError: no such loops") in lowered.fallbacks


def test_without_a_schedule_the_numbers_are_the_same(tmp_path: Path) -> None:
    model = with_statistics(nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)))
    lowered = lower(import_torch(model, ((1, 4, 5, 5),)), host_target(), schedule="none")
    link(lowered, host_target(), tmp_path / "plain.so")
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "plain.so")), tvm.cpu())
    x = torch.randn((1, 4, 5, 5), generator=torch.Generator().manual_seed(0))
    ours = machine["main"](tvm.runtime.tensor(x.numpy()))[0].numpy()
    assert np.allclose(ours, model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_lanes_follow_the_vector_registers_of_the_target() -> None:
    lanes = [vector_lanes(t) for t in (X86 % "rocketlake", X86 % "haswell", X86 % "x86-64", ARM)]
    assert lanes == [16, 8, 4, 4]


def assembly(target: str) -> str:
    executable = generate(lower(import_torch(nn.Conv2d(16, 32, 1), ((1, 16, 12, 12),)), target), target)
    return "".join(m.inspect_source("s") for m in executable.mod.imports if m.kind == "llvm")


def test_a_whole_block_builds_for_a_cortex_a72() -> None:
    lowered = lower(import_torch(Gated(8, 24, 3, 1, gate=True), ((1, 8, 6, 6),)), ARM)
    assert lowered.fallbacks == ()
    assert generate(lowered, ARM) is not None


def test_a_cortex_a72_multiplies_and_adds_in_vectors() -> None:
    assert "fmla\tv" in assembly(ARM)


def test_avx512_code_multiplies_and_adds_in_512_bits() -> None:
    lines = assembly(X86 % "rocketlake").splitlines()
    assert any("vfmadd" in line and "zmm" in line for line in lines)


def test_sums_of_a_tile_stay_in_registers() -> None:
    """TVM once took them from its workspace: every multiply-add went through memory."""
    assert "TVMBackendAllocWorkspace" not in assembly(X86 % "rocketlake")


@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("height", range(1, 14))
def test_a_patch_divides_its_plane_and_fits_in_registers(height: int, registers: int) -> None:
    machine = Machine(lanes=8, registers=registers)
    for width in (1, 3, 7, 12, 37):
        columns = machine.columns(height, width, 48)
        rows, along = machine.patch(height, width, columns)
        assert 48 % columns == height % rows == width % along == 0
        assert rows * along * (columns // 8) + columns // 8 + 1 <= registers
