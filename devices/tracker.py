"""TVM's tracker, which lends boards by their key: started here, and asked without ever waiting long."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable

from hwnas.devices.board import Boards, NoTracker, Tracker
from hwnas.devices.device import NoTrackerError


def tracker_summary(host: str, port: int, timeout_s: float = 5.0) -> dict[str, Boards]:
    """Boards by key, sorted. Raises NoTrackerError that says what answered, where it is no tracker."""
    try:
        tracker = Tracker((host, port), timeout_s)
        try:
            return tracker.boards(timeout_s)
        finally:
            tracker.close()
    except NoTracker as error:
        raise NoTrackerError(f"what answers at {host}:{port} is no TVM tracker: {error}: correct the address") from None
    except OSError as error:
        raise NoTrackerError(
            f"no tracker at {host}:{port} ({error}): start one with `hwnas devices tracker`, or correct the address"
        ) from None


def serve_tracker(host: str, port: int, *, port_end: int | None = None, started: Callable[[int], None]) -> None:
    """Be the tracker, in this process and for ever, at the first free port from `port` on; `started` hears which.

    SIGTERM and SIGINT end the process. Raises ValueError where no port is free.
    """
    os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")  # a tracker compiles nothing
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # tvm_ffi imports it where it can
    from tvm.rpc.tracker import PopenTrackerServerState

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # its own way to stop needs a connection to itself
    state = PopenTrackerServerState(host, port, (port + 10 if port_end is None else port_end) + 1, silent=True)
    started(state.port)
    while state.thread.is_alive():
        time.sleep(0.5)
    raise RuntimeError("the tracker ended by itself")


def main() -> None:
    """`python -m hwnas.devices.tracker`: the tracker alone."""
    parser = argparse.ArgumentParser(description="Lend boards to hwnas by their key.")
    parser.add_argument("--host", default="0.0.0.0", help="the address to listen at")
    parser.add_argument("--port", type=int, default=9190)
    parser.add_argument("--port-end", type=int, help="the last port to try (port + 10)")
    options = parser.parse_args()
    serve_tracker(
        options.host,
        options.port,
        port_end=options.port_end,
        started=lambda port: print(f"tracker listens on {options.host}:{port}", flush=True),
    )


if __name__ == "__main__":
    main()
