"""OpenCL for mobile GPUs, run through TVM's own OpenCL runtime where a person has built it: numbers, never times."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from tvm import relax

from hwnas.devices.catalog import entry
from hwnas.devices.compile import host_target, import_torch, link, lower
from tests.devices.blocks import Gated, with_statistics


def on_this_host(name: str) -> str:
    """The target of the catalogue with its host code for this machine."""
    return json.dumps({**json.loads(entry(name).target), "host": json.loads(host_target())})


@pytest.mark.skipif(
    not tvm.opencl(0).exist,
    reason="no libtvm_runtime_opencl.so beside TVM's runtime, or no OpenCL device: docs/targets.md says how to build it",
)
@pytest.mark.parametrize("name", ["mali-linux", "adreno-linux"])
def test_opencl_kernels_say_what_torch_says(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = with_statistics(Gated(8, 24, 5, 1, gate=True))
    target = on_this_host(name)
    link(lower(import_torch(model, ((1, 8, 7, 7),)), target), target, tmp_path / "block.so")
    x = torch.randn((1, 8, 7, 7), generator=torch.Generator().manual_seed(0))
    device = tvm.opencl(0)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "block.so")), device)
    ours = machine["main"](tvm.runtime.tensor(x.numpy(), device))[0].numpy()
    with torch.no_grad():
        theirs = model(x).numpy()
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() < 1e-5
