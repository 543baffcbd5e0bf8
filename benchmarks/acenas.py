"""What finds the top of NAS-Bench-201 from few trainings: LambdaRank, other losses and rankers, untrained proxies.

    python benchmarks/acenas.py [rankers] [rounds] [proxies]

Needs ../shared/data/nb201_*.parquet. The truth is the mean test accuracy on CIFAR-10 after 200 epochs. One spelling of
each of the 6,466 different cells is kept, so that no cell is learned from under one name and predicted under another.

rankers: 30, 60, 100 random cells are trained, all others are to be ordered. One graph network, and a perceptron on
one-hot genes, under four losses; AceNAS' relevance (scale 20), whole pools as lists, two members of 80 steps;
settings were tried on the same cells' ImageNet16 labels with other seeds and left as they were. "weak start" pretrains
on the 12-epoch validation accuracy of 500
other random cells, a stand-in for AceNAS' supernet accuracy (its tau with the truth is 0.58), and MACs: 500 x 12 epochs
are the cost of 30 full trainings, so 30 with it compares with 60 without. A Gaussian process is told the same weak
labels through the prediction of another one. Differences to the squared error of the same network are paired by seed,
with a 95 % bootstrap interval of the mean.

rounds: 10 searches of 100 trainings, 20 at a time, on the whole table, told the test accuracy that they are judged by
(the table has no validation accuracy after 200 epochs).

proxies: 100 random cells of the same space, 3 cells deep, 16 channels, on 32 images of Fashion-MNIST at 16 pixels,
as initialised (3 seeds), against the same CIFAR-10 truth; and KNAS' second stage: the best of k taken by the proxy
beside the best of k random ones.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # bits repeat on one thread only

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau

from hwnas.engine import algorithms, proxies, rankers
from hwnas.engine.algorithms.active_ranking import ActiveRanking, two_stages
from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.objective import Costs
from hwnas.engine.rankers._graph import Graph
from hwnas.engine.rankers._losses import LambdaNdcg, Loss, PairwiseLogistic, SquaredError
from hwnas.engine.rankers._neural import Neural
from hwnas.engine.ranking import Relevance, ndcg, ranking_report, regret
from hwnas.engine.spaces.cell import Config, build
from hwnas.engine.tasks import npz

sys.path.insert(0, str(Path(__file__).parent))
from record import record

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TRUTH, WEAK = "c10_test_200ep", "c10_val_12ep"
SEEDS, BUDGETS, TOP = 20, (30, 60, 100), 10
LABELLED = 500  # cells with a weak label
CELL = Graph.cell([(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)])
SPACE = build(Config(resolution=16, cells=1), in_channels=1, classes=10)
GENES = SPACE.genes
# gradient_kernel_released needs a pass back a pair of images, sixteen times the time of the others
PROXIES = ("gradient_kernel", "naswot", "zen")
CELLS, IMAGES, INITIALISATIONS, TAKEN = 100, 32, 3, (5, 10, 20, 40)
EVALUATIONS, BATCH, SEARCHES = 100, 20, 10
NETWORK = {"members": 2, "steps": 80, "width": 24, "rounds": 2}  # a third of the default's time


@dataclass(frozen=True)
class Table:
    """Cells with what is known of them."""

    X: IntArray  # (cells, 6)
    truth: FloatArray  # top-1 in %
    weak: FloatArray  # likewise

    @classmethod
    def read(cls, *, different: bool) -> Table:
        """All spellings, or the first of each different cell."""
        cells = pd.read_parquet(DATA / "nb201_latency.parquet")
        found = pd.read_parquet(DATA / "nb201_accuracy.parquet").set_index("arch_str").loc[cells.arch_str]
        kept = ~found.canonical.duplicated().to_numpy() if different else np.ones(len(found), dtype=bool)
        X = cells[[f"op{i}" for i in range(6)]].to_numpy().astype(np.int64)
        return cls(X[kept], found[TRUTH].to_numpy()[kept], found[WEAK].to_numpy()[kept])


def macs(X: IntArray) -> FloatArray:
    """MACs of a cell in those of a 1x1 convolution: every stage does the same work, so one cell stands for all."""
    return np.array([0.0, 0.0, 1.0, 9.0, 0.0])[X].sum(1)


def params(X: IntArray) -> FloatArray:
    """Parameters of the published networks' cells: convolutions and their BatchNorms at 16, 32 and 64 channels."""
    each = [sum(5 * (k * c * c + 2 * c) for c in (16, 32, 64)) for k in (1, 9)]
    return np.array([0.0, 0.0, *each, 0.0])[X].sum(1)


# ---- rankers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Draw:
    """What one seed has to learn from."""

    table: Table
    labelled: IntArray  # cells with a weak label
    trained: IntArray  # cells with the truth, for all budgets: the first are those of the smallest
    seed: int

    @classmethod
    def of(cls, table: Table, seed: int) -> Draw:
        order = np.random.default_rng(seed).permutation(len(table.X))
        return cls(table, order[-LABELLED:], order[: BUDGETS[-1]], seed)

    def rng(self) -> np.random.Generator:
        """The same for every contestant: networks begin with the same weights."""
        return np.random.default_rng([self.seed, 1])


Scores = Callable[[IntArray, IntArray], FloatArray]  # trained, to be ordered -> scores
Contestant = Callable[[Draw], Scores]


def network(loss: Loss, start: str = "", *, graph: Graph | None = CELL) -> Contestant:
    """Pretrained once a seed, whatever the budget and the loss."""

    def begin(draw: Draw) -> Scores:
        table, ranker = draw.table, begun(draw, start, graph).with_loss(loss)

        def scores(trained: IntArray, others: IntArray) -> FloatArray:
            return ranker.fit(table.X[trained], 1 - table.truth[trained] / 100).score(table.X[others])

        return scores

    return begin


@lru_cache(maxsize=4)
def begun(draw: Draw, start: str, graph: Graph | None) -> Neural:
    """A network that has learned no truth."""
    table, X = draw.table, draw.table.X[draw.labelled]
    ranker = Neural(GENES, rng=draw.rng(), loss=SquaredError(), graph=graph, rows_a_list=BUDGETS[-1], **NETWORK)
    if start == "weak":
        ranker.pretrain(X, {"12 epochs": 1 - table.weak[draw.labelled] / 100, "macs": macs(X)})
    return ranker


def known(name: str, *, covariates: Sequence[Costs] = (), weak: bool = False) -> Contestant:
    """A ranker of ours, by name; `weak` adds the prediction of a Gaussian process of the weak labels."""

    def begin(draw: Draw) -> Scores:
        table, beside = draw.table, list(covariates)
        if weak:
            X = table.X[draw.labelled]
            cheap = rankers.make("gaussian_process", GENES, rng=draw.rng())
            cheap.fit(X, 1 - table.weak[draw.labelled] / 100)
            beside.append(lambda X: cheap.predict(X)[0])

        def scores(trained: IntArray, others: IntArray) -> FloatArray:
            ranker = rankers.make(name, GENES, rng=draw.rng(), covariates=beside)
            mean, _ = ranker.fit(table.X[trained], 1 - table.truth[trained] / 100).predict(table.X[others])
            return -mean

        return scores

    return begin


def computed(score: Callable[[Draw, IntArray], FloatArray]) -> Contestant:
    """What is learned from nothing."""
    return lambda draw: lambda _, others: score(draw, others)


def weak_alone(draw: Draw) -> Scores:
    """A Gaussian process of the weak labels, and of no truth."""
    table, X = draw.table, draw.table.X[draw.labelled]
    ranker = rankers.make("gaussian_process", GENES, rng=draw.rng()).fit(X, 1 - table.weak[draw.labelled] / 100)
    return lambda _, others: -ranker.predict(table.X[others])[0]


BASELINE = "graph, squared error"
CONTESTANTS: dict[str, Contestant] = {
    "random order": computed(lambda draw, others: draw.rng().random(len(others))),
    "MACs": computed(lambda draw, others: macs(draw.table.X[others])),
    "parameters": computed(lambda draw, others: params(draw.table.X[others])),
    "weak labels alone": weak_alone,
    "ridge": known("ridge"),
    "Gaussian process": known("gaussian_process"),
    "Gaussian process, weak labels": known("gaussian_process", weak=True),
    "one-hot, squared error": network(SquaredError(), graph=None),
    "one-hot, LambdaRank": network(LambdaNdcg(), graph=None),
    BASELINE: network(SquaredError()),
    "graph, pairwise": network(PairwiseLogistic()),
    "graph, LambdaRank": network(LambdaNdcg()),
    "graph, LambdaRank by target": network(LambdaNdcg("target_ascending")),
    "graph, squared error, weak start": network(SquaredError(), "weak"),
    "graph, LambdaRank, weak start": network(LambdaNdcg(), "weak"),
}


def judged(scores: FloatArray, truth: FloatArray) -> tuple[float, float, float]:
    """NDCG@10, regret@10 in points of accuracy and Kendall's tau; relevance has the bounds of what is ordered."""
    relevant = np.exp2(Relevance.of(truth)(truth)) - 1
    return ndcg(scores, relevant, TOP), regret(scores, truth, TOP), float(kendalltau(scores, truth).statistic)


def compare_rankers() -> None:
    table = Table.read(different=True)
    found = {name: np.full((SEEDS, len(BUDGETS), 3), np.nan) for name in CONTESTANTS}
    spent = dict.fromkeys(CONTESTANTS, 0.0)
    done = 0
    try:
        for seed in range(SEEDS):
            for name, values, seconds in of_seed(table, seed):
                found[name][seed] = values
                spent[name] += seconds
            done += 1
            print(f"seed {seed}: {sum(spent.values()):.0f} CPU s", flush=True)
    except KeyboardInterrupt:
        print(f"interrupted after {done} of {SEEDS} seeds: what is recorded is of these")
    found = {name: values[:done] for name, values in found.items()}
    rows = [row_of(name, k, found) for k in range(len(BUDGETS)) for name in CONTESTANTS]
    notes = {
        "columns of values": ["NDCG@10", "regret@10", "tau"],
        "values by ranker, seed and budget": {name: values.round(4).tolist() for name, values in found.items()},
        "cpu_s": {name: round(value, 1) for name, value in spent.items()},
        "tau of the weak label": round(float(kendalltau(table.weak, table.truth).statistic), 3),
    }
    title = f"order of all other cells after so many trainings: {done} seeds, medians, and means where it says so"
    record("acenas", rows, title=title, seeds=range(done), notes=notes)


def of_seed(table: Table, seed: int) -> Iterator[tuple[str, FloatArray, float]]:
    """Every contestant with its figures (budgets, 3) and its CPU seconds."""
    draw = Draw.of(table, seed)
    # nobody is judged on what somebody has learned from
    others = np.setdiff1d(np.arange(len(table.X)), np.concatenate([draw.trained, draw.labelled]))
    for name, contestant in CONTESTANTS.items():
        start = time.process_time()
        scores = contestant(draw)
        values = [judged(scores(draw.trained[:budget], others), table.truth[others]) for budget in BUDGETS]
        yield name, np.array(values), time.process_time() - start


def row_of(name: str, k: int, found: dict[str, FloatArray]) -> dict[str, str | int | float | None]:
    gain, lost, tau = found[name][:, k].T
    row: dict[str, str | int | float | None] = {"trained": BUDGETS[k], "ranker": name}
    row |= {"NDCG@10": round(float(np.median(gain)), 3), "NDCG mean": round(float(gain.mean()), 3)}
    row |= {"NDCG sd": round(float(gain.std(ddof=1)), 3)}
    row |= {"regret@10": round(float(np.median(lost)), 2), "regret mean": round(float(lost.mean()), 2)}
    row |= {"regret sd": round(float(lost.std(ddof=1)), 2), "tau": round(float(np.median(tau)), 3)}
    for column, of, i in (("NDCG less baseline's", gain, 0), ("regret less baseline's", lost, 1)):
        difference = of - found[BASELINE][:, k, i]
        means = np.random.default_rng(0).choice(difference, (2000, len(difference))).mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        row[column] = f"{difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
    return row


# ---- rounds ---------------------------------------------------------------------------------------------------------


def compare_rounds() -> None:
    table = Table.read(different=False)
    truth = np.zeros((5,) * 6)
    truth[tuple(table.X.T)] = table.truth
    best = float(table.truth.max())

    def active(ranker: str) -> Callable[[int], algorithms.Algorithm]:
        return lambda seed: ActiveRanking(GENES, population=BATCH, rng=np.random.default_rng(seed), ranker=ranker)

    def named(name: str) -> Callable[[int], algorithms.Algorithm]:
        return lambda seed: algorithms.make(name, GENES, population=BATCH, rng=np.random.default_rng(seed))

    def by_macs(seed: int) -> algorithms.Algorithm:
        return two_stages(GENES, population=BATCH, rng=np.random.default_rng(seed), score=lambda X: -macs(X))

    searches = {
        "random": named("random"),
        "two stages, MACs": by_macs,
        "aging evolution": named("aging"),
        "active ranking, ridge": active("ridge"),
        "active ranking, Gaussian process": active("gaussian_process"),
        "active ranking, LambdaRank plugin": active("lambdarank"),
    }
    rows = []
    values: dict[str, list[float]] = {}
    for name, search in searches.items():
        start, values[name] = time.process_time(), []
        for seed in range(SEARCHES):
            algorithm, found, asked = search(seed), 0.0, 0
            while asked < EVALUATIONS and len(X := algorithm.ask()):
                accuracy = truth[tuple(X.T)]
                algorithm.tell(X, (1 - accuracy / 100)[:, None], np.zeros(len(X)))
                asked, found = asked + len(X), max(found, float(accuracy.max()))
            values[name].append(round(best - found, 4))
        lost = np.array(values[name])
        rows.append(
            {
                "search": name,
                "regret": round(float(np.median(lost)), 3),
                "mean": round(float(lost.mean()), 3),
                "sd": round(float(lost.std(ddof=1)), 3),
                "most": round(float(lost.max()), 3),
                "CPU s": round((time.process_time() - start) / SEARCHES, 2),
            }
        )
        print(rows[-1], flush=True)
    title = f"points of accuracy below the best cell ({best:.2f} %) after {EVALUATIONS} trainings: medians"
    record("acenas_rounds", rows, title=title, seeds=range(SEARCHES), notes={"regret": values})


# ---- proxies --------------------------------------------------------------------------------------------------------


def compare_proxies() -> None:
    table = Table.read(different=True)
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(table.X), CELLS, replace=False)
    X, truth = table.X[chosen], table.truth[chosen]
    data = npz.load(npz.Config(path=DATA / "sets" / "fashion_mnist.npz"))
    some = rng.choice(len(data.images), IMAGES, replace=False)
    images, labels = torch.from_numpy(data.images[some]), torch.from_numpy(data.labels[some])
    images = (images - images.mean()) / images.std()
    scores: dict[str, FloatArray] = {"MACs": macs(X)[None], "parameters": params(X)[None]}
    spent = {"MACs": 0.0, "parameters": 0.0}
    for name in PROXIES:
        start = time.process_time()
        scores[name] = proxies.make(name, SPACE, images, labels, seeds=range(INITIALISATIONS)).each(X)
        spent[name] = time.process_time() - start
        print(name, f"{spent[name]:.0f} CPU s", flush=True)
    scores["random"] = rng.random((1, CELLS))
    rows = []
    for name, each in scores.items():
        report = ranking_report(
            each.mean(0), truth, macs=scores["MACs"][0], params=scores["parameters"][0], rng=np.random.default_rng(1)
        )
        own = [kendalltau(a, b).statistic for i, a in enumerate(each) for b in each[:i]]
        row: dict[str, str | float | None] = {"score": name}
        for figure in ("kendall", "kendall_given_macs", "spearman", "ndcg_at_10", "top_tenth"):
            interval = report.figures[figure]
            row[figure] = f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
        ahead = report.ahead["macs"]["kendall"]
        row["kendall less MACs'"] = f"{ahead.value:+.2f} [{ahead.low:+.2f}, {ahead.high:+.2f}]"
        row["tau of seeds"] = f"{min(own):.2f} to {max(own):.2f}" if own else "-"
        for k in TAKEN:  # what a constant score leaves is the mean over all choices of k
            expected = regret(np.zeros(CELLS), truth, k) if name == "random" else regret(each.mean(0), truth, k)
            row[f"lost, best of {k}"] = round(expected, 2)
        row["CPU s"] = round(spent.get(name, 0.0) / CELLS / INITIALISATIONS, 3)
        rows.append(row)
    shown = {"cells": chosen.tolist(), "images": some.tolist()}
    values = {name: each.tolist() for name, each in scores.items()}
    record(
        "proxies",
        rows,
        title=f"untrained networks on Fashion-MNIST against CIFAR-10 accuracy: {CELLS} cells, best {truth.max():.2f} %",
        seeds=range(INITIALISATIONS),
        notes={"scores": values, **shown},
    )


PARTS = {"rankers": compare_rankers, "rounds": compare_rounds, "proxies": compare_proxies}


def main(chosen: Sequence[str]) -> int:
    if unknown := sorted(set(chosen) - set(PARTS)):
        print(f"no part is called {unknown[0]!r}: the parts are {', '.join(PARTS)}")
        return 2
    if not DATA.exists():
        print(f"{DATA} is not there: this compares rankers on the tables that belong in it")
        return 1
    torch.set_num_threads(1)
    for name in chosen or PARTS:
        PARTS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
