"""Does a limit on the 99th percentile hold when its points are measured again?

    python benchmarks/tail_limit.py

Trains and builds the table of the small demonstration on this machine once, with runs enough for a 99th percentile.
Then RUNS times: a limit among the upper bounds of the predicted p99, another each time; search under it with 95 %
confidence, verify, and measure everything that passed once more, in a process of its own and in another order. A point
keeps the limit where its p99 then is not above it, at the speed that the device had for its table: the clock of a
shared machine moves between speeds, and the table's own networks, timed in the same rounds, say which it is. Beside it
the same points as they were then, whatever the clock did, and points of a search that trusts the prediction itself,
unverified. Exits with 1 where fewer than 95 % of the verified points keep their limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from record import Row, record
from scipy.stats import beta

from hwnas.devices import Measurement
from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture
from hwnas.engine.candidates import candidates, front_of, search_run
from hwnas.engine.cli import stages
from hwnas.engine.cli.terminal import Terminal
from hwnas.engine.config import parse_config
from hwnas.engine.front import FrontPoint
from hwnas.engine.hardware import latency_of, open_bench, open_table, visit
from hwnas.engine.measured import long_enough, reading
from hwnas.engine.objective import Quantity
from hwnas.engine.objectives import Estimate
from hwnas.engine.problem import Problem
from hwnas.engine.run import Run, RunError
from hwnas.engine.search import Infeasible
from hwnas.engine.verify import compile_points, verify

RUNS, CONFIDENCE, CANDIDATES = 20, 0.95, 8
TAIL = Quantity("latency_ms", None, 99)


@dataclass(frozen=True)
class Again:
    """What measuring points once more gave: p99 over the limit, at the table's speed and as it was."""

    over: tuple[float, ...]
    raw_over: tuple[float, ...]
    speed: float | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--folder", type=Path, help="keep the run here, and use one that is there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = _run(arguments.folder or Path(scratch))
        stages.train(run, Terminal())
        with open_bench(run) as bench:
            stages.build(run, bench, Terminal()).close()
        _ = run.evaluator, run.data, run.journal  # loaded once, for all that is searched
        rows: list[Row] = [_one(run, number, arguments.runs) for number in range(arguments.runs)]
    verified, trusted = _pooled(rows, "kept", "passed"), _pooled(rows, "kept unverified", "unverified")
    record(
        "tail_limit",
        rows,
        title=f"Points that keep a limit on their p99 when measured again ({CONFIDENCE:.0%} confidence stated)",
        seeds=range(arguments.runs),
        notes={"verified": verified, "unverified, by the prediction itself": trusted, "niceness": -20},
    )
    print(
        f"verified: {verified['kept']} of {verified['points']} keep the limit ({verified['share']:.1%}, 95 % interval "
        f"from {verified['low']:.1%} to {verified['high']:.1%}; stated {CONFIDENCE:.0%}); "
        f"unverified by the prediction itself: {trusted['share']:.1%} of {trusted['points']}"
    )
    return 0 if verified["share"] >= CONFIDENCE else 1


def _run(folder: Path) -> Run:
    text = files("hwnas.engine").joinpath("digits_fast.toml").read_text(encoding="utf-8")
    config = parse_config(text, source="digits_fast.toml")
    section = config.run.model_copy(update={"folder": folder, "cache": folder / "cache", "name": "tail"})
    # timed before all other work of the machine, or a tail tells of its neighbours
    device = config.device.model_copy(update={"percentiles": True, "niceness": -20})
    table = config.table.model_copy(update={"fit_networks": 8, "check_networks": 3})
    again = config.verify.model_copy(update={"candidates": CANDIDATES})
    run = Run(replace(config, run=section, device=device, table=table, verify=again))
    run.begin()
    return run


def _limited(run: Run, limit_ms: float, *, confidence: float, number: int) -> Run:
    search = run.config.search.model_copy(update={"limits": {str(TAIL): limit_ms}, "confidence": confidence})
    seeded = run.config.run.model_copy(update={"seed": run.config.run.seed + number})
    found = run.on(run.config.device.name)  # shares what is loaded
    found.config = replace(run.config, search=search, run=seeded)
    return found


def _one(run: Run, number: int, runs: int) -> Row:
    with open_bench(run) as bench:
        table = open_table(run, bench)
        latency = latency_of(run, table)
        bound = Estimate.of_prediction(TAIL, "ms", latency.predicted(99)).bound(CONFIDENCE)
        low, high = np.quantile(bound(arch.sample(run.space.genes, 500, np.random.default_rng(0))), [0.05, 0.8])
        limit = float(low + (high - low) * number / max(runs - 1, 1))
        limited = _limited(run, limit, confidence=CONFIDENCE, number=number)
        trusting = _limited(run, limit, confidence=0.5, number=number)
        try:
            problem = Problem.of(limited, latency)
            front = front_of(limited, problem, search_run(limited, problem))
            checked = verify(limited, bench, table, front)
            kept = [p for p in (*checked.front.points, *checked.front.dominated) if p.verified]
            replaced, out = checked.front.provenance["replacements"], len(checked.rejected)
        except (Infeasible, RunError) as error:
            print(f"run {number}: {error}")
            kept, replaced, out = [], {"visits": 0, "still": False}, 0
        problem = Problem.of(trusting, latency)
        hoped = problem.points(trusting, candidates(search_run(trusting, problem), CANDIDATES))
        table.close()
    time.sleep(1)
    passed = {point.architecture for point in kept}
    again = _measured_again(limited, [*kept, *(p for p in hoped if p.architecture not in passed)], limit)
    over = dict(zip(again[0], again[1].over, strict=True))
    raw = dict(zip(again[0], again[1].raw_over, strict=True))
    return {
        "limit_ms": round(limit, 5),
        "passed": len(passed),
        "kept": sum(over[a] <= 1 for a in passed),
        "kept as it was": sum(raw[a] <= 1 for a in passed),
        "nearest": round(max((over[a] for a in passed), default=0.0), 4),
        "out": out,
        "further visits": replaced["visits"],
        "still": replaced["still"],
        "speed": None if again[1].speed is None else round(again[1].speed, 3),
        "unverified": len(hoped),
        "kept unverified": sum(over[p.architecture] <= 1 for p in hoped if p.architecture in over),
    }


def _measured_again(run: Run, points: Sequence[FrontPoint], limit: float) -> tuple[list[Architecture], Again]:
    """In a fresh timing process and another order; the libraries come from the cache."""
    section = run.config.verify
    with open_bench(run) as bench:
        table = open_table(run, bench)
        libraries, failed = compile_points(run, bench, points)
        if failed:
            raise RunError(f"{failed[0].architecture}: {failed[0].reason}")
        protocol = replace(
            bench.protocol, rounds=section.rounds, repeats=section.repeats, seed=bench.protocol.seed + 1000
        )
        protocol = long_enough(protocol, [TAIL])
        seen = visit(bench, table, [libraries[p.architecture] for p in points], protocol)
        table.close()
    over, raw = [], []
    for point, result in zip(points, seen.results, strict=True):
        if not isinstance(result, Measurement):
            raise RunError(f"{point.architecture}: {result}")
        read = reading(TAIL, point, result, seen)
        over.append(np.inf if read is None else read.value / limit)
        raw.append(result.percentile_ms(99) / limit)
    return [p.architecture for p in points], Again(tuple(over), tuple(raw), seen.speed)


def _pooled(rows: Sequence[Row], kept: str, points: str) -> dict[str, Any]:
    """Share with its exact interval (Clopper and Pearson, Biometrika 26, 1934)."""
    k, n = (int(sum(float(row[name] or 0) for row in rows)) for name in (kept, points))
    low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0
    return {"kept": k, "points": n, "share": k / max(n, 1), "low": low, "high": high}


if __name__ == "__main__":
    sys.exit(main())
