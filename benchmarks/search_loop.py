"""The search loop alone: our NSGA-II beside pymoo's, in candidates a CPU-second and in hypervolume reached.

    python benchmarks/search_loop.py

Speed: 40 genes of 6 options, population 100, three objectives that are sums of table entries (a few gathers for the
whole population, the same function for all). The contestants run one after another in every repeat, on CPU time.
Quality: hypervolume of all that was evaluated after equal numbers of candidates; "independent start" is ours from the
start that pymoo has, to tell the start's part from the loop's, and "gene by gene" is ours with uniform crossover. The
other algorithms run beside it. Floor: what the loop adds to the evaluations themselves (loop_bounds.py). Exits with 1
if we are not FLOOR times as fast as the faster pymoo configuration, reach less hypervolume, or miss a bound.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # CPU time of one thread is what is compared

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling

from hwnas.engine.algorithms import make
from hwnas.engine.architecture import FloatArray, Gene, IntArray, sample
from hwnas.engine.front import normalised_hypervolume

sys.path.insert(0, str(Path(__file__).parent))
from loop_bounds import CANDIDATES, REPEATS, candidates_per_second
from record import record

FLOOR = 3.0
POPULATION, GENERATIONS, TURNS, SEEDS = 100, 100, 5, 3
CHECKPOINTS = (500, 1000, 2000)  # candidates at which quality is compared
QUALITY_SEEDS = 10
OTHERS = ("age_moea2", "ctaea", "moead", "nsga3", "sms_emoa", "unsga3")
SURROGATE = Path(__file__).resolve().parents[2] / "shared" / "data" / "ofa_surrogate.py"

Costs = Callable[[IntArray], FloatArray]
Run = Callable[[tuple[Gene, ...], Costs, int, int], None]
Problem2 = tuple[str, tuple[Gene, ...], Costs, tuple[float, float], tuple[float, float]]  # with ideal and reference


# ---- contestants ----------------------------------------------------------------------------------------------------


def ours(
    genes: tuple[Gene, ...],
    costs: Costs,
    candidates: int,
    seed: int,
    *,
    initial: IntArray | None = None,
    population: int = POPULATION,
    name: str = "nsga2",
) -> None:
    """Ask and tell until `candidates` were evaluated."""
    algorithm = make(name, genes, population=population, rng=np.random.default_rng(seed), initial=initial)
    done = 0
    while done < candidates:
        X = algorithm.ask()
        algorithm.tell(X, costs(X), np.zeros(len(X)))
        done += len(X)


def independent_start(genes: tuple[Gene, ...], costs: Costs, candidates: int, seed: int) -> None:
    """Ours, from genes drawn independently of each other."""
    initial = sample(genes, POPULATION, np.random.default_rng(seed + 1000))
    ours(genes, costs, candidates, seed, initial=initial)


def gene_by_gene(genes: tuple[Gene, ...], costs: Costs, candidates: int, seed: int) -> None:
    """Ours with every gene crossing over by itself, whatever place of the network it belongs to."""

    def plain(name: str) -> str:
        return name.replace(".", "-")

    renamed = [
        replace(gene, name=plain(gene.name), needs=gene.needs and (plain(gene.needs[0]), gene.needs[1]))
        for gene in genes
    ]
    ours(tuple(renamed), costs, candidates, seed)


def pymoo_with(crossover: Any, population: int = POPULATION) -> Run:
    """pymoo's NSGA2 over integers with its own sampling, mutation, repair and duplicate elimination."""

    def run(genes: tuple[Gene, ...], costs: Costs, candidates: int, seed: int) -> None:
        class Sums(Problem):  # type: ignore[misc]  # pymoo ships no types
            def __init__(self) -> None:
                upper = [len(gene.options) - 1 for gene in genes]
                objectives = costs(np.zeros((1, len(genes)), dtype=np.int64)).shape[1]
                super().__init__(n_var=len(genes), n_obj=objectives, xl=0, xu=np.array(upper), vtype=int)

            def _evaluate(self, X: IntArray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
                out["F"] = costs(np.asarray(X, dtype=np.int64))

        algorithm = NSGA2(
            pop_size=population,
            sampling=IntegerRandomSampling(),
            crossover=crossover(),
            mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        )
        algorithm.setup(Sums(), termination=("n_eval", candidates), seed=seed, verbose=False)
        while algorithm.has_next():
            algorithm.next()

    return run


PYMOO = {
    "pymoo SBX + PM": pymoo_with(lambda: SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair())),
    "pymoo UX + PM": pymoo_with(UX),
}


# ---- speed ----------------------------------------------------------------------------------------------------------


def table_sums(genes: tuple[Gene, ...], objectives: int) -> Costs:
    tables = np.random.default_rng(0).random((objectives, len(genes), max(len(gene.options) for gene in genes)))
    columns = np.arange(len(genes))
    return lambda X: np.stack([table[columns, X].sum(1) for table in tables], axis=1)


def speeds() -> dict[str, list[float]]:
    """Candidates a CPU-second of each contestant, one figure a repeat and seed."""
    genes = tuple(Gene(f"g{i}", tuple(range(6))) for i in range(40))
    costs = table_sums(genes, 3)
    candidates = POPULATION * GENERATIONS
    contestants: dict[str, Run] = {"hwnas": ours, **PYMOO}
    for run in contestants.values():
        run(genes, costs, 10 * POPULATION, 0)  # imports and first calls are not the loop
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(TURNS):
        for seed in range(SEEDS):
            for name, run in contestants.items():
                start = time.process_time()
                run(genes, costs, candidates, seed)
                figures[name].append(candidates / (time.process_time() - start))
    return figures


# ---- quality --------------------------------------------------------------------------------------------------------


def ofa_problem() -> Problem2 | None:
    """Once-for-All MobileNetV3 on ImageNet by a surrogate fitted to measured subnets: 1 - top-1 and MMACs."""
    if not SURROGATE.exists():
        return None
    spec = importlib.util.spec_from_file_location("ofa_surrogate", SURROGATE)
    if spec is None or spec.loader is None:
        return None
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

    def costs(X: IntArray) -> FloatArray:
        top1, macs, _ = surrogate(X)
        return np.stack([1 - top1 / 100, macs / 1e6], axis=1)

    genes = (*depths, *block_genes("kernel", (3, 5, 7)), *block_genes("expansion", (3, 4, 6)))
    # the box of the published curves: 78 % at 100 MMACs down to 65 % at 600 MMACs
    return "OFA-MobileNetV3 surrogate: top-1 and MACs", genes, costs, (0.22, 100.0), (0.35, 600.0)


def synthetic_problem() -> Problem2:
    """Forty additive genes whose larger options cost more and, with diminishing returns, gain more."""
    rng = np.random.default_rng(1)
    genes = tuple(Gene(f"g{i}", tuple(range(6))) for i in range(40))
    price = np.cumsum(rng.random((40, 6)), axis=1)
    gain = np.cumsum(rng.random((40, 6)) * 0.7 ** np.arange(6), axis=1)
    columns = np.arange(40)

    def costs(X: IntArray) -> FloatArray:
        return np.stack([1 - gain[columns, X].sum(1) / gain.max(1).sum(), price[columns, X].sum(1)], axis=1)

    smallest, largest = float(price.min(1).sum()), float(price.max(1).sum())
    return "additive, 40 genes of 6 options", genes, costs, (0.0, smallest), (1.0, largest)


def blocks_problem() -> Problem2:
    """Twenty blocks of a kernel and an expansion: price in proportion to both, gain of each pair its own."""
    rng = np.random.default_rng(2)
    genes = tuple(Gene(f"b{b}.{kind}", tuple(range(4))) for b in range(20) for kind in ("kernel", "expansion"))
    capacity = np.outer(np.arange(1, 5), np.arange(1, 5))
    price = capacity * rng.uniform(0.5, 2, (20, 1, 1)) + rng.random((20, 4, 4))
    gain = np.log1p(capacity) * rng.uniform(0.5, 2, (20, 1, 1)) + 0.5 * rng.random((20, 4, 4))
    blocks = np.arange(20)

    def costs(X: IntArray) -> FloatArray:
        kernel, expansion = X[:, 0::2], X[:, 1::2]
        share = gain[blocks, kernel, expansion].sum(1) / gain.max((1, 2)).sum()
        return np.stack([1 - share, price[blocks, kernel, expansion].sum(1)], axis=1)

    return (
        "twenty blocks of two genes",
        genes,
        costs,
        (0.0, float(price.min((1, 2)).sum())),
        (1.0, float(price.max((1, 2)).sum())),
    )


def hypervolumes() -> dict[str, dict[str, dict[int, list[float]]]]:
    """Problem -> contestant -> candidates -> normalised hypervolume of all that was evaluated, a figure a seed."""
    problems = [problem for problem in (ofa_problem(), synthetic_problem(), blocks_problem()) if problem is not None]
    contestants: dict[str, Run] = {
        "hwnas": ours,
        "hwnas, independent start": independent_start,
        "hwnas, gene by gene": gene_by_gene,
    }
    contestants |= PYMOO
    contestants |= {f"hwnas {name}": partial(ours, name=name) for name in OTHERS}
    results: dict[str, dict[str, dict[int, list[float]]]] = {}
    for title, genes, costs, ideal, reference in problems:
        by_name: dict[str, dict[int, list[float]]] = {name: {n: [] for n in CHECKPOINTS} for name in contestants}
        for seed in range(QUALITY_SEEDS):
            for name, run in contestants.items():
                told: list[FloatArray] = []

                def noted(X: IntArray, costs: Costs = costs, told: list[FloatArray] = told) -> FloatArray:
                    F = costs(X)
                    told.append(F)
                    return F

                run(genes, noted, max(CHECKPOINTS), seed)
                F = np.concatenate([f for f in told if len(f) > 1])  # pymoo_with probes with one row
                for n in CHECKPOINTS:
                    by_name[name][n].append(normalised_hypervolume(F[:n], ideal=ideal, reference=reference))
        results[title] = by_name
    return results


def _ours_of(genes: tuple[Gene, ...], costs: Costs, candidates: int, population: int, seed: int) -> None:
    ours(genes, costs, candidates, seed, population=population)


def _pymoo_of(genes: tuple[Gene, ...], costs: Costs, candidates: int, population: int, seed: int) -> None:
    pymoo_with(UX, population)(genes, costs, candidates, seed)


# ---- verdict --------------------------------------------------------------------------------------------------------


def main() -> int:
    bounds, missed = candidates_per_second({"hwnas": _ours_of, "pymoo": _pymoo_of})
    record(
        "search_bounds",
        bounds,
        title=f"candidates a CPU-second: 45 gated genes, latency and accuracy, {CANDIDATES} candidates",
        seeds=range(1, REPEATS + 1),
    )
    speed = speeds()
    quality = hypervolumes()
    ratios = {name: median(a / b for a, b in zip(speed["hwnas"], speed[name], strict=True)) for name in PYMOO}
    ratio = min(ratios.values())
    record(
        "search_speed",
        [
            {
                "loop": name,
                "median": round(median(v)),
                "least": round(min(v)),
                "most": round(max(v)),
                "hwnas is x times as fast": round(ratios[name], 1) if name in ratios else None,
            }
            for name, v in speed.items()
        ],
        title=f"candidates a CPU-second: 40 x 6, population {POPULATION}, {GENERATIONS} generations, 3 objectives",
        seeds=range(SEEDS),
        notes={"repeats": TURNS, "candidates_per_cpu_second": speed},
    )
    rows, worse = [], []
    for problem, by_name in quality.items():
        for name, by_candidates in by_name.items():
            for n, v in by_candidates.items():
                spread = {"mean": round(float(np.mean(v)), 4), "least": round(min(v), 4), "most": round(max(v), 4)}
                rows.append({"problem": problem, "loop": name, "candidates": n, **spread})
        worse += [
            f"{problem} after {n}: {name}"
            for name in PYMOO
            for n in CHECKPOINTS
            if np.mean(by_name["hwnas"][n]) < np.mean(by_name[name][n])
        ]
    record(
        "search_quality", rows, title="normalised hypervolume", seeds=range(QUALITY_SEEDS), notes={"values": quality}
    )
    if not SURROGATE.exists():
        print(f"{SURROGATE} is not there: quality was compared on the additive problem only")
    print(f"{ratio:.1f} times as fast (at least {FLOOR}); less hypervolume than: {', '.join(worse) or 'none'}")
    print(f"bounds missed: {', '.join(missed) or 'none'}")
    return 0 if ratio >= FLOOR and not worse and not missed else 1


if __name__ == "__main__":
    sys.exit(main())
