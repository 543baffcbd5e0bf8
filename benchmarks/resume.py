"""Searches that are killed: do they end in the same front, is an evaluation lost or doubled, and what does it cost?

    python benchmarks/resume.py

Kills: a supernet is trained on the digits; 20 searches of accuracy and MACs, each with a seed and a journal of its own,
are killed with SIGKILL at a random moment and run again. Every front must equal that of the same search left alone,
bit for bit. Workers: two processes share a search, one of them is killed at a random moment; on SQLite and on
PostgreSQL. Every candidate must have one outcome, and what both evaluated may be no more than what the kill
interrupted. Cost: candidates a CPU-second of a search whose costs are free, without a record and with one, and
CPU-milliseconds a candidate that is claimed and kept by itself. Exits with 1 where a front differs, or an evaluation
is lost or doubled.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from uuid import uuid4

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # CPU time of one thread is what is compared
sys.path.insert(0, str(Path(__file__).parents[1]))  # before a distribution that brings a folder "tests"
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pytest
import torch
from record import Row, record
from sqlalchemy import select
from torch import nn

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms import make
from hwnas.engine.architecture import Architecture, FloatArray, Gene, IntArray
from hwnas.engine.dataset import Dataset
from hwnas.engine.evaluation.complexity import block_macs
from hwnas.engine.evaluation.inherited import InheritedAccuracy
from hwnas.engine.identity import SearchIdentity
from hwnas.engine.journal import CLAIMS, OUTCOMES, Journal
from hwnas.engine.objective import Objective
from hwnas.engine.record import SearchRecord
from hwnas.engine.search import Evaluated, search
from hwnas.engine.spaces.mobilenet_v3 import MobileNetV3Space
from hwnas.engine.training.trainer import Trainer, TrainingConfig
from tests.engine.spaces import mobilenet
from tests.engine.training_runs import dataset
from tests.postgresql import running

KILLS, PAIRS = 20, 5  # searches killed; pairs of workers of which one is killed, on each database
EVALUATIONS, POPULATION, BATCH = 80, 16, 4
REPEATS = 3
FREE = {100: 4_000, 1000: 8_000}  # population -> candidates of the searches whose costs are free
ALONE = 200  # candidates that are claimed and kept one by one


# ---- a search of accuracy and MACs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    space: MobileNetV3Space
    supernet: nn.Module
    data: Dataset

    def search(self, location: str, seed: int, log: Path, *, batch: int = BATCH) -> Evaluated:
        """Search; one line in `log` for every accuracy that was computed."""

        def note(architecture: Architecture, _: float) -> None:
            with log.open("a") as file:
                file.write(f"{os.getpid()} {architecture}\n")

        journal = Journal(location)
        accuracy = InheritedAccuracy(self.space, self.supernet, self.data, journal, calibration=64, on_evaluation=note)
        macs = AdditiveCost.of(self.space, block_macs)
        objectives = Objective("accuracy", "", accuracy.errors, maximised=True), Objective("macs", "", macs, cheap=True)
        genes, context = self.space.genes, accuracy.context
        identity = SearchIdentity.of("nsga2", genes, objectives, population=POPULATION, seed=seed, context=context)
        try:
            return search(
                make("nsga2", genes, population=POPULATION, rng=np.random.default_rng(seed)),
                objectives,
                evaluations=EVALUATIONS,
                record=SearchRecord(journal, identity, batch=batch),
            )
        finally:
            journal.close()


def trained(folder: Path) -> Setting:
    torch.manual_seed(0)
    space, data = mobilenet(), dataset(500)
    config = TrainingConfig(epochs=6, batch=32, warmup_epochs=1, largest_epochs=1, evaluate_every=6)
    trainer = Trainer(space, space.supernet(), data, config, folder)
    history = trainer.run()
    print(f"supernet: {history[-1].accuracy_largest:.3f} largest, {history[-1].accuracy_smallest:.3f} smallest")
    return Setting(space, trainer.supernet.eval(), data)


def started(work: Callable[[], object]) -> BaseProcess:
    process = get_context("fork").Process(target=work)  # importing torch anew takes seconds
    process.start()
    return process


def killed_after(process: BaseProcess, seconds: float) -> bool:
    """Whether it was still at work."""
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def same(first: Evaluated, second: Evaluated) -> bool:
    fronts = [evaluated.layers()[0].tolist() for evaluated in (first, second)]
    bits = [(e.X.tobytes(), e.costs.tobytes(), e.violation.tobytes()) for e in (first, second)]
    return fronts[0] == fronts[1] and bits[0] == bits[1]


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


# ---- killed and run again -------------------------------------------------------------------------------------------


def killed_once(setting: Setting, folder: Path, seed: int, rng: np.random.Generator) -> Row:
    began = time.perf_counter()
    whole = setting.search(str(folder / "whole.sqlite"), seed, folder / "whole.log")
    seconds = time.perf_counter() - began
    at, path, log = rng.uniform(0, seconds), str(folder / "killed.sqlite"), folder / "killed.log"
    # the child is forked: what it needs is already there, so its search takes as long as the one before
    at_work = killed_after(started(lambda: setting.search(path, seed, log)), at)
    before = len(lines(log))
    resumed = setting.search(path, seed, log)
    computed = Counter(line.split(" ", 1)[1] for line in lines(log))
    return {
        "what": "killed once",
        "database": "sqlite",
        "seed": seed,
        "killed_at": round(at / seconds, 3),
        "at_work": at_work,
        "evaluated_before": before,
        "same_front": same(resumed, whole),
        "lost": len(whole) - outcomes(path)[0],
        "doubled": computed.total() - len(computed),
        "taken_over": outcomes(path)[1],
    }


def killed_worker(setting: Setting, folder: Path, location: str, seed: int, rng: np.random.Generator) -> Row:
    began = time.perf_counter()
    whole = setting.search(str(folder / "whole.sqlite"), seed, folder / "whole.log")
    seconds = time.perf_counter() - began
    log = folder / "shared.log"
    Journal(location).close()
    workers = [started(lambda: setting.search(location, seed, log, batch=1)) for _ in range(2)]
    at = rng.uniform(0, 0.7 * seconds)  # two of them take less
    at_work = killed_after(workers[0], at)
    before = len(lines(log))
    workers[1].join()
    if workers[1].exitcode != 0:
        raise RuntimeError(f"the worker that was left alone ended with {workers[1].exitcode}")
    found = setting.search(location, seed, folder / "again.log")
    computed = Counter(line.split(" ", 1)[1] for line in lines(log))
    return {
        "what": "one of two workers killed",
        "database": "postgresql" if location.startswith("postgresql") else "sqlite",
        "seed": seed,
        "killed_at": round(at / seconds, 3),
        "at_work": at_work,
        "evaluated_before": before,
        "same_front": same(found, whole),
        "lost": len(whole) - outcomes(location)[0] + len(lines(folder / "again.log")),
        "doubled": computed.total() - len(computed),
        "taken_over": outcomes(location)[1],
    }


def outcomes(location: str) -> tuple[int, int]:
    """Candidates with an outcome, and claims that another process took over."""
    journal = Journal(location)
    with journal.database.reading() as connection:
        kept = connection.execute(select(OUTCOMES.c.round, OUTCOMES.c.row)).all()
        again = connection.execute(select(CLAIMS.c.row).where(CLAIMS.c.attempt > 1)).all()
    journal.close()
    return len(kept), len(again)


# ---- what it costs --------------------------------------------------------------------------------------------------

GENES = tuple(Gene(f"g{i}", tuple(range(6))) for i in range(45))
TABLES, COLUMNS = np.random.default_rng(0).random((2, len(GENES), 6)), np.arange(len(GENES))


def table_sum(k: int) -> Callable[[IntArray], FloatArray]:
    return lambda X: TABLES[k][COLUMNS, X].sum(1)


SUMS = tuple(Objective(f"sum{k}", "", table_sum(k), cheap=True) for k in range(2))


def cpu_seconds(journal: Journal | None, population: int, candidates: int, objectives: Sequence[Objective]) -> float:
    made = None
    if journal is not None:
        identity = SearchIdentity.of("nsga2", GENES, objectives, population=population, seed=0, context="sums")
        made = SearchRecord(journal, identity)
    algorithm = make("nsga2", GENES, population=population, rng=np.random.default_rng(0))
    began = time.process_time()
    search(algorithm, objectives, evaluations=candidates, record=made)
    return time.process_time() - began


def costs(locations: dict[str, Callable[[], str]]) -> list[Row]:
    """Medians over repeats in which the contestants take turns; CPU time of this process, not of a server."""
    figures: dict[tuple[str, str, int], list[float]] = {}
    claimed = tuple(replace(objective, cheap=False) for objective in SUMS)
    for _ in range(REPEATS):
        for population, candidates in FREE.items():
            figures.setdefault(("no record", "", population), []).append(
                candidates / cpu_seconds(None, population, candidates, SUMS)
            )
            for name, fresh in locations.items():
                journal = Journal(fresh())
                for what in ("recorded", "read again"):
                    figures.setdefault((what, name, population), []).append(
                        candidates / cpu_seconds(journal, population, candidates, SUMS)
                    )
                journal.close()
        for name, fresh in locations.items():
            journal = Journal(fresh())
            figures.setdefault(("claimed one by one", name, 100), []).append(
                ALONE / cpu_seconds(journal, 100, ALONE, claimed)
            )
            journal.close()
    return [
        {
            "what": what,
            "database": database,
            "population": population,
            "candidates_cpu_s": round(median(found)),
            "least": round(min(found)),
            "most": round(max(found)),
            "cpu_ms_each": round(1000 / median(found), 4),
        }
        for (what, database, population), found in figures.items()
    ]


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, Callable[[], str]]]:
    """Database -> makes the location of an empty one."""

    def sqlite() -> str:
        return str(folder / f"{uuid4().hex}.sqlite")

    try:
        with running() as server:

            def postgresql() -> str:
                name = f"resume_{uuid4().hex}"
                server.run(f"CREATE DATABASE {name}")
                return server.url(name)

            yield {"sqlite": sqlite, "postgresql": postgresql}
    except pytest.skip.Exception as reason:
        print(f"PostgreSQL is left out: {reason}")
        yield {"sqlite": sqlite}


def main() -> int:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name, databases(Path(name)) as locations:
        setting = trained(Path(name) / "supernet")
        rows = []
        for seed in range(KILLS):
            folder = Path(name) / f"kill{seed}"
            folder.mkdir()
            rows.append(killed_once(setting, folder, seed, rng))
            print(rows[-1], file=sys.stderr)
        for database, fresh in locations.items():
            for seed in range(PAIRS):
                folder = Path(name) / f"{database}{seed}"
                folder.mkdir()
                rows.append(killed_worker(setting, folder, fresh(), seed, rng))
                print(rows[-1], file=sys.stderr)
        loop = costs(locations)
    at_work = sum(bool(row["at_work"]) for row in rows)
    notes = {
        "loop": loop,
        "killed at work": at_work,
        "settings": {"evaluations": EVALUATIONS, "population": POPULATION, "batch": BATCH, "batch of workers": 1},
        "space": f"{len(setting.space.genes)} genes, digits",
    }
    record("resume", rows, title=f"{len(rows)} searches, {at_work} killed at work", seeds=range(KILLS), notes=notes)
    for row in loop:
        print(row)
    # a kill may interrupt one evaluation of the process that it hits, never one that was kept
    whole = all(row["same_front"] and row["lost"] == 0 and row["doubled"] == 0 for row in rows)
    return 0 if whole and at_work >= KILLS / 2 else 1


if __name__ == "__main__":
    sys.exit(main())
