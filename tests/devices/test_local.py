from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from hwnas.devices import Device, DeviceError, Measurement, Protocol, RunFailure, board, noise_floor, open_runner
from hwnas.devices.runners.local import LocalRunner
from tests.devices import artefacts
from tests.devices.runner_contract import SHORT, RunnerContract

HOST = Device("host", '{"kind": "llvm"}')


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artefacts.add_one(tmp_path_factory.mktemp("library") / "add_one.so")


@pytest.fixture(scope="module")
def shared_runner() -> Iterator[LocalRunner]:
    runner = LocalRunner(HOST)
    yield runner
    runner.close()


class TestLocal(RunnerContract):
    @pytest.fixture
    def device(self) -> Device:
        return HOST

    @pytest.fixture
    def artefact(self, library: Path) -> Path:
        return library

    @pytest.fixture
    def broken(self, tmp_path: Path) -> Path:
        path = tmp_path / "broken.so"
        path.write_text("not a library")
        return path


def test_an_output_is_that_of_the_network(shared_runner: LocalRunner, library: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(shared_runner.run(library, [x]), x + 1)


def test_wrong_inputs_are_a_failure_of_the_run(shared_runner: LocalRunner, library: Path) -> None:
    with pytest.raises(RunFailure, match="takes 1 inputs, not 2"):
        shared_runner.run(library, [np.zeros((2, 3)), np.zeros((2, 3))])


def test_whole_numbers_are_timed_too(shared_runner: LocalRunner, tmp_path: Path) -> None:
    path = artefacts.add_one(tmp_path / "whole.so", (4,), "int64")
    (timed,) = shared_runner.time([path], SHORT)
    assert isinstance(timed, Measurement)


def test_every_round_gives_its_repeats_and_no_warmup(shared_runner: LocalRunner, library: Path) -> None:
    (timed,) = shared_runner.time([library], replace(SHORT, rounds=3, repeats=5, warmup=2))
    assert isinstance(timed, Measurement)
    assert len(timed.runs_ms) == 15


def test_a_crash_fails_alone_and_the_others_lose_nothing(tmp_path: Path, library: Path) -> None:
    crash = artefacts.crashing(tmp_path / "crash.so")
    runner = LocalRunner(HOST)
    first, failed, last = runner.time([library, crash, library], SHORT)
    assert isinstance(failed, RunFailure)
    assert "SIGSEGV" in str(failed)
    assert isinstance(first, Measurement)
    assert isinstance(last, Measurement)
    assert len(first.runs_ms) == len(last.runs_ms) == SHORT.runs
    runner.close()


def test_a_hang_fails_alone_and_the_others_lose_nothing(tmp_path: Path, library: Path) -> None:
    hang = artefacts.hanging(tmp_path / "hang.so")
    runner = LocalRunner(HOST)
    failed, last = runner.time([hang, library], replace(SHORT, timeout_s=1.0))
    assert isinstance(failed, RunFailure)
    assert "no answer within 1 s" in str(failed)
    assert isinstance(last, Measurement)
    assert len(last.runs_ms) == SHORT.runs
    runner.close()


def test_a_hang_in_a_single_run_is_bounded(tmp_path: Path) -> None:
    hang = artefacts.hanging(tmp_path / "hang.so")
    runner = LocalRunner(HOST, run_timeout_s=1.0)
    with pytest.raises(RunFailure, match="no answer within 1 s"):
        runner.run(hang, [])
    runner.close()


def test_a_crash_that_another_artefact_caused_is_tried_again(tmp_path: Path) -> None:
    path = artefacts.crashing_once(tmp_path / "once.so", tmp_path / "crashed")
    runner = LocalRunner(HOST)
    (answer,) = runner.time([path], SHORT)
    assert isinstance(answer, RunFailure)
    assert "SIGSEGV" not in str(answer)  # the second process lived to say that it is no artefact
    runner.close()


def test_libraries_are_unloaded_after_a_batch(library: Path) -> None:
    before = set(psutil.Process().children())
    runner = LocalRunner(HOST)
    runner.time([library], SHORT)
    (child,) = set(psutil.Process().children()) - before
    assert library.name not in Path(f"/proc/{child.pid}/maps").read_text()
    runner.close()


def test_what_was_granted_is_recorded(shared_runner: LocalRunner, library: Path) -> None:
    shared_runner.time([library], replace(SHORT, pinned=True, niceness=0))
    fingerprint = shared_runner.fingerprint()
    assert fingerprint.niceness == 0
    assert len(fingerprint.pinned_to) == 1


def test_a_runner_that_lost_its_process_starts_another(library: Path) -> None:
    before = set(psutil.Process().children())
    runner = LocalRunner(HOST)
    runner.time([library], SHORT)
    (child,) = set(psutil.Process().children()) - before
    child.kill()
    (timed,) = runner.time([library], SHORT)
    assert isinstance(timed, Measurement)
    runner.close()


def test_the_timing_process_dies_with_a_killed_parent(library: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from hwnas.devices import Device, Protocol\nfrom hwnas.devices.runners.local import LocalRunner\n"
        "runner = LocalRunner(Device('host', '{}'))\n"
        f"runner.time([Path({str(library)!r})], Protocol(rounds=1, repeats=1))\n"
        "print('timed', flush=True)\nsys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"timed\n"
    (child,) = psutil.Process(parent.pid).children()
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    child.wait(timeout=30)  # raises TimeoutExpired if it lives on


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="other processors are left as they are")
def test_denormals_are_flushed_to_zero() -> None:
    code = (
        "import numpy as np, runpy\n"
        f"timing = runpy.run_path({str(board.__file__)!r})\n"
        "tiny = np.full(64, 1e-38, np.float32)\n"
        "assert (tiny * np.float32(0.01)).all()\n"
        "timing['flush_denormals']()\n"
        "assert not (tiny * np.float32(0.01)).any()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_noise_is_a_share_of_the_latency(shared_runner: LocalRunner, library: Path) -> None:
    assert noise_floor(shared_runner, library, SHORT, repetitions=3) >= 0


def test_the_noise_of_what_does_not_run_is_an_error(shared_runner: LocalRunner, tmp_path: Path) -> None:
    with pytest.raises(RunFailure):
        noise_floor(shared_runner, tmp_path / "nothing.so", SHORT)


def test_threads_of_protocol_and_device_must_agree(shared_runner: LocalRunner, library: Path) -> None:
    with pytest.raises(ValueError, match="asks for 4 threads and device 'host' runs 1"):
        shared_runner.time([library], Protocol(threads=4))


def test_a_device_somewhere_else_is_not_local() -> None:
    with pytest.raises(DeviceError, match="opens only this machine"):
        open_runner(replace(HOST, address="board:9090"))
