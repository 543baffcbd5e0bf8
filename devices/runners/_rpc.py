"""A board behind TVM's RPC as the place where artefacts run: loaded by the timing process, by its path."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parents[1]
_PATIENCE_S = 15.0  # for a board that should answer at once; an emulated one takes seconds

Address = tuple[str, int]


class Lost(Exception):  # noqa: N818  # as one says it
    """The device is gone; `device_lost` is the name of the error that the timing process's parent raises."""

    def __init__(self, device_lost: str, message: str) -> None:
        super().__init__(message)
        self.device_lost = device_lost


class Remote:
    """An artefact on the board."""

    def __init__(self, loaded: Any, guard: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._loaded = loaded
        self._guard = guard

    def set_inputs(self, arrays: list[Any]) -> None:
        """Send the inputs of the next calls."""
        with self._guard():
            self._loaded.set_inputs(arrays)

    def set_random_inputs(self) -> None:
        """Send inputs uniform in -1..1 from a fixed seed."""
        with self._guard():
            self._loaded.set_random_inputs()

    def output(self) -> Any:
        """First output of one call."""
        with self._guard():
            return self._loaded.output()

    def time_ms(self, calls: int, flush_mib: int) -> list[float]:
        """Duration of each call by the board's own clock."""
        with self._guard():
            runs_ms: list[float] = self._loaded.time_ms(calls, flush_mib)
            return runs_ms


class Board:
    """A session on a board. `place` is HOST:PORT by which the board was reached."""

    def __init__(
        self, session: Any, place: str, *, target: dict[str, Any], threads: int, runtime: Any, elf: Any
    ) -> None:
        """`runtime` and `elf` are the modules of those names."""
        self._session = session
        self._place = place
        self._threads = threads
        self._runtime = runtime
        self._elf = elf
        self._machine = wanted_machine(target, elf)
        self._core = 0
        self._facts = self._function("hwnas.board.facts")
        self._settle = self._function("hwnas.board.settle")
        kind = target.get("kind", "llvm")
        self._on_cpu = kind in ("llvm", "c")
        self._device = session.cpu(0) if self._on_cpu else session.device(kind, 0)
        self._check(kind)

    def settle(self, pinned: bool, niceness: int) -> tuple[int | None, tuple[int, ...]]:
        """Pin and take a priority there; a server that is not hwnas's own grants neither, and is told the threads."""
        if self._settle is None:
            with self._guard():
                self._set_threads()
            return None, ()
        with self._guard():
            granted, cores = json.loads(self._settle(int(pinned), niceness, self._threads))
        self._core = cores[0] if cores else 0
        return granted, tuple(cores)

    def load(self, path: str) -> Remote:
        """Send a library and load it there; the file does not stay."""
        machine = self._elf.elf_machine(Path(path))
        if machine != self._machine:
            raise ValueError(f"it is for {machine}, and the device's target is for {self._machine}")
        content = Path(path).read_bytes()
        name = hashlib.sha256(content).hexdigest()[:32] + Path(path).suffix
        with self._guard():
            self._session.upload(bytearray(content), name)
            try:
                module = self._session.load_module(name)
            finally:
                self._session.remove(name)
            return Remote(self._runtime.Loaded(module, self._device), self._guard)

    def facts(self) -> dict[str, Any]:
        """What the board says of itself, and "place"; "accelerator" where the target is none of its processors."""
        with self._guard():
            facts = json.loads(self._facts(self._core)) if self._facts else {}
            if not self._on_cpu:
                facts["accelerator"] = str(self._device.device_name)
        return {**facts, "place": self._place}

    def _set_threads(self) -> None:
        big_cores_first = 1  # ThreadGroup::AffinityMode::kBig of tvm/runtime/threading_backend.h
        configure = self._function("runtime.config_threadpool")
        if configure is not None:
            configure(big_cores_first, self._threads)

    def _function(self, name: str) -> Any:
        try:
            return self._session.get_function(name)
        except AttributeError:  # a server that is not hwnas's own
            return None
        except Exception as error:
            raise Lost("BoardLostError", f"the board at {self._place} hung up: {_last(error)}") from None

    def _check(self, kind: str) -> None:
        """Raises Lost where the board is another than the target's, before anything is sent."""
        machine = self._elf.machine_family(json.loads(self._facts(0))["machine"]) if self._facts else self._machine
        if machine != self._machine:
            raise Lost(
                "WrongBoardError",
                f"the board at {self._place} is {machine}, and the device's target is for {self._machine}: "
                "correct the target's mtriple, or the address",
            )
        if not self._on_cpu and not self._device.exist:
            raise Lost(
                "WrongBoardError",
                f"the board at {self._place} shows no {kind} device: install its driver there and a TVM runtime "
                f"built for {kind}",
            )

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """An error of an artefact passes; a session that has ended ends this process, as a crash here would.

        Whether the artefact or the board was at fault shows when a fresh process asks for the board again.
        """
        try:
            yield
        except Exception as error:
            try:
                self._session.get_function("tvm.rpc.server.upload")
            except Exception:
                print(f"its process on {self._place} ended ({_last(error)})", file=sys.stderr, flush=True)
                os._exit(1)
            raise


def wanted_machine(target: dict[str, Any], elf: Any) -> str:
    """The machine that a target's libraries are for, by `elf`'s names; a target without a triple means this one."""
    host = target if target.get("kind") == "llvm" else target.get("host", {})
    family: str = elf.machine_family(str(host.get("mtriple") or platform.machine()).partition("-")[0])
    return "arm" if family == "thumb" else family


def _last(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


# ---- to a session ----


def connect(place: Address, key: str, session_s: float, patience_s: float) -> Any:
    """A session. Raises Lost: what the server said, or NoFreeBoardError where it said nothing in time."""
    from tvm import rpc

    outcome: list[Any] = []

    def ask() -> None:
        try:
            # TVM's Android app reads whole seconds only
            outcome.append(rpc.connect(*place, key, session_timeout=max(1, round(session_s))))
        except Exception as error:
            outcome.append(error)

    # TVM's client waits for ever for a server that is silent
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience_s)
    where = _text(place)
    if not outcome:
        raise Lost(
            "NoFreeBoardError",
            f"the board at {where} does not answer within {patience_s:g} s: it serves another client, wait for it",
        )
    answer = outcome[0]
    if not isinstance(answer, Exception):
        return answer
    said = _last(answer)
    if "matches key" in said:
        raise Lost(
            "UnknownKeyError",
            f"the board at {where} does not answer to the key {key!r}: correct it, or ask the tracker that lends it",
        )
    if "is not TVM RPC server" in said:
        raise Lost("BoardLostError", f"what answers at {where} is no TVM RPC server: correct the address")
    raise Lost("BoardLostError", f"no board answers at {where} ({said}): start `hwnas devices serve` there")


def borrow(board: Any, tracker: Address, key: str, *, session_s: float, wait_s: float, again: str) -> tuple[Any, str]:
    """A session and the HOST:PORT that it is with; that of `again`, where one is given. Raises Lost.

    `board` is the module of board.py.
    """
    deadline = time.monotonic() + wait_s
    others: list[tuple[Address, str]] = []
    try:
        while True:
            place, word = _grant(board, tracker, key, deadline, again)
            if again and _text(place) != again:
                others.append((place, word))  # held, so that the next one is another
                continue
            try:
                return connect(place, word, session_s, _PATIENCE_S), _text(place)
            except Lost as lost:
                # where the word is wrong the board made its offer anew meanwhile; one that is dead is not offered twice
                other = lost.device_lost == "UnknownKeyError" or (not again and _any_free(board, tracker, key))
                if not other or time.monotonic() > deadline:
                    raise Lost("BoardLostError", f"the tracker lent a board that is not there: {lost}") from None
    finally:
        for place, word in others:
            with contextlib.suppress(Lost):  # to come and go gives it back at once
                connect(place, word, 1.0, _PATIENCE_S)


def _any_free(board: Any, tracker: Address, key: str) -> bool:
    with _asking(board, tracker) as asking:
        boards = asking.boards()
    return key in boards and boards[key].free > 0


def _grant(board: Any, tracker: Address, key: str, deadline: float, again: str) -> tuple[Address, str]:
    """Where a board waits for us, and the word that it wants to hear."""
    began = time.monotonic()
    while True:
        with _asking(board, tracker) as asking:
            boards = asking.boards()
            known = boards[key].places if key in boards else ()
            if known and (not again or again in known):
                try:
                    code, grant = asking.ask(board.REQUEST, key, "", 1, timeout_s=max(0.1, deadline - time.monotonic()))
                except TimeoutError:
                    break
                if code != board.SUCCESS:
                    raise Lost("NoTrackerError", f"the tracker at {_text(tracker)} refuses a request: {grant!r}")
                host, port, word = grant
                return (str(host), int(port)), str(word)
        if not again:
            names = ", ".join(sorted(name for name, found in boards.items() if found.places)) or "none"
            raise Lost(
                "UnknownKeyError",
                f"the tracker at {_text(tracker)} knows no board under the key {key!r} (known: {names}): "
                f"correct the key, or run `hwnas devices serve --tracker {_text(tracker)} --key {key}` on the board",
            )
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    if again:
        raise Lost("BoardLostError", f"the board at {again} did not come back within {time.monotonic() - began:.0f} s")
    with _asking(board, tracker) as asking:
        found = asking.boards().get(key)
    busy = ", ".join(found.places) if found else "gone meanwhile"
    others = max(0, found.pending - 1) if found else 0  # the tracker still counts our own request
    raise Lost(
        "NoFreeBoardError",
        f"no board under {key!r} became free within {time.monotonic() - began:.0f} s "
        f"(busy: {busy}; {others} others wait): wait for them, or add a board under this key",
    )


@contextlib.contextmanager
def _asking(board: Any, tracker: Address) -> Iterator[Any]:
    try:
        with contextlib.closing(board.Tracker(tracker)) as asking:
            yield asking
    except board.NoTracker as error:
        raise Lost("NoTrackerError", f"what answers at {_text(tracker)} is no TVM tracker: {error}") from None
    except OSError as error:
        raise Lost(
            "NoTrackerError",
            f"no tracker at {_text(tracker)} ({error}): start one with `hwnas devices tracker`, or correct the address",
        ) from None


def _text(place: Address) -> str:
    return f"{place[0]}:{place[1]}"


def open_bench(arguments: dict[str, Any]) -> Board:
    """`arguments`: "target" (JSON text), "threads", "session_s", "wait_s", "key", "again" (HOST:PORT or nothing),
    and "tracker" or "server", a list of host and port."""
    timing = sys.modules["__main__"]
    board, runtime, elf = (
        timing.module_at(str(_FOLDER / file)) for file in ("board.py", "runtimes/tvm.py", "compile/elf.py")
    )
    key, session_s, wait_s = arguments["key"], arguments["session_s"], arguments["wait_s"]
    if arguments["tracker"]:
        host, port = arguments["tracker"]
        session, place = borrow(board, (host, port), key, session_s=session_s, wait_s=wait_s, again=arguments["again"])
    else:
        host, port = arguments["server"]
        session, place = connect((host, port), key, session_s, wait_s), _text((host, port))
    target = json.loads(arguments["target"])
    return Board(session, place, target=target, threads=arguments["threads"], runtime=runtime, elf=elf)
