"""Accuracies of many subnets: one by one, with shared prefixes, and raced against what is known.

    python benchmarks/evaluation.py [prefixes] [racing] [real]

Prefixes: 100 random subnets, and a generation of 100 that NSGA-II asks for once it has converged (accuracy and MACs;
the hypervolume grew by less than 0.1 % in five generations), a search a seed. They are evaluated one by one, together,
and together with what is kept of the generations before; MACs are counted where they are executed, calibration
included. Racing: searches of equal budgets and seeds, in full and raced, over simulated networks (races.py) and, as
`real`, over a trained supernet; images are counted with those of the calibration. Wrong stops: 200 simulated races with
known accuracies, and 200 of real answers in other orders. Exits with 1 if the converged generation does not take SHARED
times fewer MACs or its accuracies differ, if races save less than RACED or cost more than LOST of the hypervolume, or
if they stop candidates wrongly more often than stated.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms import make
from hwnas.engine.architecture import Architecture, BoolArray
from hwnas.engine.config import parse_config
from hwnas.engine.evaluation.complexity import block_macs
from hwnas.engine.evaluation.inherited import InheritedAccuracy
from hwnas.engine.evaluation.prefix import Memory
from hwnas.engine.evaluation.racing import RacedAccuracy
from hwnas.engine.front import hypervolume
from hwnas.engine.journal import Journal
from hwnas.engine.objective import Objective
from hwnas.engine.run import Run
from hwnas.engine.search import search

sys.path.insert(0, str(Path(__file__).parent))
import races
from races import ERROR, POPULATION, Remembering
from record import record

SHARED, RACED, LOST = 3.0, 2.0, 0.01
GENERATION, REPEATS, STEADY = 100, 1, 5
SEEDS, REAL_SEEDS = 5, 5
EVALUATIONS = 1000
RUNS = 200  # of races
ROOT = Path(__file__).resolve().parents[1]
FASHION = ROOT.parent / "shared" / "data" / "sets" / "fashion_mnist.npz"

Measured = dict[str, Any]


# ---- trained supernets ----------------------------------------------------------------------------------------------


def trained(path: Path, name: str) -> Run:
    """The run of a configuration under another name, its supernet trained or read."""
    text = path.read_text(encoding="utf-8").replace("../shared/data/sets/fashion_mnist.npz", str(FASHION))
    lines = [
        f'name = "{name}"' if line.startswith("name = ") and i < 4 else line for i, line in enumerate(text.splitlines())
    ]
    run = Run(parse_config("\n".join(lines), source=str(path)))
    run.begin()
    run.train(on_epoch=lambda epoch: print(f"{name}: epoch {epoch.epoch}, loss {epoch.loss:.3f}", flush=True))
    return run


def evaluator(run: Run, folder: Path, kind: type[InheritedAccuracy] = InheritedAccuracy, **more: Any) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(f"sqlite:///{folder / 'journal.sqlite'}")
    return kind(run.space, run.supernet, run.data, journal, **more)


# ---- shared prefixes ------------------------------------------------------------------------------------------------


class Macs(TorchDispatchMode):
    """Counts the multiply-accumulates of the convolutions and matrix products that are executed."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func.name()
        if name in ("aten::conv2d", "aten::convolution"):
            self.count += output.numel() * args[1][0].numel()
        elif name in ("aten::mm", "aten::addmm", "aten::linear", "aten::matmul"):
            self.count += output.numel() * args[-2 if name == "aten::mm" else 1].shape[-1]
        return output


def converged_generation(run: Run, accuracy: InheritedAccuracy, seed: int) -> tuple[list[Architecture], int]:
    """What NSGA-II asks for once its hypervolume stands still, and how many it had evaluated by then."""
    macs = AdditiveCost.of(run.space, block_macs)
    algorithm = make("nsga2", run.space.genes, population=GENERATION, rng=np.random.default_rng(seed))
    largest = float(macs(np.array([arch.extreme(run.space.genes, largest=True)]))[0])
    costs, grown = np.zeros((0, 2)), list[float]()
    while len(grown) <= STEADY or grown[-1] > 1.001 * grown[-1 - STEADY]:
        X = algorithm.ask()
        told = np.stack([accuracy.errors(X), macs(X) / largest], axis=1)
        algorithm.tell(X, told, np.zeros(len(X)))
        costs = np.concatenate([costs, told])
        grown.append(hypervolume(costs, (1.0, 1.1)))
    return [arch.to_architecture(row) for row in algorithm.ask()], len(costs)


def compared(run: Run, rows: list[Architecture], accuracy: InheritedAccuracy, memory: Memory) -> list[Measured]:
    """One generation one by one, together, and together with what is kept of the generations before, in turn."""
    split = run.data.validation

    def one_by_one() -> dict[Architecture, float]:
        return {row: accuracy.accuracy(row, split) for row in rows}

    def together(kept: Memory) -> dict[Architecture, float]:
        accuracy.remember(kept)
        return {row: int(right.sum()) / len(split) for row, right in accuracy.answers(rows, split)}

    ways: dict[str, Callable[[], dict[Architecture, float]]] = {
        "one by one": one_by_one,
        "together": lambda: together(Memory(accuracy.budget_mib)),
        "after others": lambda: together(memory.copy()),
    }
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    found, macs = {}, {}
    for name, way in ways.items():  # also the warm-up
        with Macs() as counter:
            found[name] = way()
        macs[name] = counter.count
    for _ in range(REPEATS):
        for name, way in ways.items():
            start, clock = time.process_time(), time.perf_counter()
            way()
            cpu[name].append(time.process_time() - start)
            wall[name].append(time.perf_counter() - clock)
    return [
        {
            "evaluated": name,
            "subnets": len(rows),
            "accuracies that differ": sum(found[name][row] != found["one by one"][row] for row in rows),
            "GMACs": macs[name] / 1e9,
            "fewer MACs": macs["one by one"] / macs[name],
            "CPU s": median(cpu[name]),
            "CPU ratio": median(a / b for a, b in zip(cpu["one by one"], cpu[name], strict=True)),
            "wall ratio": median(a / b for a, b in zip(wall["one by one"], wall[name], strict=True)),
            "cpu_s": cpu[name],
            "wall_s": wall[name],
        }
        for name in ways
    ]


# ---- racing ---------------------------------------------------------------------------------------------------------


def raced_generation(run: Run, folder: Path, answered: dict[Architecture, BoolArray]) -> Measured:
    """CPU time of the last generation of a search with real networks: in full and raced, each with shared prefixes."""
    macs = AdditiveCost.of(run.space, block_macs)
    memory = evaluator(run, folder / "memory", Remembering, answered=answered)
    objectives = [Objective("accuracy", "", memory.errors), Objective("macs", "", macs, cheap=True)]
    algorithm = make("nsga2", run.space.genes, population=POPULATION, rng=np.random.default_rng(0))
    before = search(algorithm, objectives, evaluations=EVALUATIONS - POPULATION)
    X = algorithm.ask()
    plain = evaluator(run, folder / "plain")
    race = RacedAccuracy(evaluator(run, folder / "known", Remembering, answered=answered), (macs,), error=ERROR)
    race.errors(before.X)  # what is known already
    race.evaluator = evaluator(run, folder / "raced")
    cpu = {}
    for name, cost in (("full", plain.errors), ("raced", race.errors)):
        start = time.process_time()
        cost(X)
        cpu[name] = time.process_time() - start
    return {"CPU s in full": cpu["full"], "CPU s raced": cpu["raced"], "CPU ratio": cpu["full"] / cpu["raced"]}


# ---- verdict --------------------------------------------------------------------------------------------------------


def prefixes(folder: Path) -> list[str]:
    """Record the two generations, a search a seed; what they missed."""
    run = trained(ROOT / "examples" / "digits.toml", "digits")
    rows: list[Measured] = []
    notes: Measured = {"architectures": arch.size(run.space.genes), "evaluated before the converged generation": []}
    for seed in range(SEEDS):
        accuracy = evaluator(run, folder / f"digits{seed}")
        generation, evaluated = converged_generation(run, accuracy, seed)
        memory = accuracy.memory().copy()
        drawn = arch.sample(run.space.genes, GENERATION, np.random.default_rng([1, seed]))
        first = list(dict.fromkeys(arch.to_architecture(row) for row in drawn))
        random = compared(run, first, accuracy, Memory(accuracy.budget_mib))[:2]
        rows += [{"seed": seed, "generation": "first, random", **each} for each in random]
        converged = compared(run, generation, accuracy, memory)
        rows += [{"seed": seed, "generation": "converged", **each} for each in converged]
        notes["evaluated before the converged generation"].append(evaluated)
        notes |= {"budget_mib": accuracy.budget_mib, "kept_mib": memory.mib}
    ratios: dict[str, list[float]] = {}
    for row in rows:
        ratios.setdefault(f"{row['generation']}, {row['evaluated']}", []).append(row["fewer MACs"])
    notes["fewer MACs: median, least, most"] = {k: (median(v), min(v), max(v)) for k, v in ratios.items()}
    record("evaluation_prefixes", rows, title=f"a generation of {GENERATION}", seeds=range(SEEDS), notes=notes)
    print(notes["fewer MACs: median, least, most"])
    missed = [f"{row['accuracies that differ']} accuracies differ" for row in rows if row["accuracies that differ"]]
    if median(ratios["converged, after others"]) < SHARED:
        missed.append(f"{median(ratios['converged, after others']):.2f} times fewer MACs")
    return missed


def racing(folder: Path) -> list[str]:
    """Record simulated searches and wrong stops; what they missed."""
    outcomes = []
    for seed in range(SEEDS):
        answered: dict[Architecture, BoolArray] = {}
        outcomes.append(
            races.raced_search(
                seed,
                races.simulated(folder / f"price{seed}", seed)[1],
                lambda way, seed=seed, answered=answered: races.simulated(folder / f"{way}{seed}", seed, answered)[0],
                EVALUATIONS,
            )
        )
    record("evaluation_racing_simulated", outcomes, title="searches in full and raced, simulated", seeds=range(SEEDS))
    stops = races.wrong_stops("simulated", races.simulated_race, RUNS)
    record("evaluation_wrong_stops", [stops], title="candidates that no rival beats, stopped", seeds=range(RUNS))
    return _missed(outcomes, [stops])


def real(folder: Path) -> list[str]:
    """Record searches over a trained supernet, and wrong stops of its answers; what they missed."""
    if not FASHION.exists():
        print(f"{FASHION} is not there: no search of a trained supernet was raced")
        return []
    run = trained(Path(__file__).parent / "fashion_mnist.toml", "fashion_mnist")
    answered: dict[Architecture, BoolArray] = {}
    macs = AdditiveCost.of(run.space, block_macs)
    outcomes: list[Measured] = []

    def kept(**notes: Any) -> None:
        title = "searches of a trained supernet in full and raced"
        record("evaluation_racing", outcomes, title=title, seeds=range(len(outcomes)), notes=notes)

    for seed in range(REAL_SEEDS):
        found = races.raced_search(
            seed,
            macs,
            lambda way, seed=seed: evaluator(run, folder / f"{way}{seed}", Remembering, answered=answered),
            EVALUATIONS,
        )
        outcomes.append(found)
        kept()
    rows = sorted(answered)
    stops = races.wrong_stops("real", races.real_race(rows, answered, macs(np.array(rows))), RUNS)
    generation = raced_generation(run, folder, answered)
    kept(**{"one generation with real networks": generation, "networks": len(answered), "wrong stops": stops})
    return _missed(outcomes, [stops])


def _missed(outcomes: list[Measured], stops: list[Measured]) -> list[str]:
    missed = [f"{each['share']:.3f} wrong stops, {each['answers']}" for each in stops if each["share"] > ERROR]
    saved, lost = (median(each[key] for each in outcomes) for key in ("fewer images", "lost hypervolume"))
    if saved < RACED or lost > LOST:
        missed.append(f"races save {saved:.2f} times the images and lose {lost:.2%} of the hypervolume")
    return missed


def main() -> int:
    torch.set_num_threads(1)
    parts = {"prefixes": prefixes, "racing": racing, "real": real}
    with tempfile.TemporaryDirectory() as folder:
        missed = [each for name in sys.argv[1:] or parts for each in parts[name](Path(folder))]
    print("missed: " + "; ".join(missed) if missed else "every bound is kept")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
