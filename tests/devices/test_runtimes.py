"""Every runtime compiles, runs and times a network, and its version tells tables apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.devices import Device, DeviceError, Measurement, Protocol, Runner, open_runner, probe_host
from hwnas.devices.compile import Artefact, CompileJob, Compiler
from hwnas.devices.runtimes import find_runtime, runtime_names
from tests.devices.runner_contract import RunnerContract

SHAPE = (1, 8, 12, 12)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.Hardswish(), nn.Conv2d(16, 4, 1)
    )


def artefact_of(device: Device, cache: Path) -> tuple[Path, str]:
    with Compiler(device.target, cache=cache, workers=1, runtime=device.runtime) as compiler:
        ((_, result),) = compiler.compile([CompileJob(network, (SHAPE,), "network")])
        assert isinstance(result, Artefact), result
        ((_, again),) = compiler.compile([CompileJob(network, (SHAPE,), "network")])
        assert isinstance(again, Artefact)
        assert again.cached
        assert compiler.library(result.key) == result.path == again.path
        return result.path, compiler.versions()


@pytest.fixture(scope="module")
def ort() -> Device:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    return probe_host("onnxruntime")


@pytest.fixture(scope="module")
def ort_artefact(ort: Device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artefact_of(ort, tmp_path_factory.mktemp("cache"))[0]


class TestOnnxRuntime(RunnerContract):
    @pytest.fixture
    def device(self, ort: Device) -> Device:
        return ort

    @pytest.fixture
    def artefact(self, ort_artefact: Path) -> Path:
        return ort_artefact

    @pytest.fixture
    def broken(self, tmp_path: Path) -> Path:
        path = tmp_path / "broken.onnx"
        path.write_bytes(b"no network")
        return path


@pytest.fixture
def ort_runner(ort: Device) -> Iterator[Runner]:
    runner = open_runner(ort)
    yield runner
    runner.close()


def test_onnx_runtime_gives_the_numbers_of_torch(ort_runner: Runner, ort_artefact: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, SHAPE).astype(np.float32)
    torch.manual_seed(0)  # as the compiling process does
    with torch.no_grad():
        expected = network().eval()(torch.from_numpy(x)).numpy()
    assert np.allclose(ort_runner.run(ort_artefact, [x]), expected, atol=1e-5)


def test_flushed_caches_cost_time(ort_runner: Runner, ort_artefact: Path) -> None:
    protocol = Protocol(rounds=4, repeats=5, flush_mib=64, niceness=0)
    hot, flushed = (
        timed.latency_ms
        for setting in (replace(protocol, flush_mib=0), protocol)
        for timed in ort_runner.time([ort_artefact], setting)
        if isinstance(timed, Measurement)
    )
    assert flushed > hot


def test_two_runtimes_of_one_device_are_two_devices_to_a_table(ort_runner: Runner) -> None:
    runner = open_runner(probe_host())
    try:
        tvm, ort = runner.fingerprint(), ort_runner.fingerprint()
    finally:
        runner.close()
    assert tvm.runtime.startswith("tvm ")
    assert ort.runtime.startswith("onnxruntime ")
    assert tvm.identity != ort.identity


@pytest.mark.parametrize("name", ["tvm", "onnxruntime"])
def test_a_runtime_is_found_by_name(name: str) -> None:
    assert name in runtime_names()
    runtime = find_runtime(name)
    assert runtime.SUFFIX.startswith(".")
    assert runtime.version().startswith(name)


def test_an_unknown_runtime_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(DeviceError, match=r"'abacus'.*onnxruntime.*tvm"):
        open_runner(replace(probe_host(), runtime="abacus"))
