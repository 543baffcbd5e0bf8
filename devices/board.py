"""The server of a board, whole in this one file, which needs Python and TVM's runtime alone: copy it there and run it.

    python board.py --key rpi4 --tracker 192.168.1.2:9190

It lends the board to one client at a time over TVM's RPC protocol. Every session is a process of its own, so one that
crashes takes nothing else along; it is ended when its time is up and when its client hangs up, a kernel that hangs
included; and whatever happens the board offers itself to the tracker again. Whoever reaches the port may run any code
here: serve in a network that you trust. Only forks are made, so it runs under an emulator of another processor too.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import random
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# TVM's wire protocol: tvm/rpc/base.py
_RPC_MAGIC, _RPC_MISMATCH, _TRACKER_MAGIC = 0xFF271, 0xFF273, 0x2F271
SUCCESS, PUT, REQUEST, UPDATE_INFO, SUMMARY, PENDING_KEYS = 0, 3, 4, 5, 6, 7

_LONGEST = 1 << 20  # bytes of a tracker's message, by its own limit
_PING_S = 2.0  # between two looks at the tracker
_UNUSED_S = 6.0  # after which an offer that a client took and never used is made again
_PATIENCE_S = 5.0  # for a peer that should answer at once
_GRACE_S = 0.3  # for a session to end by itself when its client has hung up
_HANG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR

Address = tuple[str, int]


# ---- this machine ----


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends, however it ends."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG in linux/prctl.h
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the request was in place
        os._exit(0)


def flush_denormals() -> None:
    """Let the processor treat denormal numbers as zero.

    Untrained weights shrink activations from layer to layer down to denormals, which cost up to a hundred times more
    a product; trained weights do not. Flushing makes one time of both.
    """
    words = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}  # place in glibc's fenv_t: MXCSR and FPCR
    if sys.platform != "linux" or platform.machine() not in words:
        return
    place, bits = words[platform.machine()]
    try:
        libm = ctypes.CDLL("libm.so.6")
    except OSError:  # another C library, whose fenv_t is another
        return
    environment = (ctypes.c_uint32 * 16)()
    libm.fegetenv(environment)
    environment[place] |= bits
    libm.fesetenv(environment)


def settle(pinned: bool, niceness: int) -> tuple[int, tuple[int, ...]]:
    """Pin to one core and take the priority asked for, as far as the system permits: (niceness, cores) granted."""
    if not hasattr(os, "sched_setaffinity"):
        return os.getpriority(os.PRIO_PROCESS, 0), ()
    with contextlib.suppress(PermissionError):  # what was granted is returned, and recorded
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    if pinned:
        # the last core: interrupts and start-up threads gather on the first
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    else:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    cores = tuple(sorted(os.sched_getaffinity(0))) if pinned else ()
    return os.getpriority(os.PRIO_PROCESS, 0), cores


def read_facts(core: int = 0, root: Path = Path("/")) -> dict[str, Any]:
    """What the system says of this machine and its state now, as plain JSON values; empty where it does not say.

    Clock and governor are those of `core`; `root` is where /proc and /sys hang.
    """
    frequency = root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
    return {
        "cpuinfo": _text(root / "proc/cpuinfo"),
        "model": _text(root / "proc/device-tree/model"),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "machine": platform.machine(),
        "host": platform.node(),
        "cores": os.cpu_count() or 1,
        "memory": _text(root / "proc/meminfo").partition("\n")[0],
        "governor": _text(frequency / "scaling_governor").strip(),
        "clock_khz": _text(frequency / "scaling_cur_freq").strip(),
        "load": _text(root / "proc/loadavg"),
    }


def _text(path: Path) -> str:
    """What a file of the system says; nothing where it is missing or forbidden."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# ---- the tracker ----


class NoTracker(OSError):  # noqa: N818  # as one says it
    """Something answers where the tracker should be, and it is none."""


@dataclass(frozen=True)
class Boards:
    """What a tracker knows of the boards under one key."""

    places: tuple[str, ...]  # HOST:PORT of each, sorted
    free: int
    pending: int  # requests that wait for one


class Tracker:
    """A connection to TVM's tracker on which no question waits longer than it may. Every trouble is an OSError."""

    def __init__(self, address: Address, timeout_s: float = _PATIENCE_S) -> None:
        self._socket = socket.create_connection(address, timeout_s)
        try:
            self._socket.sendall(struct.pack("<i", _TRACKER_MAGIC))
            greeting = receive(self._socket, 4, timeout_s)
            if greeting != struct.pack("<i", _TRACKER_MAGIC):
                raise NoTracker(f"it says {greeting + self._rest()!r}")
        except TimeoutError:
            self.close()
            raise NoTracker(f"it says nothing within {timeout_s:g} s") from None
        except BaseException:
            self.close()
            raise

    def ask(self, *request: Any, timeout_s: float = _PATIENCE_S) -> Any:
        """The answer to a request. Raises TimeoutError, or another OSError; the connection is useless after either."""
        message = json.dumps(request).encode()
        self._socket.settimeout(timeout_s)
        self._socket.sendall(struct.pack("<i", len(message)) + message)
        (size,) = struct.unpack("<i", receive(self._socket, 4, timeout_s))
        if not 0 < size <= _LONGEST:
            raise NoTracker(f"it announces a message of {size} bytes")
        answer = receive(self._socket, size, _PATIENCE_S)
        try:
            return json.loads(answer)
        except ValueError:
            raise NoTracker(f"it says {answer[:60]!r}") from None

    def boards(self, timeout_s: float = _PATIENCE_S) -> dict[str, Boards]:
        """Boards by key; a key that was only asked for has none."""
        answer = self.ask(SUMMARY, timeout_s=timeout_s)
        try:
            _, summary = answer
            servers = [(info["key"], info["addr"]) for info in summary["server_info"]]
            queues = {
                str(key): (int(each["free"]), int(each["pending"])) for key, each in summary["queue_info"].items()
            }
            places: dict[str, list[str]] = {key: [] for key in queues}
            for name, (host, port) in servers:
                places.setdefault(str(name).removeprefix("server:"), []).append(f"{host}:{port}")
        except (TypeError, ValueError, KeyError, AttributeError):
            raise NoTracker(f"it says {answer!r:.200}") from None
        return {key: Boards(tuple(sorted(places[key])), *queues.get(key, (0, 0))) for key in sorted(places)}

    def fileno(self) -> int:
        """For `select`: the tracker says nothing by itself, so there is something to read only when it is gone."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hang up: what was offered or asked for over this connection is void."""
        self._socket.close()

    def _rest(self) -> bytes:
        with contextlib.suppress(OSError):
            return self._socket.recv(60, socket.MSG_DONTWAIT)
        return b""


def receive(connection: socket.socket, size: int, timeout_s: float) -> bytes:
    """Exactly `size` bytes. Raises TimeoutError where they are late, ConnectionError where they never come."""
    deadline = time.monotonic() + timeout_s
    data = b""
    while len(data) < size:
        connection.settimeout(max(1e-3, deadline - time.monotonic()))
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise ConnectionResetError("the other side hung up")
        data += chunk
        if len(data) < size and time.monotonic() > deadline:
            raise TimeoutError("timed out")
    return data


# ---- a session ----


@dataclass
class Session:
    """A client and the process that serves it."""

    client: socket.socket
    pid: int
    ended: int  # a pipe that closes with the process
    folder: str
    deadline: float | None
    kill_at: float | None = None  # when its client has hung up


def run_session(client: socket.socket, folder: str, port: int) -> None:
    """Serve one client from this very process until it hangs up."""
    import tvm_ffi

    os.chdir(folder)
    flush_denormals()
    register = tvm_ffi.register_global_func
    register("tvm.rpc.server.workpath", lambda name: os.path.join(folder, name), override=True)
    # tvm.runtime.load_module would keep every library for the life of the session
    register("tvm.rpc.server.load_module", lambda name: _load(os.path.join(folder, name)), override=True)
    register("hwnas.board.facts", lambda core: json.dumps(_session_facts(core, port)), override=True)
    register("hwnas.board.settle", _settle, override=True)
    tvm_ffi.get_global_func("rpc.ServerLoop")(client.fileno())


def _load(path: str) -> Any:
    import tvm_ffi

    return tvm_ffi.load_module(path, keep_module_alive=False)


def _session_facts(core: int, port: int) -> dict[str, Any]:
    import tvm

    return {**read_facts(int(core)), "runtime": f"tvm {tvm.__version__}", "board": f"{platform.node()}:{port}"}


def _settle(pinned: int, niceness: int, threads: int) -> str:
    # read when the first parallel loop runs
    os.environ["TVM_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(threads)
    return json.dumps(settle(bool(pinned), int(niceness)))


# ---- the server ----


class Server:
    """Waits for clients, one session at a time, and keeps the board known to the tracker."""

    def __init__(
        self, listening: socket.socket, folder: str, *, key: str, tracker: Address | None, shown_as: str | None
    ) -> None:
        """`shown_as` is the host that the tracker tells clients; the one that it sees, where none is given."""
        self._listening = listening
        self._port = listening.getsockname()[1]
        self._folder = folder
        self._key = key
        self._address = tracker
        self._shown_as = shown_as
        self._tracker: Tracker | None = None
        self._session: Session | None = None
        self._word = "" if tracker else key  # that a client has to know; "" while none is on offer
        self._offered_at = 0.0
        self._trouble = ""  # with the tracker, said once
        self._look_at = 0.0  # when to speak with the tracker next

    def serve(self) -> None:
        """For ever. The session goes down with it."""
        try:
            while True:
                if self._address and time.monotonic() >= self._look_at:
                    self._speak_with_tracker()
                self._wait()
        finally:
            if self._session:
                self._end(self._session, "the server ends")

    def _wait(self) -> None:
        """Until something happens, or something is due."""
        poll = select.poll()
        session = self._session
        due = [self._look_at] if self._address else []
        if session is None:
            poll.register(self._listening, select.POLLIN)
        else:
            poll.register(session.ended, select.POLLIN)
            if session.kill_at is None:
                poll.register(session.client, _HANG_UP)
            due += [moment for moment in (session.deadline, session.kill_at) if moment is not None]
        if self._tracker:
            poll.register(self._tracker, select.POLLIN)
        pause = max(0.0, min(due) - time.monotonic()) if due else None
        events = {file for file, _ in poll.poll(None if pause is None else 1000 * pause)}
        if self._tracker and self._tracker.fileno() in events:
            self._lose_tracker("it hung up")
        if session is not None:
            self._look_after(session, events)
        elif self._listening.fileno() in events:
            self._accept()

    def _look_after(self, session: Session, events: set[int]) -> None:
        now = time.monotonic()
        if session.ended in events:
            self._end(session, None)
        elif session.deadline is not None and now >= session.deadline:
            self._end(session, "its time is up")
        elif session.kill_at is not None and now >= session.kill_at:
            self._end(session, "its client has hung up")
        elif session.client.fileno() in events:
            session.kill_at = now + _GRACE_S

    def _accept(self) -> None:
        client, address = self._listening.accept()
        try:
            timeout_s = self._greet(client)
            if timeout_s is None:
                client.close()
                return
        except (OSError, ValueError) as error:
            _say(f"{address[0]} hung up or is no client: {error}")
            client.close()
            return
        _say(f"session of {address[0]}:{address[1]}")
        self._word = "" if self._address else self._key
        client.settimeout(None)  # the session's process shares this state
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, option):  # a client whose machine is gone is noticed after half a minute
                client.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self._session = self._fork(client, timeout_s)

    def _greet(self, client: socket.socket) -> float | None:
        """Seconds that the client asks for, infinite where it does not say; None where it has not the right word."""
        magic, size = struct.unpack("<ii", receive(client, 8, _PATIENCE_S))
        if magic != _RPC_MAGIC or not 0 <= size <= 4096:
            raise ValueError(f"it begins with {magic:#x}")
        word, *options = receive(client, size, _PATIENCE_S).decode().split()
        if word != f"client:{self._word}" or (self._address and not self._word):
            client.sendall(struct.pack("<i", _RPC_MISMATCH))
            return None
        name = f"server:{self._key}".encode()
        client.sendall(struct.pack("<ii", _RPC_MAGIC, len(name)) + name)
        waited = select.poll()
        waited.register(client, _HANG_UP)
        if waited.poll(0):  # it gave up while it waited for the board
            raise ConnectionResetError("it did not wait")
        given = [float(option[9:]) for option in options if option.startswith("-timeout=")]
        return given[0] if given and given[0] > 0 else float("inf")

    def _fork(self, client: socket.socket, timeout_s: float) -> Session:
        folder = tempfile.mkdtemp(dir=self._folder)
        ended, alive = os.pipe()
        sys.stdout.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                os.setpgid(0, 0)
                die_with_parent(parent)
                os.close(ended)
                self._listening.close()
                if self._tracker:
                    self._tracker.close()
                run_session(client, folder, self._port)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(alive)
        deadline = time.monotonic() + timeout_s if timeout_s < float("inf") else None
        return Session(client, pid, ended, folder, deadline)

    def _end(self, session: Session, why: str | None) -> None:
        """Make sure that the session's process is gone, and offer the board again."""
        for kill in (os.killpg, os.kill):  # the group is there as soon as the process has made it
            with contextlib.suppress(ProcessLookupError):
                kill(session.pid, signal.SIGKILL)
        _, status = os.waitpid(session.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        _say(f"session ended: {why or (f'signal {signal.Signals(-code).name}' if code < 0 else f'status {code}')}")
        if why == "its time is up":
            import tvm_ffi

            told = "RPCSessionTimeoutError: the session's time is up: ask for a longer one"
            with contextlib.suppress(Exception):  # the client may be gone as well
                tvm_ffi.get_global_func("rpc.ReturnException")(session.client.fileno(), told)
        session.client.close()
        os.close(session.ended)
        shutil.rmtree(session.folder, ignore_errors=True)
        self._session = None
        self._look_at = 0.0

    def _speak_with_tracker(self) -> None:
        try:
            if self._tracker is None:
                assert self._address is not None
                self._tracker = Tracker(self._address, 2.0)
                about = {"key": f"server:{self._key}", "addr": [self._shown_as, self._port]}
                self._tracker.ask(UPDATE_INFO, about)
                self._trouble = ""
                _say(f"known to the tracker at {self._address[0]}:{self._address[1]} as {self._key!r}")
            pending = self._tracker.ask(PENDING_KEYS)
            if not isinstance(pending, list):
                raise NoTracker(f"it says {pending!r}")
            now = time.monotonic()
            if self._word and self._word in pending:
                self._offered_at = now
            # an offer that was taken and never used is made again
            if self._session is None and (not self._word or now - self._offered_at > _UNUSED_S):
                self._word = f"{self._key}:{random.SystemRandom().random()}"
                self._tracker.ask(PUT, self._key, [self._port, self._word], self._shown_as)
                self._offered_at = now
            self._look_at = now + _PING_S
        except OSError as error:
            self._lose_tracker(str(error))

    def _lose_tracker(self, why: str) -> None:
        if self._tracker is not None:
            self._tracker.close()
        if why != self._trouble:
            _say(f"no tracker ({why}), tried again every {_PING_S:g} s")
        self._trouble = why
        self._tracker = None
        self._word = ""
        self._look_at = time.monotonic() + _PING_S


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


# ---- the program ----


def listen(host: str, port: int, port_end: int) -> socket.socket:
    """A socket on the first free port of port..port_end. Raises OSError where there is none."""
    for number in range(port, max(port, port_end) + 1):
        family, kind, protocol, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
        except OSError:
            listening.close()
            if number == max(port, port_end):
                raise
            continue
        listening.listen(16)
        return listening
    raise AssertionError("the loop above returns or raises")


def load_tvm() -> None:
    """Import TVM's runtime, and the libraries beside it by which it runs OpenCL, CUDA and the like."""
    os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")  # a compiler would cost 250 MB
    # tvm_ffi imports it where it can, which takes longer than all the rest
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    import tvm

    for file in sorted((Path(tvm.__file__).parent / "lib").glob("libtvm_runtime_*.so")):
        with contextlib.suppress(OSError):  # the driver that it needs is not on this board
            ctypes.CDLL(str(file))


def supervise(server: Server) -> None:
    """Run the server in a process of its own, and another when it ends; SIGTERM, SIGINT and SIGHUP end all."""
    stopping: list[int] = []
    pid = 0

    def stop(number: int, _: Any) -> None:
        stopping.append(number)
        if pid:
            os.kill(pid, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    supervisor = os.getpid()
    while not stopping:
        pid = os.fork()
        if pid == 0:
            _serve_and_exit(server, supervisor)
        if stopping:
            os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
        if not stopping:
            _say(f"the server ended by {os.waitstatus_to_exitcode(status)}, another begins")
            time.sleep(0.5)


def _serve_and_exit(server: Server, supervisor: int) -> None:
    status = 1
    try:
        die_with_parent(supervisor)
        for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all: the supervisor passes them on
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server.serve()
    except SystemExit:
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Lend this board to hwnas over TVM's RPC protocol.")
    parser.add_argument("--host", default="0.0.0.0", help="the address to listen at")
    parser.add_argument("--port", type=int, default=9090)
    parser.add_argument("--port-end", type=int, help="the last port to try (port + 50)")
    parser.add_argument(
        "--tracker", help="HOST:PORT of the tracker that lends the board; without it one asks it directly"
    )
    parser.add_argument("--key", required=True, help="what equal boards share")
    parser.add_argument(
        "--custom-addr", help="the host that the tracker tells clients; the one that it sees if not given"
    )
    options = parser.parse_args()
    if not options.key or any(character.isspace() for character in options.key):
        parser.error(f"a key is one word, not {options.key!r}")
    tracker = None
    if options.tracker:
        host, _, port = options.tracker.rpartition(":")
        if not host or not port.isdigit():
            parser.error(f"--tracker is HOST:PORT, not {options.tracker!r}")
        tracker = (host, int(port))
    last = options.port + 50 if options.port_end is None else options.port_end
    listening = listen(options.host, options.port, last)
    load_tvm()
    print(f"board {options.key} listens on {options.host}:{listening.getsockname()[1]}", flush=True)
    with tempfile.TemporaryDirectory(prefix="hwnas-board-") as folder:
        supervise(Server(listening, folder, key=options.key, tracker=tracker, shown_as=options.custom_addr))


if __name__ == "__main__":
    main()
