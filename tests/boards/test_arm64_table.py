"""A table of a foreign board: cross-compiled here, uploaded and run there through RPC, equal to torch.

Emulated times are no hardware times: nothing is asserted of them but that they are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.devices import Device, Protocol
from hwnas.devices.compile import Artefact, CompileJob, Compiler
from hwnas.devices.runners import open_runner
from hwnas.engine.hardware import assemble
from hwnas.engine.spaces.mobilenet_v3 import blocks as _registered  # noqa: F401
from hwnas.latency import Block, LatencyTable, Network, build
from tests.boards.arm64 import SCRIPT, Board
from tests.devices.boards import board, tracked, tracker

PROTOCOL = Protocol(rounds=2, repeats=2, warmup=1, burn_in=0, timeout_s=60.0)


def _mbconv(channels: int, expansion: int, kernel: int, se: bool) -> Block:
    return Block.of(
        "mobilenet_v3.mbconv",
        (1, channels, 8, 8),
        in_channels=channels,
        out_channels=channels,
        kernel=kernel,
        stride=1,
        hidden=channels * expansion,
        se=se,
        activation="hswish" if se else "relu",
    )


STEM = Block.of("mobilenet_v3.stem", (1, 3, 16, 16), in_channels=3, out_channels=8, stride=2, activation="hswish")
HEAD = Block.of(
    "mobilenet_v3.head", (1, 8, 8, 8), in_channels=8, channels=32, features=32, classes=10, activation="hswish"
)
BLOCKS = [STEM, HEAD, *(_mbconv(*values) for values in product((8, 16), (2, 3, 4, 6), (3, 5), (False, True)))]
LAYERS = (STEM, _mbconv(8, 2, 3, False), _mbconv(8, 4, 5, True), _mbconv(8, 6, 3, True), HEAD)
NETWORK = Network("network", partial(assemble, [block.recipe() for block in LAYERS]), STEM.inputs, LAYERS)


@pytest.fixture(scope="module")
def foreign(arm64_board: Board) -> Iterator[Device]:
    with tracker() as lender, board(lender, "arm64", python=[str(SCRIPT), "run", "--"]):
        yield tracked(lender, "arm64", target=arm64_board.target)


def _expected(make: partial[nn.Module] | object, x: np.ndarray) -> np.ndarray:
    torch.manual_seed(0)  # as the compiling process does
    with torch.no_grad():
        return make().eval()(torch.from_numpy(x)).numpy()  # type: ignore[operator,no-any-return]


def test_a_table_of_a_foreign_board(foreign: Device, tmp_path: Path) -> None:
    assert len(BLOCKS) >= 30
    with Compiler(foreign.target, cache=tmp_path / "cache") as compiler:
        runner = open_runner(foreign, compiler=compiler.versions())
        try:
            fingerprint = runner.fingerprint()
            assert "aarch64" in fingerprint.os
            table = LatencyTable.open_for(tmp_path / "t.sqlite", foreign, fingerprint=fingerprint, protocol=PROTOCOL)
            report = build(table, BLOCKS, fit=[NETWORK], compiler=compiler, runner=runner, protocol=PROTOCOL)
            assert (report.tried, report.failed, report.added) == (len(BLOCKS) + 1, 0, len(BLOCKS) + 1)
            assert len(table.latencies_ms()) == len(BLOCKS)
            assert len(table.measured("fit")) == 1
            table.close()

            rng = np.random.default_rng(0)
            jobs = [CompileJob(block.recipe(), block.inputs, str(block)) for block in BLOCKS]
            jobs.append(CompileJob(NETWORK.make, NETWORK.inputs, NETWORK.label))
            for index, artefact in compiler.compile(jobs):
                assert isinstance(artefact, Artefact)
                assert artefact.cached  # what is compared is what was timed
                x = rng.uniform(-1, 1, jobs[index].inputs[0]).astype(np.float32)
                output, expected = runner.run(artefact.path, [x]), _expected(jobs[index].make, x)
                assert np.abs(output - expected).max() <= 1e-4 * np.abs(expected).max(), jobs[index].label
        finally:
            runner.close()
