"""Accuracies of many subnets: one by one, with shared prefixes, and raced against what is known.

    python benchmarks/evaluation.py [prefixes] [racing]

Prefixes: 100 random subnets, and a generation of 100 that NSGA-II asks for once it has converged (accuracy and MACs;
the hypervolume grew by less than 0.1 % in five generations). They are evaluated one by one, together, and together
with what is kept of the generations before, in turn; MACs are counted where they are executed, calibration included.
Racing: searches of equal budgets and seeds, in full and raced; images are counted with those of the calibration.
Wrong stops: 200 simulated races with known accuracies, and 200 races of real answers in other orders. Exits with 1
if the converged generation does not take SHARED times fewer MACs or its accuracies differ, if races save less than
RACED or cost more than LOST of the hypervolume, or if they stop candidates wrongly more often than stated.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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
from hwnas.engine.architecture import Architecture, BoolArray, IntArray
from hwnas.engine.config import parse_config
from hwnas.engine.dataset import Split
from hwnas.engine.evaluation.complexity import block_macs
from hwnas.engine.evaluation.inherited import InheritedAccuracy
from hwnas.engine.evaluation.prefix import Memory, Parts
from hwnas.engine.evaluation.racing import RacedAccuracy, Stopped, is_beaten, looks
from hwnas.engine.front import hypervolume, non_dominated, normalised_hypervolume
from hwnas.engine.journal import Journal
from hwnas.engine.objective import Objective
from hwnas.engine.run import Run
from hwnas.engine.search import search

sys.path.insert(0, str(Path(__file__).parent))
from record import record

SHARED, RACED, LOST = 3.0, 2.0, 0.01
GENERATION, REPEATS, STEADY = 100, 3, 5
EVALUATIONS, POPULATION, SEEDS = 320, 40, 3
ERROR, RUNS = 0.05, 200
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


@dataclass(frozen=True)
class Remembering(InheritedAccuracy):
    """Answers each network once for all searches; they are the same however often it is asked."""

    answered: dict[Architecture, BoolArray] = field(default_factory=dict)

    def answers(
        self,
        architectures: Sequence[Architecture],
        split: Split,
        *,
        order: IntArray | None = None,
        held: dict[Architecture, Parts] | None = None,
    ) -> Iterator[tuple[Architecture, BoolArray]]:
        missing = [row for row in architectures if row not in self.answered]
        self.answered.update(super().answers(missing, split))
        for row in architectures:
            if held is not None:
                held[row] = []
            yield row, self.answered[row] if order is None else self.answered[row][order]


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


def converged_generation(run: Run, accuracy: InheritedAccuracy) -> tuple[list[Architecture], int]:
    """What NSGA-II asks for once its hypervolume stands still, and how many it had evaluated by then."""
    macs = AdditiveCost.of(run.space, block_macs)
    algorithm = make("nsga2", run.space.genes, population=GENERATION, rng=np.random.default_rng(0))
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


def raced_searches(run: Run, folder: Path, answered: dict[Architecture, BoolArray]) -> list[Measured]:
    """Searches of equal budget and seed, in full and raced."""
    macs = AdditiveCost.of(run.space, block_macs)
    images = len(run.data.validation)
    outcomes = []
    for seed in range(SEEDS):
        fronts, counted, stops = {}, {}, list[Stopped]()
        for way in ("full", "raced"):
            accuracy = evaluator(run, folder / f"{way}{seed}", Remembering, answered=answered)
            race = RacedAccuracy(accuracy, (macs,), error=ERROR, on_stopped=stops.append)
            cost = race.errors if way == "raced" else accuracy.errors
            algorithm = make("nsga2", run.space.genes, population=POPULATION, rng=np.random.default_rng(seed))
            objectives = [Objective("accuracy", "", cost, maximised=True), Objective("macs", "", macs, cheap=True)]
            told = search(algorithm, objectives, evaluations=EVALUATIONS)
            fronts[way] = told.costs[non_dominated(told.costs)]
            stopped = sum(stop.images for stop in stops)
            counted[way] = (len(told) - len(stops)) * images + stopped + len(told) * accuracy.calibration
        both = np.concatenate(list(fronts.values()))
        worst, best = both.max(0), both.min(0)
        reference = tuple((worst + 0.1 * (worst - best)).tolist())
        reached = {
            way: normalised_hypervolume(costs, ideal=tuple(best.tolist()), reference=reference)
            for way, costs in fronts.items()
        }
        outcomes.append(
            {
                "seed": seed,
                "candidates": EVALUATIONS,
                "stopped": len(stops),
                "images in full": counted["full"],
                "images raced": counted["raced"],
                "fewer images": counted["full"] / counted["raced"],
                "hypervolume in full": reached["full"],
                "hypervolume raced": reached["raced"],
                "wrong stops": sum(answered[stop.architecture].sum() >= answered[stop.rival].sum() for stop in stops),
            }
        )
    return outcomes


def raced_generation(run: Run, folder: Path, answered: dict[Architecture, BoolArray]) -> Measured:
    """CPU time of the last generation of a search with real networks: in full and raced, each with shared prefixes."""
    macs = AdditiveCost.of(run.space, block_macs)
    memory = evaluator(run, folder / "memory", Remembering, answered=answered)
    objectives = [Objective("accuracy", "", memory.errors), Objective("macs", "", macs, cheap=True)]
    algorithm = make("nsga2", run.space.genes, population=POPULATION, rng=np.random.default_rng(0))
    before = search(algorithm, objectives, evaluations=EVALUATIONS - POPULATION)
    X = algorithm.ask()
    cpu: dict[str, list[float]] = {"full": [], "raced": []}
    for repeat in range(3):
        plain = evaluator(run, folder / f"plain{repeat}")
        race = RacedAccuracy(
            evaluator(run, folder / f"known{repeat}", Remembering, answered=answered), (macs,), error=ERROR
        )
        race.errors(before.X)  # what is known already
        race.evaluator = evaluator(run, folder / f"raced{repeat}")
        for name, cost in (("full", plain.errors), ("raced", race.errors)):
            start = time.process_time()
            cost(X)
            cpu[name].append(time.process_time() - start)
    ratio = median(a / b for a, b in zip(cpu["full"], cpu["raced"], strict=True))
    return {"CPU s in full": median(cpu["full"]), "CPU s raced": median(cpu["raced"]), "CPU ratio": ratio, "cpu_s": cpu}


# ---- wrong stops ----------------------------------------------------------------------------------------------------


def races(answers: BoolArray, candidates: int, rng: np.random.Generator, rivals: Sequence[list[int]]) -> Measured:
    """Races of the first `candidates` rows of (networks, images) in one random order, against those rows each."""
    images = answers.shape[1]
    shuffled = answers[:, rng.permutation(images)]
    right = answers.sum(1)
    seen = np.full(candidates, images)
    for i in range(candidates):
        for look in looks(images, RacedAccuracy.first)[:-1]:
            if is_beaten(shuffled[i, :look], [shuffled[j, :look] for j in rivals[i]], error=ERROR):
                seen[i] = look
                break
    best = np.array([max((right[j] for j in against), default=-1) for against in rivals[:candidates]])
    unbeaten, tied = right[:candidates] >= best, right[:candidates] == best
    stopped = seen < images
    return {
        "unbeaten": int(unbeaten.sum()),
        "wrong": int((stopped & unbeaten).sum()),
        "tied": int(tied.sum()),
        "tied wrong": int((stopped & tied).sum()),
        "images": int(seen.sum()),
        "of": images * candidates,
    }


def simulated(rng: np.random.Generator) -> Measured:
    """One race with answers that depend on how hard an image is: half the candidates tie with their best rival."""
    images, fronts, candidates = 4000, 12, 60
    hard = rng.normal(size=images)
    able = np.sort(rng.normal(1.6, 0.3, fronts))  # the front: the larger the better
    place = rng.integers(0, fronts, candidates)  # the largest rival that costs no more
    worse = np.where(rng.random(candidates) < 0.5, 0.0, rng.normal(0.15, 0.2, candidates))
    ability = np.concatenate([able[place] - worse, able])
    # steep curves: networks of one supernet agree on most images
    answers = rng.random((len(ability), images)) < 1 / (1 + np.exp(-4 * (ability[:, None] - hard)))
    front = [candidates + int(i) for i in range(fronts)]
    order = sorted(front, key=lambda j: answers[j].sum())
    rivals = [order[max(0, int(i) + 1 - RacedAccuracy.rivals) : int(i) + 1] for i in place]
    for i in np.flatnonzero(worse == 0):
        goal, right = max(int(answers[j].sum()) for j in rivals[i]), int(answers[i].sum())
        changed = rng.permutation(np.flatnonzero(answers[i] == (right > goal)))[: abs(right - goal)]
        answers[i, changed] = right < goal
    return races(answers, candidates, rng, rivals)


def real(run: Run, answered: dict[Architecture, BoolArray], rng: np.random.Generator) -> Measured:
    """One race of networks that were answered, against the front of another half of them."""
    rows = sorted(answered)
    chosen = rng.permutation(len(rows))
    candidates, known = chosen[:60], chosen[60:]
    macs = AdditiveCost.of(run.space, block_macs)(np.array(rows))
    right = np.array([answered[row].sum() for row in rows])
    front = known[non_dominated(np.stack([-right[known], macs[known]], axis=1))]
    front = front[np.argsort(-right[front], kind="stable")]
    used = np.concatenate([candidates, front])
    answers = np.stack([answered[rows[i]] for i in used])
    rivals = [
        [len(candidates) + int(j) for j in np.flatnonzero(macs[front] <= macs[i])[: RacedAccuracy.rivals]]
        for i in candidates
    ]
    return races(answers, len(candidates), rng, rivals)


def wrong_stops(name: str, race: Callable[[np.random.Generator], Measured]) -> Measured:
    """Totals of 200 races, and the largest share in one."""
    runs = [race(np.random.default_rng([7, i])) for i in range(RUNS)]
    total = {key: sum(each[key] for each in runs) for key in runs[0]}
    return {
        "answers": name,
        "runs": RUNS,
        "not beaten": total["unbeaten"],
        "stopped wrongly": total["wrong"],
        "share": total["wrong"] / max(1, total["unbeaten"]),
        "of ties": total["tied wrong"] / max(1, total["tied"]),
        "stated": ERROR,
        "fewer images": total["of"] / total["images"],
    }


# ---- verdict --------------------------------------------------------------------------------------------------------


def prefixes(folder: Path) -> list[str]:
    """Record the two generations; what they missed."""
    run = trained(ROOT / "examples" / "digits.toml", "digits")
    accuracy = evaluator(run, folder / "digits")
    generation, evaluated = converged_generation(run, accuracy)
    memory = accuracy.memory().copy()
    drawn = arch.sample(run.space.genes, GENERATION, np.random.default_rng(1))
    first = list(dict.fromkeys(arch.to_architecture(row) for row in drawn))
    rows = [
        *(
            {"generation": "first, random", **each}
            for each in compared(run, first, accuracy, Memory(accuracy.budget_mib))[:2]
        ),
        *({"generation": "converged", **each} for each in compared(run, generation, accuracy, memory)),
    ]
    values = [{key: row.pop(key) for key in ("cpu_s", "wall_s")} for row in rows]
    notes = {
        "evaluated before the converged generation": evaluated,
        "budget_mib": accuracy.budget_mib,
        "kept_mib": memory.mib,
        "architectures": arch.size(run.space.genes),
        "values": values,
    }
    record("evaluation_prefixes", rows, title=f"a generation of {GENERATION}", seeds=[0], notes=notes)
    missed = [f"{row['accuracies that differ']} accuracies differ" for row in rows if row["accuracies that differ"]]
    if rows[-1]["fewer MACs"] < SHARED:
        missed.append(f"{rows[-1]['fewer MACs']:.2f} times fewer MACs")
    return missed


def racing(folder: Path) -> list[str]:
    """Record races and wrong stops; what they missed."""
    missed, stops = [], [wrong_stops("simulated", simulated)]
    if FASHION.exists():
        run = trained(Path(__file__).parent / "fashion_mnist.toml", "fashion_mnist")
        answered: dict[Architecture, BoolArray] = {}
        outcomes = raced_searches(run, folder, answered)
        generation = raced_generation(run, folder, answered)
        notes = {"one generation with real networks": generation, "networks": len(answered)}
        record("evaluation_racing", outcomes, title="searches in full and raced", seeds=range(SEEDS), notes=notes)
        print({key: value for key, value in generation.items() if key != "cpu_s"})
        stops.append(wrong_stops("real", lambda rng: real(run, answered, rng)))
        saved = median(each["fewer images"] for each in outcomes)
        lost = median(1 - each["hypervolume raced"] / each["hypervolume in full"] for each in outcomes)
        if saved < RACED or lost > LOST:
            missed.append(f"races save {saved:.2f} times the images and lose {lost:.2%} of the hypervolume")
    else:
        print(f"{FASHION} is not there: no search was raced")
    record("evaluation_wrong_stops", stops, title="candidates that no rival beats, stopped", seeds=range(RUNS))
    return missed + [f"{each['share']:.3f} wrong stops, {each['answers']}" for each in stops if each["share"] > ERROR]


def main() -> int:
    torch.set_num_threads(1)
    parts = {"prefixes": prefixes, "racing": racing}
    with tempfile.TemporaryDirectory() as folder:
        missed = [each for name in sys.argv[1:] or parts for each in parts[name](Path(folder))]
    print("missed: " + "; ".join(missed) if missed else "every bound is kept")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
