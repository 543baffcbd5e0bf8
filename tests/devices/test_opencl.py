"""OpenCL for mobile GPUs, run where there is an OpenCL device, such as PoCL's CPU: numbers, never times."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from numpy.typing import NDArray
from torch import nn
from tvm import relax

from hwnas.devices.catalog import entry
from hwnas.devices.compile import generate, host_target, import_torch, link, lower
from tests.boards.opencl import forward, opencl_queue
from tests.devices.blocks import Gated, with_statistics

TARGETS = ("mali-linux", "adreno-linux")


def on_this_host(name: str) -> str:
    """The target of the catalogue with its host code for this machine."""
    return json.dumps({**json.loads(entry(name).target), "host": json.loads(host_target())})


def block() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return with_statistics(Gated(8, 24, 5, 1, gate=True)), torch.randn((1, 8, 7, 7))


def relative(ours: NDArray[np.float32], model: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        theirs = model(x).numpy()
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("name", TARGETS)
def test_emitted_kernels_say_what_torch_says(name: str) -> None:
    queue = opencl_queue()
    model, x = block()
    target = entry(name).target
    lowered = lower(import_torch(model, (tuple(x.shape),)), target)
    (kernels,) = [inner for outer in generate(lowered, target).mod.imports for inner in outer.imports]
    assert relative(forward(queue, lowered, str(kernels.inspect_source()), x.numpy()), model, x) < 1e-5


@pytest.mark.skipif(
    not tvm.opencl(0).exist,
    reason="no libtvm_runtime_opencl.so beside TVM's runtime or no OpenCL device: docs/targets.md says how to build it",
)
@pytest.mark.parametrize("name", TARGETS)
def test_a_library_s_kernels_say_what_torch_says_through_tvm(name: str, tmp_path: Path) -> None:
    model, x = block()
    target = on_this_host(name)
    link(lower(import_torch(model, (tuple(x.shape),)), target), target, tmp_path / "block.so")
    device = tvm.opencl(0)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "block.so")), device)
    assert relative(machine["main"](tvm.runtime.tensor(x.numpy(), device))[0].numpy(), model, x) < 1e-5
