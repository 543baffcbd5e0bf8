"""A job that hangs or crashes costs that job alone, and an equal network is compiled once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from torch import nn

from hwnas.devices.compile import (
    Artefact,
    CompileFailure,
    CompileJob,
    Compiler,
    host_target,
    input_shapes,
    read_manifest,
)
from hwnas.devices.compile.cache import Manifest, is_whole, store

SHAPES = ((1, 3, 4, 4),)


def job(make: Callable[[], nn.Module], label: str = "network") -> CompileJob:
    return CompileJob(make, SHAPES, label)


def network(channels: int = 2) -> CompileJob:
    return job(partial(nn.Conv2d, 3, channels, 1), f"{channels} channels")


def crash() -> CompileJob:
    return job(lambda: os.kill(os.getpid(), signal.SIGSEGV), "crash")  # type: ignore[arg-type,return-value]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def compiler(cache: Path) -> Iterator[Compiler]:
    with Compiler(host_target(), cache=cache, workers=1) as compiler:
        yield compiler


def only(compiler: Compiler, asked: CompileJob) -> Artefact | CompileFailure:
    ((index, result),) = compiler.compile([asked])
    assert index == 0
    return result


def artefact(compiler: Compiler, asked: CompileJob) -> Artefact:
    result = only(compiler, asked)
    assert isinstance(result, Artefact), result
    return result


def test_an_artefact_lies_in_the_cache_under_its_key(compiler: Compiler, cache: Path) -> None:
    made = artefact(compiler, network())
    assert made.path == cache / f"{made.key}.so"
    assert made.cpu_seconds > 0


def test_a_library_says_the_shapes_of_its_inputs(compiler: Compiler) -> None:
    assert input_shapes(artefact(compiler, network()).path) == SHAPES


def test_an_equal_job_is_found_in_the_cache(compiler: Compiler) -> None:
    first, second = artefact(compiler, network(4)), artefact(compiler, network(4))
    assert not first.cached
    assert second.cached
    assert first.path == second.path


def test_another_network_has_another_key(compiler: Compiler) -> None:
    assert artefact(compiler, network(2)).key != artefact(compiler, network(5)).key


def test_other_weights_have_another_key(compiler: Compiler) -> None:
    def zeros() -> nn.Module:
        conv = nn.Conv2d(3, 2, 1)
        nn.init.zeros_(conv.weight)
        return conv

    assert artefact(compiler, network(2)).key != artefact(compiler, job(zeros)).key


def test_a_library_cut_short_is_compiled_again(compiler: Compiler) -> None:
    whole = artefact(compiler, network(6)).path
    data = whole.read_bytes()
    whole.unlink()
    whole.write_bytes(data[: len(data) // 2])
    assert not artefact(compiler, network(6)).cached
    assert read_manifest(whole).key == whole.stem


def test_a_crash_fails_its_job_alone(compiler: Compiler) -> None:
    results = dict(compiler.compile([crash(), network()]))
    assert "compiler process died with signal 11" in str(results[0])
    assert isinstance(results[1], Artefact)


def test_an_exception_fails_its_job_with_its_text(compiler: Compiler) -> None:
    failure = only(compiler, job(lambda: nn.Conv2d(3, 2, 5), "too large a window"))
    assert isinstance(failure, CompileFailure)
    assert str(failure).startswith("too large a window: RuntimeError: ")


def test_a_job_that_cannot_be_sent_fails_alone(compiler: Compiler) -> None:
    frame = sys._getframe()
    results = dict(compiler.compile([job(lambda: frame), network()]))  # type: ignore[arg-type,return-value]
    assert "not picklable" in str(results[0])
    assert isinstance(results[1], Artefact)


def test_a_hang_times_out(cache: Path) -> None:
    with Compiler(host_target(), cache=cache, workers=1, timeout_s=0.5) as compiler:
        failure = only(compiler, job(lambda: time.sleep(1000), "hang"))  # type: ignore[arg-type,return-value]
    assert str(failure) == "hang: timed out after 0.5 s"


def test_no_job_is_lost_or_doubled(cache: Path) -> None:
    jobs = [network(), crash(), network(4), crash(), network(5)]
    with Compiler(host_target(), cache=cache, workers=2) as compiler:
        results = list(compiler.compile(jobs))
    assert sorted(index for index, _ in results) == [0, 1, 2, 3, 4]
    assert {index for index, result in results if isinstance(result, CompileFailure)} == {1, 3}


def test_closing_kills_the_workers(cache: Path) -> None:
    with Compiler(host_target(), cache=cache, workers=1) as compiler:
        artefact(compiler, network())
        (worker,) = compiler._workers
        pid = worker.process.pid
    assert pid is not None
    assert not psutil.pid_exists(pid)


def test_a_batch_that_is_given_up_leaves_the_compiler_usable(compiler: Compiler) -> None:
    batch = compiler.compile([network(), network(4)])
    next(batch)
    batch.close()  # type: ignore[attr-defined]  # a generator
    assert isinstance(only(compiler, network()), Artefact)


def test_a_second_batch_waits_for_the_first(compiler: Compiler) -> None:
    batch = compiler.compile([network(), network(4)])
    next(batch)
    with pytest.raises(RuntimeError, match="busy"):
        next(compiler.compile([network()]))
    batch.close()  # type: ignore[attr-defined]  # a generator


def test_an_unknown_target_is_an_error_at_once(cache: Path) -> None:
    with pytest.raises(ValueError, match="nonesuch"):
        Compiler('{"kind": "nonesuch"}', cache=cache)


def test_a_parent_killed_outright_leaves_no_worker(tmp_path: Path) -> None:
    script = """
        import os, sys, time
        from pathlib import Path
        from hwnas.devices.compile import CompileJob, Compiler, host_target
        def main():
            note = Path(sys.argv[1])
            def hang():
                (note / "draft").write_text(str(os.getpid()))
                (note / "draft").rename(note / "pid")
                time.sleep(1000)
            with Compiler(host_target(), cache=note, workers=1) as compiler:
                list(compiler.compile([CompileJob(hang, ((1,),), "hang")]))
        if __name__ == "__main__":
            main()
    """
    (tmp_path / "parent.py").write_text(textwrap.dedent(script))
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), str(tmp_path)])
    try:
        _until(lambda: (tmp_path / "pid").exists() or parent.poll() is not None)
        worker = psutil.Process(int((tmp_path / "pid").read_text()))
    finally:
        parent.kill()
        parent.wait()
    _until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited a minute"
        time.sleep(0.05)


def test_a_program_that_compiled_ends_without_a_complaint(tmp_path: Path) -> None:
    """Workers are killed: what they hold beyond their own memory, the resource tracker would miss at the end."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            from pathlib import Path
            from torch import nn
            from hwnas.devices.compile import Artefact, CompileJob, Compiler, host_target
            if __name__ == "__main__":
                network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Hardsigmoid(), nn.AdaptiveAvgPool2d(1), nn.GELU())
                with Compiler(host_target(), cache=Path({str(tmp_path)!r}), workers=1) as compiler:
                    ((_, found),) = compiler.compile([CompileJob(lambda: network, ((1, 3, 4, 4),), "network")])
                assert isinstance(found, Artefact), found
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr


def test_a_write_that_fails_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    def fail(draft: Path) -> None:
        draft.write_bytes(b"half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        store(tmp_path, Manifest("0" * 32, SHAPES), fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut short", "foreign", "changed"])
def test_a_damaged_file_is_no_library(tmp_path: Path, damage: str) -> None:
    path = store(tmp_path, Manifest("a" * 32, SHAPES), lambda draft: draft.write_bytes(b"\x7fELF code") and None)
    data = path.read_bytes()
    path.write_bytes({"cut short": data[: len(data) // 2], "foreign": b"\x7fELF", "changed": b"\0" + data[1:]}[damage])
    assert not is_whole(path, "a" * 32)
    with pytest.raises(ValueError, match=r"no .*library"):
        read_manifest(path)


def test_a_library_of_another_key_is_not_taken(tmp_path: Path) -> None:
    path = store(tmp_path, Manifest("a" * 32, SHAPES), lambda draft: draft.touch())
    assert is_whole(path, "a" * 32)
    assert not is_whole(path, "b" * 32)
