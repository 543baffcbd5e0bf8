"""Gradient searches on cells: whether DARTS collapses to skips, what other ways choose, and what the cells are worth.

    python benchmarks/differentiable.py

Three parts. Law: ordered pairs of the Gumbel top-k draw against Plackett-Luce, beside independent draws. Memory: what
autograd keeps alive at once in a step of K sub-graphs, walked one by one and all together. Collapse: every arm searches
cells over {skip, separable3x3} on few images with the same steps and seeds; what it finds is trained from scratch on
more, beside random cells. Settings were chosen by the skips of plain DARTS alone, on other seeds: `TRIED` lists all
that were looked at. Exits with 1 if the law or the memory misses its bound.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any
from weakref import finalize

os.environ.update(OMP_NUM_THREADS="1")  # the bits of a training depend on the number of threads

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.engine.architecture import Architecture
from hwnas.engine.dataset import Split
from hwnas.engine.spaces.cell import CellSpace, Config, build
from hwnas.engine.training.differentiable import DifferentiableConfig, DifferentiableSearch
from hwnas.engine.training.differentiable.relaxation import gumbel_top_k

sys.path.insert(0, str(Path(__file__).parent))
from record import Row, record

FASHION = Path(__file__).resolve().parents[2] / "shared" / "data" / "sets" / "fashion_mnist.npz"
SEEDS = 5
DRAWS, LAW_BOUND = 100_000, 0.005
MEMORY_BOUND = 1.3  # peak of a step of many sub-graphs, over that of one: of more draws the fullest is fuller
EDGES = 6
SIZE, CELLS, CHANNELS = 7, 6, 8  # images of 7 x 7: means of 4 x 4 pixels
SEARCH_IMAGES, TRAIN_IMAGES, TEST_IMAGES = 128, 1024, 4000
ALONE_EPOCHS, ALONE_SEEDS, RANDOM_CELLS = 6, 2, 8
COMMON: dict[str, Any] = {
    "epochs": 100,
    "batch": 16,
    "learning_rate": 0.2,
    "policy_learning_rate": 0.03,
    "weight_decay": 0.0,
}

# plain DARTS before: images, cells, channels, epochs, rates of weights and policy -> skips of six in a seed's cell each
TRIED = (
    "skip, conv3x3: 2048 images of 14 x 14, 4 cells of 8 channels, 4 epochs, batch 64, 0.025, 0.02 -> 1",
    "skip, conv3x3: 2048 images of 8 x 8, 3 cells of 8 channels, 20 epochs, batch 32, 0.1, 0.02 -> 1",
    "skip, conv3x3: 512 images of 8 x 8, 8 cells of 4 channels, 40 epochs, batch 16, 0.1, 0.03 -> 4",
    "skip, conv3x3: 512 images of 7 x 7, 6 cells of 4 channels, 30 epochs, batch 16, 0.1, 0.05 -> 0, 3",
    "skip, conv3x3: 256 images of 7 x 7, 8 cells of 4 channels, 40 epochs, batch 16, 0.1, 0.03 -> 1, 5",
    "skip, conv3x3: 256 images of 7 x 7, 6 cells of 8 channels, 40 epochs, batch 16, 0.1, 0.03 -> 3, 5",
    "skip, conv3x3: 128 images of 7 x 7, 6 cells of 8 channels, 40 or 80 epochs, batch 16, 0.1, 0.03 -> 5, 2, 3",
    "skip, conv3x3: 128 images of 7 x 7, 12 cells of 4 channels, 40 epochs, batch 16, 0.1, 0.03 -> 2, 3, 5",
    "skip, conv1x1, conv3x3, avgpool: 128 images, 6 cells of 8 channels, 40 epochs, batch 16, 0.1, 0.03 -> 0, 0, 0",
    # from here on skip, separable3x3, images of 7 x 7, batch 16
    "128 images, 6 cells of 8 channels, 40 epochs, 0.1, 0.03 -> 3, 5, 3",
    "128 images, 12 cells of 4 channels, 40 epochs, 0.1, 0.03 -> 1, 3",
    "128 images, 6 cells of 8 channels, 40 epochs, 0.025, 0.05 -> 3, 4, 2; 0.1, 0.1 -> 3, 4, 3",
    "128 images, 6 cells of 4 channels, 40 epochs, 0.05, 0.05 -> 3, 3, 3",
    "128 images, 10 cells of 8 channels, 40 epochs, 0.05, 0.05 -> 3, 2, 3",
    "256 images, 6 cells of 8 channels, 40 epochs, 0.025, 0.05 -> 2, 4, 4",
    "64 images, 6 cells of 8 channels, 200 epochs, 0.1, 0.03 -> 6, 4, 4",
    "128 images, 6 cells of 8 channels, 0.1, 0.03: 100 epochs -> 4, 4, 4; 200 -> 4, 5, 4; 100 at 0.1, 0.1 -> 4, 5, 3",
    "128 images, 6 cells of 8 channels, 100 epochs, 0.2, 0.03, no weight decay -> 5, 5, 4",
)

ARMS: dict[str, tuple[bool, dict[str, Any]]] = {  # affine BatchNorm, settings
    "DARTS": (False, {}),
    "DARTS, affine": (True, {}),
    "RF-DARTS": (True, {"trainable": "batch_norm"}),
    "RF-DARTS, classifier": (True, {"trainable": "batch_norm", "train_classifier": True}),
    "GDAS (K=1)": (False, {"paths": 1}),
    "K=2": (False, {"paths": 2}),
    "K=2, DropBlock": (False, {"paths": 2, "drop_block": 0.3}),
    "K=2, DropBlock, distilled": (False, {"paths": 2, "drop_block": 0.3, "distillation": 1.0}),
}


# ---- law and memory -------------------------------------------------------------------------------------------------


def law() -> Row:
    """Largest error of any ordered pair's share, and how often independent draws take one option twice."""
    options = 5
    logits = torch.tensor(np.random.default_rng(0).normal(size=options), dtype=torch.float32)
    chances = logits.double().softmax(0).numpy()
    generator = torch.Generator().manual_seed(0)
    # each edge draws for itself: many edges of equal logits are many draws
    edges = logits.repeat(DRAWS, 1)
    pair = gumbel_top_k(edges, torch.ones_like(edges, dtype=torch.bool), 2, temperature=1.0, generator=generator)
    first, second = (np.array([row[0] for row in sub_graph.executed]) for sub_graph in pair)
    found = np.zeros((options, options))
    np.add.at(found, (first, second), 1 / DRAWS)
    expected = chances[:, None] * chances[None] / (1 - chances[:, None])
    np.fill_diagonal(expected, 0)
    return {
        "draws": DRAWS,
        "largest_error": float(np.abs(found - expected).max()),
        "equal_pairs": float(np.trace(found)),
        "equal_pairs_if_independent": float((chances**2).sum()),
    }


class Alive:
    """Bytes of activations that autograd keeps for the way back, now and at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __enter__(self) -> Alive:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda held: held.tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._hooks.__exit__(*failure)

    def _pack(self, tensor: Tensor) -> Held:
        held = Held(tensor)
        if not isinstance(tensor, nn.Parameter):
            self.now += tensor.nbytes
            self.most = max(self.most, self.now)
            finalize(held, self._forget, tensor.nbytes)
        return held

    def _forget(self, nbytes: int) -> None:
        self.now -= nbytes


class Held:
    """A saved tensor, let go with its graph."""

    def __init__(self, tensor: Tensor) -> None:
        # detached: an output that knew its graph would keep it alive for ever
        self.tensor = tensor.detach()


def memory() -> list[Row]:
    """Peak MiB that autograd keeps in one step on cells of NAS-Bench-201's five operations."""
    # without `none`: a sub-graph that drew it would hold less
    operations = ("skip", "conv1x1", "conv3x3", "separable3x3", "avgpool")
    space = build(Config(resolution=8, operations=operations, channels=8, stages=2, cells=2), in_channels=3, classes=10)
    images = Split(torch.randn(64, 3, 8, 8), torch.arange(64) % 10)
    rows: list[Row] = []
    for paths in (1, 2, 3, 4, 5, None):
        one_by_one, together = [], []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            network = space.supernet()
            with Alive() as alive:
                DifferentiableSearch(
                    space, network, images, DifferentiableConfig(paths=paths, epochs=1, batch=32, seed=seed)
                ).run()
            one_by_one.append(alive.most / 2**20)
            together.append(_together(space, network, images, paths, seed) / 2**20)
        rows.append(
            {
                "sub_graphs": "whole mixture" if paths is None else str(paths),
                "peak_mib": mean(one_by_one),
                "peak_mib_most": max(one_by_one),
                "all_alive_mib": mean(together),
            }
        )
    return rows


def _together(space: CellSpace, network: nn.Module, images: Split, paths: int | None, seed: int) -> int:
    """The same sub-graphs with one backward for the sum of their losses."""
    logits = torch.zeros(len(space.genes), 5, requires_grad=True)
    allowed, generator = torch.ones(logits.shape, dtype=torch.bool), torch.Generator().manual_seed(seed)
    network.train()
    with Alive() as alive:
        if paths is None:
            losses = [network.mixture(images.images[:32], logits.softmax(1)).sum()]  # type: ignore[operator]  # a Mixture
        else:
            drawn = gumbel_top_k(logits, allowed, paths, temperature=10.0, generator=generator)
            losses = [network.mixture(images.images[:32], s.weights, executed=s.executed).sum() for s in drawn]  # type: ignore[operator]
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    return alive.most


# ---- collapse -------------------------------------------------------------------------------------------------------


def images_of(archive: Any, part: str, rows: np.ndarray) -> Split:  # type: ignore[type-arg]
    """Those rows of Fashion-MNIST, small, in units that every part shares."""
    images = torch.from_numpy(archive[f"x_{part}"][rows].astype(np.float32) / 255)[:, None]
    small = F.avg_pool2d(images, 28 // SIZE)
    # mean and deviation of the 60,000 training images at this size
    return Split((small - 0.286) / 0.302, torch.from_numpy(archive[f"y_{part}"][rows].astype(np.int64)))


def space_of(*, affine: bool) -> CellSpace:
    config = Config(
        resolution=SIZE, operations=("skip", "separable3x3"), channels=CHANNELS, stages=1, cells=CELLS, affine=affine
    )
    return build(config, in_channels=1, classes=10)


def search(arm: str, seed: int, images: Split) -> dict[str, Any]:
    """One search: the cell, the skips in it and what the policy gives skips, also over the epochs."""
    affine, settings = ARMS[arm]
    space, began = space_of(affine=affine), time.process_time()
    torch.manual_seed(seed)
    network = space.supernet()
    history = DifferentiableSearch(
        space, network, images, DifferentiableConfig(**{**COMMON, **settings, "seed": seed})
    ).run()
    cell = history[-1].policy.mode()
    return {
        "arm": arm,
        "seed": seed,
        "cell": "".join(map(str, cell)),
        "skips": cell.count(0) / len(cell),
        "skip_weight": float(history[-1].policy.table[:, 0].mean()),
        "by_epoch": [round(float(epoch.policy.table[:, 0].mean()), 3) for epoch in history],
        "weights_loss": history[-1].weights_loss,
        "policy_loss": history[-1].policy_loss,
        "cpu_s": round(time.process_time() - began, 1),
    }


def alone(cell: Architecture, seed: int, train: Split, test: Split) -> float:
    """Test accuracy of one cell trained from scratch, all its weights; the same recipe for every cell."""
    torch.manual_seed(seed)
    network = space_of(affine=True).supernet().subnet(cell).train()  # type: ignore[operator]  # a Supernet
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=3e-4, nesterov=True)
    batch, rng = 32, np.random.default_rng(seed)
    steps = ALONE_EPOCHS * (len(train) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps, pct_start=0.1)
    for _ in range(ALONE_EPOCHS):
        order = torch.from_numpy(rng.permutation(len(train)))
        for start in range(0, len(train) - batch + 1, batch):
            rows = order[start : start + batch]
            optimizer.zero_grad()
            F.cross_entropy(network(train.images[rows]), train.labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.inference_mode():
        right = sum(
            int((network(images).argmax(1) == labels).sum())
            for images, labels in zip(test.images.split(1000), test.labels.split(1000), strict=True)
        )
    return right / len(test)


def data() -> tuple[Split, Split, Split]:
    """Images to search on, to train cells on, and to judge those by."""
    if not FASHION.is_file():
        sys.exit(f"{FASHION}: Fashion-MNIST is not here, so nothing is searched")
    with np.load(FASHION) as archive:
        rows = np.random.default_rng(0).permutation(60_000)
        found = images_of(archive, "train", rows[:SEARCH_IMAGES])
        train = images_of(archive, "train", rows[:TRAIN_IMAGES])
        return found, train, images_of(archive, "test", np.arange(TEST_IMAGES))


def main() -> None:
    torch.set_num_threads(1)
    began = time.process_time()
    drawn, peaks = law(), memory()
    print(drawn, *peaks, sep="\n", flush=True)
    found, train, test = data()
    rng = np.random.default_rng(0)
    random = sorted({"".join(map(str, row)) for row in rng.integers(0, 2, (RANDOM_CELLS, EDGES))})
    accuracies: dict[str, list[float]] = {}

    def worth(cell: str) -> float:
        if cell not in accuracies:
            options = tuple(map(int, cell))
            accuracies[cell] = [alone(options, seed, train, test) for seed in range(ALONE_SEEDS)]
            print("alone", cell, accuracies[cell], flush=True)
        return mean(accuracies[cell])

    runs: list[dict[str, Any]] = []
    for seed in range(SEEDS):
        for arm in ARMS:
            run = search(arm, seed, found)
            print(*(run[key] for key in ("arm", "seed", "cell", "skip_weight", "cpu_s")), flush=True)
            runs.append({**run, "accuracy": worth(run["cell"])})
        rows = [summary(arm, [run for run in runs if run["arm"] == arm]) for arm in ARMS]
        fixed = {"random cells": random, "no skips": ["1" * EDGES], "all skips": ["0" * EDGES]}
        for name, cells in fixed.items():
            rows.append(summary(name, [_cell(cell, worth(cell)) for cell in cells]))
        best = max(accuracies, key=worth)
        rows.append(summary("best of all trained", [_cell(best, worth(best))]))
        notes = {
            "law": drawn,
            "memory": peaks,
            "accuracy_of_cells": accuracies,
            "accuracy_std_between_seeds": mean(stdev(values) for values in accuracies.values()),
            "runs": runs,
            "search": {**COMMON, "images": SEARCH_IMAGES, "cells": CELLS, "channels": CHANNELS, "size": SIZE},
            "alone": {"images": TRAIN_IMAGES, "epochs": ALONE_EPOCHS, "test_images": TEST_IMAGES, "seeds": ALONE_SEEDS},
            "tried_before": TRIED,
            "cpu_s": round(time.process_time() - began),
        }
        title = "Cells that gradient searches find"
        record("differentiable", rows, title=title, seeds=range(seed + 1), notes=notes)
    flat = max(float(row["peak_mib"] or 0) for row in peaks[:-1]) / float(peaks[0]["peak_mib"] or 1)
    sys.exit(int(float(drawn["largest_error"] or 0) >= LAW_BOUND or flat > MEMORY_BOUND))


def _cell(cell: str, accuracy: float) -> dict[str, Any]:
    share = cell.count("0") / EDGES
    return {"skips": share, "skip_weight": share, "accuracy": accuracy}


def summary(name: str, runs: list[dict[str, Any]]) -> Row:
    """Means and deviations over the seeds of an arm, or over cells."""
    accuracy = [run["accuracy"] for run in runs]
    return {
        "arm": name,
        "skips": mean(run["skips"] for run in runs),
        "skip_weight": mean(run["skip_weight"] for run in runs),
        "accuracy": mean(accuracy),
        "accuracy_std": stdev(accuracy) if len(accuracy) > 1 else 0.0,
        "accuracy_median": median(accuracy),
        "cpu_s": mean(run.get("cpu_s", 0.0) for run in runs),
    }


if __name__ == "__main__":
    main()
