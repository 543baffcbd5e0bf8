"""Is an unchanged device left in peace, and one that was slowed down on purpose found out?

    python benchmarks/drift.py

Builds the table of the small demonstration on this machine and checks it 20 times; then 3 times on a runner whose times
are twice as long, and once beside a competing load: two busy processes on the core that is timed on, at a higher
priority than the timing. Exits with 1 where one of the 20 is called moved, or one of the 3 is not. The load is there to
be looked at: a median of single calls of microseconds hardly meets it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from record import Row, record

from hwnas.devices import Measurement, Protocol, RunFailure, Runner
from hwnas.engine.cli import stages
from hwnas.engine.cli.terminal import Terminal
from hwnas.engine.config import parse_config
from hwnas.engine.hardware import Bench, open_bench
from hwnas.engine.run import Run
from hwnas.latency import Drift, LatencyTable, check_drift

UNCHANGED, SLOWED = 20, 3
_BUSY = "import os; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}); os.nice(-20)\nwhile True: pass"


@dataclass(frozen=True)
class Slowed:
    """A device that takes `factor` times as long."""

    runner: Runner
    factor: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
        return [
            replace(m, runs_ms=tuple(self.factor * run for run in m.runs_ms)) if isinstance(m, Measurement) else m
            for m in self.runner.time(artefacts, protocol)
        ]


def main() -> int:
    text = files("hwnas.engine").joinpath("digits_fast.toml").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        config = parse_config(text, source="digits_fast.toml")
        home = Path(folder)
        run = Run(replace(config, run=config.run.model_copy(update={"folder": home, "cache": home / "cache"})))
        run.begin()
        with open_bench(run) as bench:
            table = stages.build(run, bench, Terminal())
            time.sleep(5)
            found = [("unchanged", *_checked(bench, table)) for _ in range(UNCHANGED)]
            slow = replace(bench, runner=Slowed(bench.runner, 2.0))
            found += [("twice as slow", *_checked(slow, table)) for _ in range(SLOWED)]
            with _load(2):
                found.append(("competing load", *_checked(bench, table)))
            table.close()
    rows: list[Row] = [
        {
            "device": state,
            "verdict": drift.check.verdict,
            "speed": round(drift.check.speed, 3),
            "low": round(drift.check.low, 3),
            "high": round(drift.check.high, 3),
            "allowed": round(drift.allowed, 3),
            "looks": drift.looks,
            "seconds": round(seconds, 1),
        }
        for state, drift, seconds in found
    ]
    record("drift", rows, title="Drift checks of one table on this machine")
    judged = [row for row in rows if row["device"] != "competing load"]
    wrong = [row for row in judged if (row["verdict"] == "moved") != (row["device"] == "twice as slow")]
    print(f"{len(wrong)} of {len(judged)} checks are wrong", file=sys.stderr)
    return 1 if wrong else 0


def _checked(bench: Bench, table: LatencyTable) -> tuple[Drift, float]:
    began = time.perf_counter()
    return check_drift(table, bench.runner, bench.compiler.library, bench.protocol), time.perf_counter() - began


@contextmanager
def _load(processes: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(processes):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", _BUSY], env=os.environ))
            stack.callback(busy.kill)
        time.sleep(1)
        yield


if __name__ == "__main__":
    sys.exit(main())
