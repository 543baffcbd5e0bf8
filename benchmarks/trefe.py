"""Natural-gradient search beside evolution under a latency limit, and walks down a lattice of resolutions.

    python benchmarks/trefe.py            # the figures
    python benchmarks/trefe.py choose     # what the populations and the step were chosen by

Search (HWNAS_DATA or ../shared/data): (a) NAS-Bench-201, error on CIFAR-100 after 200 epochs, on eight devices whose
measured latency must keep the quantile LIMIT of all cells; the best cell within the limit is known, so the figure is
what the best one found lacks of its accuracy, in points. (b) Once-for-All MobileNetV3 on ImageNet by a surrogate of
measured subnets, within a latency on a Titan XP (batch 64) that a ridge regression of 5,000 measured subnets predicts;
the figure is the best top-1 found. Only cells and subnets within the limit count as evaluations: whether one keeps it
is looked up or predicted before, by the algorithms that ask and, for those that do not, by the search. Populations were
chosen for every algorithm by itself, with other seeds: for (a) on other devices and CIFAR-10, for (b) on forty additive
genes.

Paths: how many there are, and what a walk sees of them that chooses among the moves of a layer alike instead of among
paths; computed exactly.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict

from hwnas.engine.algorithms import Known, make, natural_gradient
from hwnas.engine.architecture import FloatArray, Gene, IntArray, canonical
from hwnas.engine.spaces.downsampling_paths import PAPER
from hwnas.engine.spaces.tabular import Metric, TabularSpace

sys.path.insert(0, str(Path(__file__).parent))
from record import Row, record

DATA = Path(os.environ.get("HWNAS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
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
CHOSEN_ON = ("essential_ph_1", "silver_4210r", "titanx_32", "1080ti_256")
LIMIT = 0.3  # quantile of the latencies of all cells; of 2,000 random subnets of Once-for-All
CHECKPOINTS = (50, 100, 200, 400)
SEEDS, DEVICE_SEEDS = 10, 5
POPULATIONS = {
    "cells": {"natural_gradient": 10, "ga": 10, "flownas": 10, "hat": 25, "nsga2": 10, "aging": 50, "random": 25},
    "additive": {"natural_gradient": 10, "ga": 10, "flownas": 10, "hat": 10, "nsga2": 10, "aging": 25, "random": 25},
}


@dataclass(frozen=True)
class Problem:
    """One objective under one limit."""

    name: str
    genes: tuple[Gene, ...]
    costs: Callable[[IntArray], FloatArray]  # error in %, (n,)
    violation: Callable[[IntArray], FloatArray]
    best: float  # the lowest error within the limit, 0 where it is not known


# ---- problems -------------------------------------------------------------------------------------------------------


@cache
def cells() -> pd.DataFrame:
    frame = pd.read_parquet(DATA / "nb201_latency.parquet")
    return frame.merge(pd.read_parquet(DATA / "nb201_accuracy.parquet").drop(columns="arch_str"), on="idx")


@cache
def nasbench(device: str, accuracy: str) -> Problem:
    """Options are listed from small to large: nothing, skip, pooling, 1x1, 3x3."""
    edges = [Gene(f"op{edge}", (0, 1, 4, 2, 3)) for edge in range(6)]
    metrics = [Metric(column=accuracy, maximised=True, scale=0.01), Metric(column=f"lat_{device}", unit="ms")]
    space = TabularSpace.of(cells(), edges, metrics, source=str(DATA))
    upper = float(np.quantile(space.costs[:, 1], LIMIT))
    best = float(space.costs[space.costs[:, 1] <= upper, 0].min() * 100)
    return Problem(
        device,
        space.genes,
        lambda X: space.look_up(X)[:, 0] * 100,
        lambda X: np.maximum(space.look_up(X)[:, 1] / upper - 1, 0),
        best,
    )


@cache
def once_for_all() -> tuple[Problem, float]:
    """The problem, and the cross-validated relative error of its latency."""
    spec = importlib.util.spec_from_file_location("ofa_surrogate", DATA / "ofa_surrogate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    surrogate = module.OfaSurrogate()
    deep_enough = {2: frozenset({1, 2}), 3: frozenset({2})}
    blocks = [(s, b) for s in range(5) for b in range(4)]
    genes = (
        *(Gene(f"s{s}.depth", (2, 3, 4)) for s in range(5)),
        *(
            Gene(f"s{s}.b{b}.{kind}", options, (f"s{s}.depth", deep_enough[b]) if b in deep_enough else None)
            for kind, options in (("kernel", (3, 5, 7)), ("expansion", (3, 4, 6)))
            for s, b in blocks
        ),
    )

    def features(X: IntArray, resolutions: FloatArray) -> FloatArray:
        on = np.arange(4) < (X[:, :5] + 2)[:, :, None]
        codes = np.where(on.reshape(len(X), 20), X[:, 5:25] * 3 + X[:, 25:45] + 1, 0)
        held = (codes[:, :, None] == np.arange(1, 10)).reshape(len(X), -1)
        area = (resolutions / 224) ** 2
        return np.concatenate([held, held * area[:, None], area[:, None]], axis=1)

    measured = pd.read_parquet(DATA / "ofa_latency.parquet")
    columns = [[f"d{i}" for i in range(5)], [f"ks{i}" for i in range(20)], [f"e{i}" for i in range(20)]]
    coded = [measured[names].to_numpy() for names in columns]
    options = ((2, 3, 4), (3, 5, 7), (3, 4, 6))
    rows = np.concatenate([np.searchsorted(o, c) for o, c in zip(options, coded, strict=True)], axis=1)
    A, latency = features(rows, measured["r"].to_numpy(float)), measured["lat_titan_xp_64"].to_numpy(float)
    error = float(np.median(np.abs(cross_val_predict(Ridge(1.0), A, latency, cv=5) / latency - 1)))
    model = Ridge(1.0).fit(A, latency)

    def predicted(X: IntArray) -> FloatArray:
        return np.asarray(model.predict(features(X, np.full(len(X), 224.0))))

    drawn = canonical(genes, np.random.default_rng(0).integers(0, 3, (2000, 45)))
    upper = float(np.quantile(predicted(drawn), LIMIT))
    problem = Problem(
        f"Once-for-All, at most {upper:.1f} ms",
        genes,
        lambda X: np.asarray(100 - surrogate(X)[0]),
        lambda X: np.maximum(predicted(X) / upper - 1, 0),
        0.0,
    )
    return problem, error


# ---- searches -------------------------------------------------------------------------------------------------------


def curve(name: str, problem: Problem, seed: int, population: int, most: int = CHECKPOINTS[-1]) -> FloatArray:
    """What the best within the limit lacks after 1, 2, ... evaluations, (most,)."""
    known = Known(costs=(None,), violation=problem.violation)
    algorithm = make(name, problem.genes, population=population, rng=np.random.default_rng(seed), known=known)
    found: list[float] = []
    while len(found) < most:
        X = algorithm.ask()
        if len(X) == 0:
            break
        broken = problem.violation(X)
        costs = np.full(len(X), np.nan)
        costs[broken <= 0] = problem.costs(X[broken <= 0])
        algorithm.tell(X, costs[:, None], broken)
        found += costs[broken <= 0].tolist()
    return np.minimum.accumulate(np.array(found[:most])) - problem.best


def additive() -> Problem:
    """Forty genes of six options that cost more and, with diminishing returns, gain more."""
    rng = np.random.default_rng(1)
    genes = tuple(Gene(f"g{i}", tuple(range(6))) for i in range(40))
    price = np.cumsum(rng.random((40, 6)), axis=1)
    gain = np.cumsum(rng.random((40, 6)) * 0.7 ** np.arange(6), axis=1)
    columns = np.arange(40)
    upper = float(np.quantile(price[columns, rng.integers(0, 6, (2000, 40))].sum(1), LIMIT))
    return Problem(
        "additive",
        genes,
        lambda X: 100 - 100 * gain[columns, X].sum(1) / gain.max(1).sum(),
        lambda X: np.maximum(price[columns, X].sum(1) / upper - 1, 0),
        0.0,
    )


def choose() -> None:
    """Means after 100, 200, 400 evaluations on devices, a data set, a problem and seeds that are not reported."""
    families = {
        "cells": [nasbench(device, "c10_test_200ep") for device in CHOSEN_ON],
        "additive": [additive()],
    }

    def shown(family: str, name: str, population: int) -> str:
        problems = families[family]
        found = [curve(name, p, seed, population)[[99, 199, 399]] for p in problems for seed in range(101, 111)]
        return f"{family:9} {name:17} population {population}: " + " ".join(f"{v:.3f}" for v in np.mean(found, axis=0))

    for family in families:
        for name in POPULATIONS[family]:
            for population in (10, 25, 50):
                print(shown(family, name, population), flush=True)
        before = natural_gradient.STEP
        for step in (0.5, 2.0, 4.0):
            natural_gradient.STEP = step
            for population in (5, 10, 25):
                print(f"step {step}", shown(family, "natural_gradient", population), flush=True)
        natural_gradient.STEP = before


def compared(
    problems: Sequence[Problem], seeds: range, populations: Mapping[str, int]
) -> tuple[list[Row], dict[str, Any]]:
    """A row an algorithm and checkpoint over all problems and seeds, and every figure."""
    curves = {
        name: np.array([curve(name, problem, seed, population) for problem in problems for seed in seeds])
        for name, population in populations.items()
    }
    rows: list[Row] = []
    for name, found in curves.items():
        for n in CHECKPOINTS:
            here, ours = found[:, n - 1], curves["natural_gradient"][:, n - 1]
            differ = bool((here != ours).any())
            rows.append(
                {
                    "algorithm": name,
                    "evaluations": n,
                    "median": round(float(np.median(here)), 3),
                    "mean": round(float(here.mean()), 3),
                    "least": round(float(here.min()), 3),
                    "most": round(float(here.max()), 3),
                    "natural gradient is better in": round(float((ours < here - 1e-9).mean()), 2),
                    "and worse in": round(float((ours > here + 1e-9).mean()), 2),
                    "p (Wilcoxon)": round(float(wilcoxon(ours, here).pvalue), 4) if differ else None,
                }
            )
    return rows, {name: found[:, [n - 1 for n in CHECKPOINTS]].round(4).tolist() for name, found in curves.items()}


# ---- paths ----------------------------------------------------------------------------------------------------------


def paths() -> list[Row]:
    """Exact figures of the lattice of TREFE's handwriting space."""
    lattice = PAPER.lattice
    rows: list[Row] = []
    for name, entropy, lowest in (
        ("uniform over paths", lattice.entropy(uniform=True), lattice.mean_lowest_layer(uniform=True)),
        ("uniform over moves", lattice.entropy(uniform=False), lattice.mean_lowest_layer(uniform=False)),
    ):
        rows.append(
            {
                "draws": name,
                "paths": lattice.count_paths(),
                "entropy (nats)": round(entropy, 3),
                "as many as": round(float(np.exp(entropy))),
                "mean layer at which height 1 is reached": round(lowest, 2),
            }
        )
    return rows


def main() -> int:
    record("trefe_paths", paths(), title="paths from 32 x W to 1 x W/4 in 20 layers")
    if not (DATA / "nb201_latency.parquet").exists():
        print(f"{DATA}: no nb201_latency.parquet: say in HWNAS_DATA where it lies; the searches were left out")
        return 0
    rows, values = compared(
        [nasbench(device, "c100_test_200ep") for device in DEVICES], range(DEVICE_SEEDS), POPULATIONS["cells"]
    )
    record(
        "trefe_nasbench201",
        rows,
        title=f"points of accuracy missing, {len(DEVICES)} devices, {DEVICE_SEEDS} seeds each, quantile {LIMIT}",
        seeds=range(DEVICE_SEEDS),
        notes={"devices": DEVICES, "populations": POPULATIONS["cells"], "values": values},
    )
    problem, error = once_for_all()
    rows, values = compared([problem], range(SEEDS), POPULATIONS["additive"])
    record(
        "trefe_once_for_all",
        rows,
        title=f"top-1 error in %, {problem.name} predicted (median error {error:.1%})",
        seeds=range(SEEDS),
        notes={"populations": POPULATIONS["additive"], "latency_error": error, "values": values},
    )
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["choose"]:
        choose()
    else:
        sys.exit(main())
