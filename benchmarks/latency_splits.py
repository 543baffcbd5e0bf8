"""How the public latency tables are split, and by what figures predictions are judged."""

from __future__ import annotations

import numpy as np
import pandas as pd
from latency_sets import FloatArray, IntArray, LatencySet

from hwnas.latency.predictors._regression import View

SEEDS = (0, 1, 2, 3, 4)
OWN, POOL, PROBES = 900, 3000, 10
TRANSFER_VIEWS = (View((1.0,)), View((0.3,), scaled=False), View((0.3,), length=2.0))  # of costs, parts, costs


def halves(each: LatencySet, seed: int) -> tuple[IntArray, IntArray]:
    """Rows to fit on and rows to test on, shuffled; networks of one group are on one side."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.unique(each.groups))
    first = np.isin(each.groups, groups[: len(groups) // 2])
    return rng.permutation(np.flatnonzero(first)), rng.permutation(np.flatnonzero(~first))


def family(device: str) -> str:
    """The chip of a device, without the model's number of a phone and the batch size."""
    words = device.split("_")
    return "_".join(words[:2]) if words[0] == "titan" else words[0]


def figures(mean: FloatArray, std: FloatArray | None, measured: FloatArray) -> dict[str, float | None]:
    relative = np.abs(mean / measured - 1)
    inside = None if std is None else float(np.mean(np.abs(mean - measured) <= 1.6449 * std))
    ranks = np.corrcoef(pd.Series(mean).rank(), pd.Series(measured).rank())[0, 1]
    return {
        "spearman": float(ranks),
        "mape": 100 * float(relative.mean()),
        "within_10": 100 * float(np.mean(relative <= 0.1)),
        "inside_90": None if inside is None else 100 * inside,
    }
