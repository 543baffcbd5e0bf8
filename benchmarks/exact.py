"""Exact fronts of Once-for-All's space: points, CPU-seconds, memory; and what they tell about a search.

    python benchmarks/exact.py [fronts] [searches]

Fronts: MobileNetV3 as Once-for-All has it, at 224 pixels (2e19 networks) and at its 25 resolutions (5e20), under MACs,
parameters, costs drawn for each block, and an additive surrogate fitted to 1,000 top-1 accuracies. CPU time of one
thread; the memory is the peak of a second, traced run with the first seed. Exits with 1 where an exact front of two
costs takes LIMIT_S.

Gap: the share of that surrogate's exact front that NSGA-II reaches, in hypervolume.
Search: the exact algorithm beside NSGA-II, both on the accuracies.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms import Known, make
from hwnas.engine.architecture import FloatArray, IntArray, sample, size
from hwnas.engine.evaluation.complexity import block_macs, block_params
from hwnas.engine.exact import ExactFront, exact_front
from hwnas.engine.exact_search import additive_surrogate, agreement, optimality_gap
from hwnas.engine.front import normalised_hypervolume
from hwnas.engine.spaces.mobilenet_v3 import Config, MobileNetV3Space, Stage, build

sys.path.insert(0, str(Path(__file__).parent))
from record import record

LIMIT_S = 2.0
SEEDS = range(5)
CHECKPOINTS = (100, 200, 300, 500)
BOX = (0.22, 100.0), (0.35, 600.0)  # 1 - top-1 and MMACs of the published curves: 78 % at 100, 65 % at 600
SURROGATE = Path(__file__).resolve().parents[2] / "shared" / "data" / "ofa_surrogate.py"

Errors = Callable[[IntArray], FloatArray]


def once_for_all(resolutions: Sequence[int]) -> MobileNetV3Space:
    """Five stages of 2 to 4 blocks with three kernels and three expansions each, behind a fixed first block."""
    stages = [Stage(widths=(16,), depths=(1,), kernels=(3,), expansions=(1,))]
    widths, strides = (24, 40, 80, 112, 160), (2, 2, 2, 1, 2)
    for k, (width, stride) in enumerate(zip(widths, strides, strict=True)):
        stages.append(
            Stage(
                widths=(width,),
                depths=(2, 3, 4),
                kernels=(3, 5, 7),
                expansions=(3, 4, 6),
                stride=2 if stride == 2 else 1,
                se=k in (1, 3, 4),
                activation="relu" if k < 2 else "hswish",
            )
        )
    config = Config(resolutions=tuple(resolutions), stages=tuple(stages), head_width=960, head_features=1280)
    return build(config, in_channels=3, classes=1000)


def drawn(macs: AdditiveCost, rng: np.random.Generator, *, gain: bool = False) -> AdditiveCost:
    """A random cost of each block; as a gain, the root of its MACs times 1 to 1.3, negative."""
    arrays = []
    for array in macs.arrays:
        chance = rng.random(array.shape)
        arrays.append(np.where(array > 0, -np.sqrt(array) * (1 + 0.3 * chance) if gain else chance, 0.0))
    return AdditiveCost(macs.genes, macs.scopes, tuple(arrays))


def errors_at_224(space: MobileNetV3Space) -> Errors | None:
    """1 - top-1 by the surrogate of Once-for-All's ImageNet accuracies."""
    if not SURROGATE.exists():
        return None
    spec = importlib.util.spec_from_file_location("ofa_surrogate", SURROGATE)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    surrogate = module.OfaSurrogate()
    position = {gene.name: i for i, gene in enumerate(space.genes)}
    columns = [position[f"s{s}.depth"] for s in range(2, 7)]
    for kind in ("kernel", "expansion"):
        columns += [position[f"s{s}.b{b}.{kind}"] for s in range(2, 7) for b in range(1, 5)]
    return lambda X: 1 - np.asarray(surrogate(X[:, columns])[0]) / 100


# ---- fronts ---------------------------------------------------------------------------------------------------------


def timed(costs: Sequence[AdditiveCost], epsilon: float, *, traced: bool) -> tuple[ExactFront, float, float]:
    """The front, CPU-seconds and, where traced, the peak of memory in MiB."""
    start = time.process_time()
    front = exact_front(costs, epsilon=epsilon)
    cpu_s = time.process_time() - start
    if not traced:
        return front, cpu_s, 0.0
    tracemalloc.start()
    exact_front(costs, epsilon=epsilon)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return front, cpu_s, peak


def fronts(
    problems: dict[str, Callable[[int], list[AdditiveCost]]], epsilons: Sequence[float]
) -> list[dict[str, float | str]]:
    """A row a problem and epsilon: medians over the seeds, and the worst time."""
    rows: list[dict[str, float | str]] = []
    for name, costs_of in problems.items():
        for epsilon in epsilons:
            runs = []
            for seed in SEEDS:
                front, cpu_s, peak = timed(costs_of(seed), epsilon, traced=seed == SEEDS[0])
                runs.append((len(front), front.labels, cpu_s, peak))
            points, labels, cpu, memory = zip(*runs, strict=True)
            rows.append(
                {
                    "costs": name,
                    "epsilon": epsilon,
                    "points": median(points),
                    "labels": median(labels),
                    "cpu_s": round(median(cpu), 3),
                    "cpu_s_most": round(max(cpu), 3),
                    "peak_mib": round(max(memory), 1),
                }
            )
            print(rows[-1], flush=True)
    return rows


# ---- what a front tells ---------------------------------------------------------------------------------------------


def searched(
    name: str,
    space: MobileNetV3Space,
    costs: Callable[[IntArray], FloatArray],
    *,
    evaluations: int,
    seed: int,
    known: Known | None = None,
) -> tuple[IntArray, FloatArray]:
    """Everything that an algorithm evaluates, in order, and its costs."""
    algorithm = make(name, space.genes, population=50, rng=np.random.default_rng(seed), known=known)
    asked, told = [], []
    while sum(map(len, told)) < evaluations:
        asked.append(algorithm.ask())
        told.append(costs(asked[-1]))
        algorithm.tell(asked[-1], told[-1], np.zeros(len(asked[-1])))
    return np.concatenate(asked)[:evaluations], np.concatenate(told)[:evaluations]


def measure_fronts() -> bool:
    """Whether every exact front of two costs is fast enough."""
    at_224, at_all = once_for_all([224]), once_for_all(range(128, 225, 4))
    macs, params = AdditiveCost.of(at_224, block_macs), AdditiveCost.of(at_224, block_params)
    macs_all = AdditiveCost.of(at_all, block_macs)
    print(f"{size(at_224.genes):.3g} networks at 224 pixels, {size(at_all.genes):.3g} at 25 resolutions")
    rng = np.random.default_rng

    problems: dict[str, Callable[[int], list[AdditiveCost]]] = {
        "224: drawn, drawn": lambda seed: [drawn(macs, rng([seed, k])) for k in range(2)],
        "224: MACs, drawn": lambda seed: [macs, drawn(macs, rng(seed))],
        "224: MACs, parameters": lambda _: [macs, params],
        "224: MACs, drawn gain": lambda seed: [macs, drawn(macs, rng(seed), gain=True)],
        "25 resolutions: drawn, drawn": lambda seed: [drawn(macs_all, rng([seed, k])) for k in range(2)],
        "25 resolutions: MACs, drawn": lambda seed: [macs_all, drawn(macs_all, rng(seed))],
        "25 resolutions: MACs, drawn gain": lambda seed: [macs_all, drawn(macs_all, rng(seed), gain=True)],
    }
    errors = errors_at_224(at_224)
    fitted: dict[int, AdditiveCost] = {}
    if errors is None:
        print(f"{SURROGATE} is not there: nothing with accuracies was computed")
    else:
        agreements = []
        for seed in SEEDS:
            X, told = evaluations(at_224, errors, seed)
            fitted[seed] = additive_surrogate(at_224.genes, X, told)
            agreements.append(agreement(at_224.genes, X, told))
        print(f"Kendall's tau of the additive surrogate, 1,000 rows, held out: {np.round(agreements, 3).tolist()}")
        problems["224: MACs, error"] = lambda seed: [macs, fitted[seed]]
    rows = fronts(problems, (0.0, 0.01, 0.05))
    slowest = max(float(row["cpu_s_most"]) for row in rows if row["epsilon"] == 0)
    three: dict[str, Callable[[int], list[AdditiveCost]]] = {}
    if fitted:
        three["224: MACs, parameters, error"] = lambda seed: [macs, params, fitted[seed]]
    rows += fronts(three, (0.0, 0.05))
    record(
        "exact",
        rows,
        title="exact fronts",
        seeds=SEEDS,
        notes={"networks": [f"{size(s.genes):.3g}" for s in (at_224, at_all)]},
    )

    print(f"slowest exact front of two costs: {slowest:.2f} CPU-s (at most {LIMIT_S})")
    return slowest < LIMIT_S


def evaluations(space: MobileNetV3Space, errors: Errors, seed: int) -> tuple[IntArray, FloatArray]:
    """1,000 random rows and their errors."""
    X = sample(space.genes, 1000, np.random.default_rng([seed, 7]))
    return X, errors(X)


def measure_searches() -> None:
    """How near NSGA-II comes to an exact front, and what rows of exact fronts are worth."""
    at_224 = once_for_all([224])
    macs, errors = AdditiveCost.of(at_224, block_macs), errors_at_224(at_224)
    if errors is None:
        print(f"{SURROGATE} is not there: no search was looked at")
        return
    found: dict[str, dict[int, list[float]]] = {name: {n: [] for n in CHECKPOINTS} for name in ("exact", "nsga2")}
    shares: dict[int, list[float]] = {n: [] for n in (500, 2000, 10_000)}
    taus: list[list[float]] = []

    def both(X: IntArray) -> FloatArray:
        return np.stack([errors(X), macs(X) / 1e6], axis=1)

    known = Known((None, macs), lambda X: np.zeros(len(X)), (macs,), (None, macs))
    for seed in SEEDS:
        cost = additive_surrogate(at_224.genes, *evaluations(at_224, errors, seed))
        front = exact_front([cost, macs])
        reference = (front.costs[:, 0].max() * 1.01, front.costs[:, 1].max() * 1.01)
        _, told = searched(
            "nsga2", at_224, lambda X, cost=cost: np.stack([cost(X), macs(X)], axis=1), evaluations=10_000, seed=seed
        )  # type: ignore[misc]
        for n, share in shares.items():
            share.append(optimality_gap(told[:n], front.costs, reference))
        for name in found:
            X, costs = searched(name, at_224, both, evaluations=max(CHECKPOINTS), seed=seed, known=known)
            if name == "exact":
                taus.append([agreement(at_224.genes, X[:n], costs[:n, 0]) for n in CHECKPOINTS])
            for n in CHECKPOINTS:
                found[name][n].append(normalised_hypervolume(costs[:n], ideal=BOX[0], reference=BOX[1]))
    gaps = [
        {"evaluations": n, "share": round(median(v), 4), "least": round(min(v), 4), "most": round(max(v), 4)}
        for n, v in shares.items()
    ]
    record("exact_gap", gaps, title="NSGA-II: share of the exact front's hypervolume", seeds=SEEDS)
    quality = [
        {
            "rows from": name,
            "evaluations": n,
            "hypervolume": round(median(v), 4),
            "least": round(min(v), 4),
            "most": round(max(v), 4),
        }
        for name, by in found.items()
        for n, v in by.items()
    ]
    notes = {"agreement at each number": taus, "values": found}
    record("exact_search", quality, title="top-1 and MACs of Once-for-All", seeds=SEEDS, notes=notes)


def main(parts: Sequence[str]) -> int:
    enough = "fronts" not in parts or measure_fronts()
    if "searches" in parts:
        measure_searches()
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ("fronts", "searches")))
