"""How many evaluations a search needs: ours by rankers beside NSGA-II (ours, pymoo's, Optuna's), TPE and random search.

    python benchmarks/search_efficiency.py

Two problems from data in ../shared/data. (a) NAS-Bench-201: error on CIFAR-100 after 200 epochs and measured latency on
eight devices, each row of the table a candidate (equal networks are different rows there, and here); hypervolume as a
share of the true front's, whose reference lies a tenth of its range behind its worst costs. (b) Once-for-All
MobileNetV3 on ImageNet, a surrogate of measured subnets without noise, and MACs; hypervolume as a share of the box
from (78 %, 100 MMACs) to (65 %, 600 MMACs), in which DyNAS-T's recorded searches are quoted.

All populations and batches are of 25. A repeated candidate costs nobody anything: it is not counted. TPE stops at 250:
its time grows with the square of its trials. "nothing known"
has a ranker for every objective; "cheap known" computes the objective that a table or a counter gives (latency, MACs)
for any row, as `hwnas search` does, and is told MACs, which go along with accuracy. Choices were made on four other
devices, CIFAR-10 and seeds from 101 on. Exits with 1 where (b) falls short of FLOORS; where rankers do worse than
NSGA-II without them from 100 evaluations on, it says so.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # CPU time of one thread is what is reported

import numpy as np
import optuna
import pandas as pd
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms import Known, make
from hwnas.engine.architecture import FloatArray, Gene, IntArray, canonical
from hwnas.engine.front import hypervolume, non_dominated, normalised_hypervolume
from hwnas.engine.objective import Costs

sys.path.insert(0, str(Path(__file__).parent))
from record import record

OFA, NB201 = "Once-for-All MobileNetV3", "NAS-Bench-201"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CHECKPOINTS = (50, 100, 250, 500)
BATCH, SEEDS = 25, 5
MOST = {"Optuna TPE": 250}  # evaluations of a contestant, the last checkpoint for the others
REPEATS = 2  # trials a counted candidate after which a contestant that only repeats itself is stopped
PROCESSES = 2
# pixel3 is left out: cells without a path take no time there
DEVICES = (
    "gold_6240",
    "silver_4114",
    "samsung_a50",
    "samsung_s7",
    "1080ti_1",
    "2080ti_32",
    "titan_rtx_1",
    "titanxp_256",
)
ACCURACY = "c100_test_200ep"
FLOORS = {100: 0.825, 250: 0.8375}
RECORDED = {  # DyNAS-T's own searches with ImageNet measurements, from the runs it publishes
    "DyNAS-T LINAS (recorded)": {50: 0.7133, 100: 0.7485, 250: 0.8006, 500: 0.8375},
    "DyNAS-T NSGA-II (recorded)": {50: 0.7022, 100: 0.7355, 250: 0.7862, 500: 0.8150},
}


@dataclass(frozen=True)
class Problem:
    """Two costs of architectures, the second of which can be computed for any."""

    title: str
    genes: tuple[Gene, ...]
    costs: Costs  # (n, genes) -> (n, 2)
    second: Costs  # (n,)
    macs: AdditiveCost
    share: Callable[[FloatArray], float]  # of the hypervolume there is

    def known(self) -> Known:
        return Known((None, self.second), lambda X: np.zeros(len(X)), (self.macs,))


class Counted:
    """The costs of a problem, noting new candidates in order."""

    def __init__(self, problem: Problem, most: int) -> None:
        self.problem = problem
        self._most = most
        self._seen: dict[bytes, FloatArray] = {}
        self._trials = 0

    def __call__(self, X: IntArray) -> FloatArray:
        X = canonical(self.problem.genes, np.asarray(X, dtype=np.int64))
        self._trials += len(X)
        F = self.problem.costs(X)
        for row, costs in zip(X, F, strict=True):
            self._seen.setdefault(row.tobytes(), costs)
        return F

    @property
    def done(self) -> bool:
        return len(self._seen) >= self._most or self._trials >= REPEATS * self._most

    def shares(self) -> list[float]:
        """At each checkpoint, NaN at those that were not to be reached."""
        F = np.array(list(self._seen.values()))
        return [round(self.problem.share(F[:n]), 4) if n <= self._most else np.nan for n in CHECKPOINTS]


Contestant = Callable[[Counted, int], None]


# ---- contestants ----------------------------------------------------------------------------------------------------


def ours(name: str, *, known: bool = False) -> Contestant:
    def run(counted: Counted, seed: int) -> None:
        algorithm = make(
            name,
            counted.problem.genes,
            population=BATCH,
            rng=np.random.default_rng(seed),
            known=counted.problem.known() if known else None,
        )
        while not counted.done and len(X := algorithm.ask()):
            algorithm.tell(X, counted(X), np.zeros(len(X)))

    return run


def pymoo_nsga2(counted: Counted, seed: int) -> None:
    class Counting(PymooProblem):  # type: ignore[misc]  # pymoo ships no types
        def __init__(self) -> None:
            upper = [len(gene.options) - 1 for gene in counted.problem.genes]
            super().__init__(n_var=len(upper), n_obj=2, xl=0, xu=np.array(upper), vtype=int)

        def _evaluate(self, X: IntArray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
            out["F"] = counted(X)

    algorithm = NSGA2(
        pop_size=BATCH,
        sampling=IntegerRandomSampling(),
        crossover=UX(),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
    )
    algorithm.setup(Counting(), termination=("n_gen", 10_000), seed=seed, verbose=False)
    while not counted.done:
        algorithm.next()


def optuna_with(sampler: Callable[[int], optuna.samplers.BaseSampler]) -> Contestant:
    def run(counted: Counted, seed: int) -> None:
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler(seed))
        genes = counted.problem.genes
        # options that are numbers are listed from small to large; the others have no order
        ordered = [all(isinstance(option, int) for option in gene.options) for gene in genes]
        while not counted.done:
            trial = study.ask()
            row = [
                trial.suggest_int(gene.name, 0, len(gene.options) - 1)
                if is_ordered
                else trial.suggest_categorical(gene.name, list(range(len(gene.options))))
                for gene, is_ordered in zip(genes, ordered, strict=True)
            ]
            study.tell(trial, counted(np.array([row]))[0].tolist())

    return run


CONTESTANTS: dict[str, Contestant] = {
    "random": ours("random"),
    "pymoo NSGA-II": pymoo_nsga2,
    "Optuna NSGA-II": optuna_with(lambda seed: optuna.samplers.NSGAIISampler(population_size=BATCH, seed=seed)),
    "Optuna TPE": optuna_with(lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "hwnas NSGA-II": ours("nsga2"),
    "hwnas surrogate, cheap known": ours("surrogate", known=True),
    "hwnas surrogate, nothing known": ours("surrogate"),
}


# ---- problems -------------------------------------------------------------------------------------------------------


def nas_bench_201(device: str, accuracy: str = ACCURACY) -> Problem:
    """The cell of Dong and Yang (ICLR 2020): six edges of five operations."""
    latency = pd.read_parquet(DATA / "nb201_latency.parquet")
    accuracies = pd.read_parquet(DATA / "nb201_accuracy.parquet").set_index("arch_str").loc[latency.arch_str]
    table = np.full((5,) * 6 + (2,), np.nan)
    rows = latency[[f"op{i}" for i in range(6)]].to_numpy()
    table[tuple(rows.T)] = np.stack([1 - accuracies[accuracy].to_numpy() / 100, latency[f"lat_{device}"]], axis=1)
    operations = ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3")
    genes = tuple(Gene(f"edge{i}", operations) for i in range(6))
    # a 3x3 convolution does nine times the work of a 1x1 one, the others none to speak of
    per_edge = np.array([0.0, 0.0, 1.0, 9.0, 0.0])
    macs = AdditiveCost(genes, tuple((i,) for i in range(6)), (per_edge,) * 6)
    everything = table.reshape(-1, 2)
    front = everything[non_dominated(everything)]
    reference = (front.max(0) + 0.1 * np.ptp(front, axis=0)).tolist()
    whole = hypervolume(front, reference)
    return Problem(
        f"{NB201}, {device}",
        genes,
        lambda X: table[tuple(X.T)],
        lambda X: table[(*X.T, 1)],
        macs,
        lambda F: hypervolume(F, reference) / whole,
    )


def once_for_all() -> Problem:
    """The space of Cai et al. (ICLR 2020) at 224 pixels: 5 depths, 20 kernels, 20 expansions."""
    spec = importlib.util.spec_from_file_location("ofa_surrogate", DATA / "ofa_surrogate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    surrogate = module.OfaSurrogate()
    depths = [Gene(f"s{s}.depth", (2, 3, 4)) for s in range(5)]

    def block_genes(kind: str, options: tuple[int, ...]) -> list[Gene]:
        deep_enough = {2: frozenset({1, 2}), 3: frozenset({2})}
        return [
            Gene(f"s{s}.b{b}.{kind}", options, (f"s{s}.depth", deep_enough[b]) if b in deep_enough else None)
            for s in range(5)
            for b in range(4)
        ]

    genes = (*depths, *block_genes("kernel", (3, 5, 7)), *block_genes("expansion", (3, 4, 6)))
    macs = once_for_all_mmacs(genes, module)

    def costs(X: IntArray) -> FloatArray:
        top1, count, _ = surrogate(X)
        return np.stack([1 - top1 / 100, count / 1e6], axis=1)

    return Problem(
        OFA,
        genes,
        costs,
        macs,
        macs,
        lambda F: normalised_hypervolume(F, ideal=(0.22, 100.0), reference=(0.35, 600.0)),
    )


def once_for_all_mmacs(genes: tuple[Gene, ...], module: ModuleType) -> AdditiveCost:
    """MMACs as a sum over blocks: what a network gains when its counter meets one block more, or another one."""
    smallest = [2] * 5, [3] * 20, [3] * 20

    def mmacs(depths: list[int], at: int, kernel: int, expansion: int) -> float:
        kernels, expansions = list(smallest[1]), list(smallest[2])
        kernels[at], expansions[at] = kernel, expansion
        return float(module.macs_params(depths, kernels, expansions)[0]) / 1e6

    rest = mmacs(smallest[0], 0, 3, 3)
    scopes, arrays = [], []
    for at in range(20):
        stage, block = divmod(at, 4)
        depths = list(smallest[0])
        depths[stage] = max(block + 1, 2)
        before = list(smallest[0])
        before[stage] = max(block, 2)
        without = mmacs(before, at, 3, 3)
        added = np.array([[mmacs(depths, at, k, e) - without for e in (3, 4, 6)] for k in (3, 5, 7)])
        if block < 2:
            scopes.append((5 + at, 25 + at))
            arrays.append(added)
        else:  # this block is there from depth `block + 1` on
            scopes.append((stage, 5 + at, 25 + at))
            arrays.append(np.stack([added if depth > block else np.zeros((3, 3)) for depth in (2, 3, 4)]))
    return AdditiveCost(genes, (*scopes, ()), (*arrays, np.array(rest)))


# ---- verdict --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """One contestant's run."""

    problem: str
    name: str
    seed: int
    shares: list[float]  # a figure a checkpoint
    cpu_s: float


@cache
def problem_of(key: str) -> Problem:
    return once_for_all() if key == OFA else nas_bench_201(key)


def run(task: tuple[str, str, int]) -> Ran:
    key, name, seed = task
    counted = Counted(problem_of(key), MOST.get(name, CHECKPOINTS[-1]))
    start = time.process_time()
    CONTESTANTS[name](counted, seed)
    return Ran(key, name, seed, counted.shares(), time.process_time() - start)


def runs(tasks: list[tuple[str, str, int]]) -> list[Ran]:
    """Every task's run; those that are finished where it is interrupted."""
    found: list[Ran] = []
    pool = ProcessPoolExecutor(PROCESSES, mp_context=get_context("fork"))
    try:
        for ran in pool.map(run, tasks):
            found.append(ran)
            print(f"{ran.problem}, {ran.name}, seed {ran.seed}: {ran.shares}, {ran.cpu_s:.1f} CPU s", flush=True)
    except KeyboardInterrupt:
        print(f"interrupted after {len(found)} of {len(tasks)} runs: what is recorded is of these")
    pool.shutdown(wait=False, cancel_futures=True)
    return found


def row_of(title: str, name: str, runs: list[Ran]) -> dict[str, Any]:
    row: dict[str, Any] = {"problem": title, "search": name}
    for k, n in enumerate(CHECKPOINTS):
        values = [ran.shares[k] for ran in runs]
        for suffix, of in (("", np.median), (" least", np.min), (" most", np.max)):
            row[f"{n}{suffix}"] = None if np.isnan(values).any() else round(float(of(values)), 4)
    row["CPU s"] = round(float(np.median([ran.cpu_s for ran in runs])), 1)
    return row


def shortfalls(rows: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Floors that what `hwnas search` does misses on (b), and where NSGA-II without rankers is better."""
    of = {(row["problem"], row["search"]): row for row in rows}
    ranked, evolved = "hwnas surrogate, cheap known", "hwnas NSGA-II"
    if missing := [f"{t}, {name}: not run" for t in (OFA, NB201) for name in (ranked, evolved) if (t, name) not in of]:
        return missing, []
    missed = [
        f"{OFA} after {n}: {of[OFA, ranked][str(n)]}, not {floor}"
        for n, floor in FLOORS.items()
        if of[OFA, ranked][str(n)] < floor
    ]
    behind = [
        f"{title} after {n}: {of[title, ranked][str(n)]}, {of[title, evolved][str(n)]} without rankers"
        for title in (OFA, NB201)
        for n in CHECKPOINTS[1:]
        if of[title, ranked][str(n)] < of[title, evolved][str(n)]
    ]
    return missed, behind


def main() -> int:
    if not DATA.exists():
        print(f"{DATA} is not there: this compares searches on the tables that belong in it")
        return 1
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for contestant in CONTESTANTS.values():  # imports and first calls are no part of a search
        contestant(Counted(problem_of(DEVICES[0]), 2 * BATCH), SEEDS)
    keys = (OFA, *DEVICES)
    # the slowest last: what is interrupted leaves whole contestants behind
    order = sorted(CONTESTANTS, key=lambda name: name in MOST)
    found = runs([(key, name, seed) for name in order for key in keys for seed in range(SEEDS)])
    groups = {OFA: (OFA,), NB201: DEVICES, **{f"{NB201}, {device}": (device,) for device in DEVICES}}
    rows = [
        row_of(title, name, chosen)
        for title, among in groups.items()
        for name in CONTESTANTS
        if len(chosen := [ran for ran in found if ran.problem in among and ran.name == name]) == SEEDS * len(among)
    ]
    missed, behind = shortfalls(rows)
    record(
        "search_efficiency",
        rows,
        title="share of the hypervolume after 50, 100, 250 and 500 evaluations: medians over seeds (and devices)",
        seeds=range(SEEDS),
        notes={
            "recorded": RECORDED,
            "batch": BATCH,
            "accuracy of NAS-Bench-201": ACCURACY,
            "short of": missed,
            "behind": behind,
        },
        shown=("problem", "search", *(f"{n}{more}" for n in CHECKPOINTS for more in ("", " least", " most")), "CPU s"),
    )
    print("; ".join(f"{name}: {values}" for name, values in RECORDED.items()))
    print(f"floors missed: {'; '.join(missed) or 'none'}; behind NSGA-II: {'; '.join(behind) or 'nowhere'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
