"""How a board comes to be lent: the command that serves this machine, and what to do on a board without hwnas."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from hwnas.devices import board

BOARD_FILE = Path(board.__file__)


def serve_command(
    key: str,
    *,
    host: str = "0.0.0.0",
    port: int = 9090,
    port_end: int | None = None,
    tracker: str | None = None,
    custom_addr: str | None = None,
) -> list[str]:
    """The command line that lends this machine: for `os.execv`, so that the server begins in a fresh process.

    `tracker` is HOST:PORT; `custom_addr` is the host that the tracker shall tell clients.
    """
    command = [sys.executable, str(BOARD_FILE), "--host", host, "--port", str(port), "--key", key]
    for option, value in (("--port-end", port_end), ("--tracker", tracker), ("--custom-addr", custom_addr)):
        if value is not None:
            command += [option, str(value)]
    return command


def serve_instructions(tracker: str, key: str) -> str:
    """What to run on a board of each sort so that the tracker at HOST:PORT lends it under `key`."""
    port = tracker.rpartition(":")[2]
    pins = " ".join(f"{name}=={version(name)}" for name in ("apache-tvm", "apache-tvm-ffi"))
    return f"""\
A board with Python 3.10 or newer (64-bit ARM or x86 under Linux):
    pip install {pins} numpy
    copy {BOARD_FILE} to the board
    python board.py --tracker {tracker} --key {key}

A board for which there is no wheel (32-bit ARM, RISC-V), or without Python: build TVM's C++ server from TVM's
sources (apps/cpp_rpc: USE_CPP_RPC=ON, and USE_OPENCL=ON for a GPU) for the board and run there
    ./tvm_rpc server --host=0.0.0.0 --port=9090 --tracker={tracker} --key={key}
It says nothing of its chip, and a kernel that hangs occupies it until the session's time is up.

An Android phone by TVM's RPC app (apps/android_rpc), on a cable:
    adb reverse tcp:{port} tcp:{port}
    adb forward tcp:5001 tcp:5001
    in the app: Address 127.0.0.1, Port {port}, Key {key}, then START RPC
or by the C++ server built with the NDK, pushed to /data/local/tmp:
    adb reverse tcp:{port} tcp:{port}
    adb forward tcp:9090 tcp:9090
    adb shell 'cd /data/local/tmp && LD_LIBRARY_PATH=. ./tvm_rpc server --host=0.0.0.0 --port=9090 \\
        --tracker=127.0.0.1:{port} --key={key} --custom-addr=127.0.0.1'

Who reaches a board's port may run any program on it: lend boards in a network that you trust only.
Then, here:
    hwnas devices add NAME --address tracker://{tracker}/{key} --target TARGET
    hwnas devices probe NAME
"""
