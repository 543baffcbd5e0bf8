"""Pruning a space option by option: are random networks of what is left better, at equal latency?

    python benchmarks/pad_nas.py

NAS-Bench-201 (HWNAS_DATA or ../shared/data): options of the six edges are judged by DRAWS random cells a stage that
keep a limit on a device's measured latency (the quantile LIMIT of all cells), and pruned in two stages, five options to
three to two. There is no supernet of these cells here: what would be inherited accuracies are the validation accuracies
after 12 epochs.

The figure is the accuracy after 200 epochs on the test images of random cells within the limit, and the same less that
of cells of the whole space with the same latency (each cell's partner is drawn from the 50 nearest in latency that keep
the limit), so that a space that merely spends more of the limit gains nothing. "random" prunes as many options by
chance. "one stage" prunes five to two at once after as many draws in all; "by margin" keeps what is at most 5 points
worse than the best. "best of 30" is what the accuracy after 12 epochs picks of 30 draws, after 200 epochs. Medians are
over the runs that left a network within the limit.

The chain of noisy digits (ranking_beds.py) has inherited weights: a supernet is trained by uniform single paths,
options are judged by the validation accuracies that JUDGING random networks within the median of MACs inherit, and each
gene loses one of its five widths, or two. The figure is the test accuracy, trained alone (three seeds), of those of 60
random networks that are left in the space, and what is left of it after a line through the logarithm of MACs over all
60, so that keeping the widest gains nothing. Left out where the 60 were not trained (`python benchmarks/ranking.py`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
import pandas as pd
import torch

from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import BoolArray, FloatArray, Gene, IntArray, SearchSpace
from hwnas.engine.evaluation.complexity import block_macs
from hwnas.engine.genome import Genome
from hwnas.engine.pruning import Mask, OperationPruner, Score, diversity, feasible_sample, shrink
from hwnas.engine.spaces.tabular import Metric, TabularSpace
from hwnas.engine.training.trainer import Trainer

sys.path.insert(0, str(Path(__file__).parent))
from ranking_arms import LABELS, Arm, configured, inherited
from ranking_beds import BEDS
from record import Row, record

DATA = Path(os.environ.get("HWNAS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
DEVICES = ("gold_6240", "samsung_a50", "1080ti_1", "titanxp_256")
LIMIT, DRAWS, JUDGED, SEEDS = 0.5, 200, 300, 5
JUDGING = 100
EARLY, TRUE = "c100_val_12ep", "c100_test_200ep"
KEEP = 0.6  # of five options three, of three two
SCORES: tuple[Score, ...] = ("additive", "marginal", "topk_freq", "cost_adjusted")


class ByChance(OperationPruner):
    """Keeps as many options, whatever they are worth."""

    def scores(self, genes, X, values, costs=None):  # type: ignore[no-untyped-def]  # as in the class above
        shape = super().scores(genes, X, values, costs).shape
        return np.random.default_rng(int(X.sum())).random(shape)


def table(device: str) -> TabularSpace:
    frame = pd.read_parquet(DATA / "nb201_latency.parquet")
    frame = frame.merge(pd.read_parquet(DATA / "nb201_accuracy.parquet").drop(columns="arch_str"), on="idx")
    edges = [Gene(f"op{edge}", (0, 1, 4, 2, 3)) for edge in range(6)]
    accuracies = [Metric(column=column, maximised=True, scale=0.01) for column in (EARLY, TRUE)]
    metrics = [*accuracies, Metric(column=f"lat_{device}", unit="ms")]
    return TabularSpace.of(frame, edges, metrics, source=str(DATA))


def matched(space: TabularSpace, latency: FloatArray, upper: float, rng: np.random.Generator) -> IntArray:
    """For each latency the place of a random cell of the whole table among the 50 nearest that keep the limit."""
    kept = np.flatnonzero(space.costs[:, 2] <= upper)
    order = kept[np.argsort(space.costs[kept, 2], kind="stable")]
    places = np.searchsorted(space.costs[order, 2], latency)
    start = np.clip(places - 25, 0, max(0, len(order) - 50))
    return np.asarray(order[start + rng.integers(0, min(50, len(order)), len(latency))])


def pruned(space: TabularSpace, pruner: OperationPruner, stages: int, upper: float, seed: int) -> SearchSpace | None:
    """What is left; None where a stage left nothing within the limit."""
    try:
        left, _ = shrink(
            space,
            pruner,
            stages=stages,
            draws=2 * DRAWS // stages,
            train=lambda _space, _stage: None,  # nothing to train: see above
            values=lambda _space, X: space.look_up(X)[:, 0],
            violation=over(space, upper),
            rng=np.random.default_rng([seed, 1]),
            costs=lambda X: space.look_up(X)[:, 2],
        )
    except ValueError:
        return None
    return left


def over(space: TabularSpace, upper: float) -> Callable[[IntArray], FloatArray]:
    return lambda X: np.maximum(space.look_up(X)[:, 2] / upper - 1, 0)


def figures(space: TabularSpace, left: SearchSpace, upper: float, seed: int) -> dict[str, float] | None:
    """None where nothing that is left keeps the limit."""
    rng = np.random.default_rng([seed, 2])
    whole = Genome.of(left.genes).decode(range(arch.size(left.genes)))
    whole = whole[over(space, upper)(whole) <= 0]
    if len(whole) == 0:
        return None
    X = whole[rng.integers(0, len(whole), JUDGED)]
    costs = space.look_up(X)
    partners = space.costs[matched(space, costs[:, 2], upper, rng)]
    tried = costs[:30]
    return {
        "accuracy": float(100 * (1 - costs[:, 1]).mean()),
        "gain at equal latency": float(100 * (partners[:, 1] - costs[:, 1]).mean()),
        "spread": float(100 * costs[:, 1].std()),
        "latency": float(costs[:, 2].mean() / upper),
        "best of 30": float(100 * (1 - tried[tried[:, 0].argmin(), 1])),
        "log10 size": float(np.log10(arch.size(left.genes))),
        "diversity": diversity(X),
    }


# ---- inherited weights ----------------------------------------------------------------------------------------------


def chain() -> list[Row]:
    """A row a score and number of widths left, over supernets of SEEDS seeds."""
    bed = BEDS["noisy_digits"]
    truth = bed.truth().mean(0)
    macs = AdditiveCost.of(bed.space, block_macs)
    slope, start = np.polyfit(np.log(macs(bed.rows)), truth, 1)
    beyond = truth - (slope * np.log(macs(bed.rows)) + start)
    upper = float(np.median(macs(arch.sample(bed.space.genes, 2000, np.random.default_rng(0)))))
    inside: dict[tuple[str, float], list[BoolArray]] = {}
    for seed in range(SEEDS):
        config = configured(bed, Arm({"name": "uniform"}, LABELS), seed=seed, paths=bed.paths)
        torch.manual_seed(seed)
        supernet = bed.space.supernet()
        Trainer(bed.space, supernet, bed.data, config, None).run()
        rng = np.random.default_rng([seed, 3])
        X = feasible_sample(bed.space.genes, JUDGING, rng, lambda X: np.maximum(macs(X) / upper - 1, 0))
        errors = np.array([1 - inherited(bed.data, supernet, arch.to_architecture(row), bed) for row in X])
        for keep in (0.8, 0.6):
            for score in (*SCORES, "random"):
                pruner = ByChance(keep=keep) if score == "random" else OperationPruner(score=score, keep=keep)
                mask = pruner.mask(bed.space.genes, X, errors, macs(X))
                inside.setdefault((score, keep), []).append(_inside(bed.space.genes, mask, bed.rows))
        print(f"seed {seed}: inherited accuracy {1 - errors.mean():.3f}, at most {1 - errors.min():.3f}", flush=True)
    rows: list[Row] = []
    for (score, keep), found in inside.items():
        gains = [100 * float(truth[rows].mean() - truth.mean()) for rows in found if rows.any()]
        fair = [100 * float(beyond[rows].mean()) for rows in found if rows.any()]
        rows.append(
            {
                "pruned by": score,
                "options kept": keep,
                "networks left of 60": round(float(np.mean([rows.sum() for rows in found])), 1),
                "gain": round(float(np.median(gains)), 2),
                "gain at equal MACs": round(float(np.median(fair)), 2),
                "least": round(min(fair), 2),
                "most": round(max(fair), 2),
                "log MACs": round(float(np.mean([np.log(macs(bed.rows[rows])).mean() for rows in found])), 2),
            }
        )
    return rows


def _inside(genes: Sequence[Gene], mask: Mask, X: IntArray) -> BoolArray:
    """Which rows hold only options of the mask in genes that are on, (n,)."""
    most = max(len(gene.options) for gene in genes)
    table = np.array([[*row, *[False] * (most - len(row))] for row in mask])
    held: BoolArray = (table[np.arange(len(genes)), X] | ~arch.active(genes, X)).all(1)
    return held


# ---- verdict --------------------------------------------------------------------------------------------------------


def main() -> int:
    if not (DATA / "nb201_latency.parquet").exists():
        print(f"{DATA}: no nb201_latency.parquet: say in HWNAS_DATA where it lies; nothing was done")
        return 0
    arms: dict[str, tuple[OperationPruner | None, int]] = {"whole space": (None, 0)}
    arms |= {score: (OperationPruner(score=score, keep=KEEP), 2) for score in SCORES}
    arms["cost_adjusted, one stage"] = (OperationPruner(score="cost_adjusted", keep=0.4), 1)
    arms["cost_adjusted, by margin"] = (OperationPruner(score="cost_adjusted", keep=None, margin=0.05), 2)
    arms["random"] = (ByChance(keep=KEEP), 2)
    found: dict[str, list[dict[str, float] | None]] = {name: [] for name in arms}
    for device in DEVICES:
        space = table(device)
        upper = float(np.quantile(space.costs[:, 2], LIMIT))
        for seed in range(SEEDS):
            for name, (pruner, stages) in arms.items():
                left = space if pruner is None else pruned(space, pruner, stages, upper, seed)
                found[name].append(None if left is None else figures(space, left, upper, seed))
    rows: list[Row] = []
    for name, tried in found.items():
        runs = [run for run in tried if run is not None]
        row: dict[str, str | float] = {
            "pruned by": name,
            "runs that left nothing within the limit": len(tried) - len(runs),
        }
        for key in runs[0]:
            values = [run[key] for run in runs]
            row[key] = round(float(np.median(values)), 2)
            if key in ("accuracy", "gain at equal latency", "best of 30"):
                row[f"{key}, least"] = round(min(values), 2)
                row[f"{key}, most"] = round(max(values), 2)
        rows.append(row)
    record(
        "pad_nas_nasbench201",
        rows,
        title=f"medians over {len(DEVICES)} devices, {SEEDS} seeds each; accuracies in %, latency by the limit",
        seeds=range(SEEDS),
        notes={"devices": DEVICES, "runs": found},
        shown=[key for key in rows[0] if not key.endswith(("least", "most"))],
    )
    return 0


def main_chain() -> int:
    if not BEDS["noisy_digits"].path.exists():
        print("the truth of the chain of noisy digits is not there: run benchmarks/ranking.py first")
        return 0
    record(
        "pad_nas_chain",
        chain(),
        title=f"points of test accuracy alone, {SEEDS} supernets, {JUDGING} networks judged each",
        seeds=range(SEEDS),
    )
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main() or main_chain())
