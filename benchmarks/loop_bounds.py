"""How near the search loop comes to its floor, the same evaluations in one call, in a space of 45 genes.

Latency is the sum of table entries over 20 blocks (hwnas' AdditiveCost). Accuracy is once such a sum too, once an MLP
of three layers of 400, as latency and accuracy predictors commonly are. Everything runs in one thread and is timed in
CPU seconds; the contestants take turns in every repeat, so that a busy machine slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from statistics import median

import numpy as np

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import FloatArray, Gene, IntArray

Costs = Callable[[IntArray], FloatArray]
Run = Callable[[tuple[Gene, ...], Costs, int, int, int], None]  # genes, costs, candidates, population, seed

POPULATIONS = (100, 1000)
REPEATS = 7
CANDIDATES = 10_000
LEAST_PER_SECOND = 40_000  # with sums alone
LEAST_SHARE = 0.5  # of what the MLP alone allows

FLOOR = "evaluations, one call"

STAGES, BLOCKS, WIDTH = 5, 4, 400


def space() -> tuple[Gene, ...]:
    """Depths of five stages, kernels and expansions of their blocks; those of blocks beyond the depth are off."""
    depths = [Gene(f"s{s}.depth", (2, 3, 4)) for s in range(STAGES)]

    def needs(stage: int, block: int) -> tuple[str, frozenset[int]] | None:
        return None if block < 2 else (f"s{stage}.depth", frozenset(range(block - 1, 3)))

    places = [(s, b) for s in range(STAGES) for b in range(BLOCKS)]
    kernels = [Gene(f"s{s}.b{b}.kernel", (3, 5, 7), needs(s, b)) for s, b in places]
    expansions = [Gene(f"s{s}.b{b}.expansion", (3, 4, 6), needs(s, b)) for s, b in places]
    return (*depths, *kernels, *expansions)


def blocks_sum(genes: tuple[Gene, ...], entries: FloatArray) -> AdditiveCost:
    """The sum over the blocks that are there of `entries` (blocks, kernel, expansion)."""
    scopes, arrays = [], []
    for i in range(STAGES * BLOCKS):
        stage, block = divmod(i, BLOCKS)
        array = np.zeros((3, 3, 3))
        array[max(block - 1, 0) :] = entries[i]
        scopes.append((stage, STAGES + i, STAGES + STAGES * BLOCKS + i))
        arrays.append(array)
    return AdditiveCost(genes, tuple(scopes), tuple(arrays))


def mlp(genes: tuple[Gene, ...], rng: np.random.Generator) -> Costs:
    """One-hot genes through three hidden layers, in numpy.

    On batches of 100 torch takes as long by itself, and up to half more between other work; on 10,000 rows both are
    equal.
    """
    one_hot = np.eye(3, dtype=np.float32)
    sizes = (3 * len(genes), WIDTH, WIDTH, WIDTH, 1)
    weights = [(rng.normal(size=size) * np.sqrt(2 / size[0])).astype(np.float32) for size in pairwise(sizes)]
    biases = [np.zeros(size, dtype=np.float32) for size in sizes[1:]]

    def costs(X: IntArray) -> FloatArray:
        hidden = one_hot[X].reshape(len(X), -1)
        for weight, bias in zip(weights[:-1], biases, strict=False):
            hidden = hidden @ weight
            hidden += bias
            np.maximum(hidden, 0, out=hidden)
        return np.asarray((hidden @ weights[-1] + biases[-1])[:, 0], dtype=np.float64)

    return costs


def problems(genes: tuple[Gene, ...]) -> dict[str, Costs]:
    rng = np.random.default_rng(0)
    capacity = np.arange(1, 4)[:, None] * np.array([3, 4, 6])
    latency = blocks_sum(genes, capacity * rng.uniform(0.5, 2, (STAGES * BLOCKS, 1, 1)))
    gain = blocks_sum(genes, np.log1p(capacity) * rng.uniform(0.5, 2, (STAGES * BLOCKS, 1, 1)))
    learned = mlp(genes, rng)
    return {
        "sums": lambda X: np.stack([latency(X), -gain(X)], axis=1),
        "MLP": lambda X: np.stack([latency(X), learned(X)], axis=1),
    }


def candidates_per_second(contestants: dict[str, Run]) -> tuple[list[dict[str, str | int | float]], list[str]]:
    """Rows of medians with their spread, and the bounds that were missed by the contestant called hwnas."""
    genes = space()
    X = np.random.default_rng(0).integers(0, 3, (CANDIDATES, len(genes)))
    rows: list[dict[str, str | int | float]] = []
    missed: list[str] = []
    for problem, costs in problems(genes).items():
        for population in POPULATIONS:
            figures = _figures(genes, X, costs, population, contestants)
            for name, values in figures.items():
                share = median(own / floor for own, floor in zip(values, figures[FLOOR], strict=True))
                rows.append(
                    {
                        "accuracy": problem,
                        "population": population,
                        "loop": name,
                        "median": round(median(values)),
                        "least": round(min(values)),
                        "most": round(max(values)),
                        "share of one call": round(share, 3),
                    }
                )
                if name == "hwnas" and problem == "sums" and median(values) < LEAST_PER_SECOND:
                    missed.append(f"{median(values):.0f} candidates a CPU-second with sums, population {population}")
                if name == "hwnas" and problem == "MLP" and share < LEAST_SHARE:
                    missed.append(f"{share:.2f} of what the MLP alone allows, population {population}")
    return rows, missed


def _figures(
    genes: tuple[Gene, ...], X: IntArray, costs: Costs, population: int, contestants: dict[str, Run]
) -> dict[str, list[float]]:
    """Candidates a CPU-second of each contestant and of the evaluations alone, a figure a repeat."""

    def in_batches(_: int) -> None:
        for start in range(0, len(X), population):
            costs(X[start : start + population])

    runs: dict[str, Callable[[int], object]] = {
        FLOOR: lambda _: costs(X),
        "evaluations, a population a call": in_batches,
    }
    for name, run in contestants.items():
        runs[name] = partial(run, genes, costs, len(X), population)
    figures: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(REPEATS + 1):
        for name, once in runs.items():
            start = time.process_time()
            once(repeat)
            if repeat:  # imports and first calls are not the loop
                figures[name].append(len(X) / (time.process_time() - start))
    return figures
