"""The recipe whose transfer figures are stated with the public latency tables, rebuilt and run on our own splits.

    python benchmarks/latency_recipe.py

The stated figures come from splits that are not published; what splits alone move is seen by running the recipe on
those that benchmarks/latency.py uses. Reads the tables from $HWNAS_DATA (default ../shared/data beside the repository).

The recipe, for a new device: regressions taught by 900 networks of each other device predict every network's latency
there; a network is described by the logarithms of these, of its MACs and of its other costs; 10 probes are chosen by
farthest point; ridge, non-negative least squares on the predicted latencies, kriging and ridge on the costs alone are
mixed by weights of one over the squared error of leaving a probe out. Its regressions are ours with 900 networks. Where
the recipe leaves a choice open (five diverse references or all), both are run.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.optimize import nnls
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV

sys.path.insert(0, str(Path(__file__).parent))
from latency_sets import READERS, FloatArray, IntArray, LatencySet, data_folder
from latency_splits import OWN, POOL, PROBES, SEEDS, TRANSFER_VIEWS, family, figures, halves
from record import Row, record

from hwnas.latency.predictors._regression import Regression

DIVERSE = 5
QUESTIONS = ("new device, known family", "new device, new family")
Guess = Callable[[IntArray, FloatArray, IntArray], FloatArray]  # rows, their log latencies, rows asked -> log latencies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    arguments = parser.parse_args()
    folder = data_folder()
    if not folder.is_dir():
        print(f"no latency tables in {folder}: set HWNAS_DATA to the folder that holds them; nothing was computed")
        return 0
    seeds = SEEDS[: arguments.seeds]
    sets = [each for name in ("FBNet", "NB201", "OFA") for each in READERS[name](folder)]
    tasks = [delayed(_transfer)(each, seed) for each in sets for seed in seeds]
    found = [row for rows in Parallel(n_jobs=arguments.jobs)(tasks) for row in rows]
    record(
        "latency_recipe",
        list(_medians(found)),
        title="The recipe of the stated transfer figures on our splits: median over devices of the mean over seeds",
        seeds=seeds,
        notes={"why": "stated figures come from unpublished splits; compare with latency.json's rows of the same name"},
    )
    return 0


def _transfer(each: LatencySet, seed: int) -> list[dict[str, object]]:
    """Every device of one split from 10 probes, from all others and from those of other families only."""
    warnings.simplefilter("ignore", ConvergenceWarning)  # a length at the end of its range is an answer
    fit, test = halves(each, seed)
    taught, pool = fit[:OWN], test[:POOL]
    inputs, asked = ([each.costs[rows], each.parts[rows], each.costs[rows]] for rows in (taught, pool))
    references = {
        name: Regression(TRANSFER_VIEWS).fit(inputs, latency_ms[taught]).predict(asked)[0]
        for name, latency_ms in each.latency_ms.items()
        if name not in each.flagged
    }
    rows = []
    for device, latency_ms in each.latency_ms.items():
        known = [name for name in references if name != device]
        strangers = [name for name in known if family(name) != family(device)]
        for question, names in zip(QUESTIONS, (known, strangers), strict=True):
            foretold = np.log(np.stack([references[name] for name in names], axis=1))
            for label, chosen in (("all references", foretold), ("5 diverse references", _diverse(foretold))):
                unseen, mean = carried(chosen, np.log1p(each.costs[pool]), latency_ms[pool])
                row = {"set": each.name, "question": question, "model": f"stated recipe, {label}", "device": device}
                rows.append(row | figures(mean, None, latency_ms[pool][unseen]))
    return rows


def carried(references: FloatArray, costs: FloatArray, latency_ms: FloatArray) -> tuple[IntArray, FloatArray]:
    """Rows that were not probed and what is predicted for them, in ms.

    `references` (n, references) and `costs` (n, costs) are logarithms; of `latency_ms` (n,) only the probes are read.
    """
    costs = _standardised(costs)
    described = np.hstack([_standardised(references), costs])
    probes = farthest(described, PROBES)
    known, unseen = np.log(latency_ms[probes]), np.setdiff1d(np.arange(len(latency_ms)), probes)
    relative = np.exp(references) / np.exp(references).mean(0)

    def ridge(columns: FloatArray) -> Guess:
        return lambda rows, logs, asked: (
            RidgeCV(np.logspace(-3, 3, 13)).fit(columns[rows], logs).predict(columns[asked])
        )

    def non_negative(rows: IntArray, logs: FloatArray, asked: IntArray) -> FloatArray:
        weights, _ = nnls(relative[rows], np.exp(logs))
        return np.log(np.maximum(relative[asked] @ weights, np.exp(logs.min()) / 10))

    def kriging(rows: IntArray, logs: FloatArray, asked: IntArray) -> FloatArray:
        kernel = ConstantKernel(1.0) * RBF(3.0, (1, 100)) + WhiteKernel(0.01, (1e-5, 1))
        model = GaussianProcessRegressor(kernel, normalize_y=True).fit(described[rows], logs)
        return model.predict(described[asked])

    weights, guesses = [], []
    for guess in (ridge(described), non_negative, kriging, ridge(costs)):
        left_out = [
            guess(np.delete(probes, i), np.delete(known, i), probes[i : i + 1])[0] - known[i] for i in range(PROBES)
        ]
        weights.append(1 / (np.mean(np.square(left_out)) + 1e-6))
        guesses.append(guess(probes, known, unseen))
    return unseen, np.exp(np.average(guesses, axis=0, weights=weights))


def farthest(points: FloatArray, n: int) -> IntArray:
    """Rows of `n` points, the first nearest to the mean, each next farthest from those before."""
    chosen = [int(np.argmin(((points - points.mean(0)) ** 2).sum(1)))]
    distance = ((points - points[chosen[0]]) ** 2).sum(1)
    while len(chosen) < n:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
    return np.array(chosen)


def _diverse(references: FloatArray) -> FloatArray:
    columns = _standardised(references).T
    return references[:, farthest(columns, min(DIVERSE, len(columns)))]


def _standardised(columns: FloatArray) -> FloatArray:
    scaled: FloatArray = (columns - columns.mean(0)) / (columns.std(0) + 1e-9)
    return scaled


def _medians(found: Sequence[dict[str, object]]) -> Iterator[Row]:
    keys = ["set", "question", "model"]
    means = pd.DataFrame(found).groupby([*keys, "device"], sort=False).mean(numeric_only=True)
    for names, middle in means.groupby(keys, sort=False).median().iterrows():
        yield dict(zip(keys, map(str, names), strict=True)) | {
            "n": PROBES,
            "spearman": round(float(middle["spearman"]), 4),
            "mape": round(float(middle["mape"]), 2),
            "within_10": round(float(middle["within_10"]), 1),
        }


if __name__ == "__main__":
    sys.exit(main())
