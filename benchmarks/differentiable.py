"""Gradient searches on cells, beside DARTS that collapses: how many skips they choose, what the cells are worth.

    python benchmarks/differentiable.py

Three parts. Law: ordered pairs of the Gumbel top-k draw against Plackett-Luce, beside independent draws. Memory: what
autograd keeps alive at once in a step of K sub-graphs, walked one by one and all together. Collapse: every arm searches
the 64 cells over {skip, conv3x3} with the same steps and seeds; all 64 cells are trained alone from scratch, so that
what an arm finds is looked up among all there is. Nothing but the skip share of plain DARTS was looked at when the
settings were chosen (see the notes in the result), on other seeds. Exits with 1 if the law or the memory misses its
bound.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import product
from pathlib import Path
from statistics import mean, stdev
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
MEMORY_BOUND = 1.05  # peak of a step of many sub-graphs, over that of one
EDGES = 6
SIZE, CELLS, CHANNELS = 7, 6, 4  # images of 7 x 7: means of 4 x 4 pixels
SEARCH_IMAGES, TRAIN_IMAGES, TEST_IMAGES = 512, 1024, 5000
ALONE_EPOCHS, ALONE_SEEDS = 6, 2
COMMON: dict[str, Any] = {"epochs": 30, "batch": 16, "learning_rate": 0.1, "policy_learning_rate": 0.05}

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
    space = build(
        Config(resolution=16, operations=operations, channels=16, stages=2, cells=2), in_channels=3, classes=10
    )
    images = Split(torch.randn(64, 3, 16, 16), torch.arange(64) % 10)
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
        resolution=SIZE, operations=("skip", "conv3x3"), channels=CHANNELS, stages=1, cells=CELLS, affine=affine
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
    found, train, test = data()
    accuracies: dict[str, list[float]] = {}
    for cell in product((0, 1), repeat=EDGES):
        accuracies["".join(map(str, cell))] = [alone(cell, seed, train, test) for seed in range(ALONE_SEEDS)]
    print(f"64 cells trained alone, {time.process_time() - began:.0f} CPU-s", flush=True)
    runs = []
    for arm in ARMS:
        for seed in range(SEEDS):
            run = search(arm, seed, found)
            runs.append({**run, "accuracy": mean(accuracies[run["cell"]])})
            print(*(run[key] for key in ("arm", "seed", "cell", "skip_weight", "cpu_s")), flush=True)
    truth = {cell: mean(both) for cell, both in accuracies.items()}
    ranked = sorted(truth.values())
    rows: list[Row] = []
    for arm in ARMS:
        of_arm = [run for run in runs if run["arm"] == arm]
        rows.append(summary(arm, of_arm, ranked))
    baselines = {
        "a random cell": list(truth),
        "no skips": ["1" * EDGES],
        "all skips": ["0" * EDGES],
        "best of all 64": [max(truth, key=lambda cell: truth[cell])],
    }
    for name, cells in baselines.items():
        shares = [cell.count("0") / EDGES for cell in cells]
        found_alone = [
            {"skips": share, "skip_weight": share, "accuracy": truth[cell]}
            for share, cell in zip(shares, cells, strict=True)
        ]
        rows.append(summary(name, found_alone, ranked))
    halves = np.array([accuracies[cell] for cell in truth])
    notes = {
        "law": drawn,
        "memory": peaks,
        "cells": accuracies,
        "seed_to_seed_correlation": float(np.corrcoef(halves[:, 0], halves[:, 1])[0, 1]),
        "seed_to_seed_std": float((halves[:, 0] - halves[:, 1]).std() / 2**0.5),
        "runs": runs,
        "search": {**COMMON, "images": SEARCH_IMAGES, "cells": CELLS, "channels": CHANNELS, "size": SIZE},
        "alone": {"images": TRAIN_IMAGES, "epochs": ALONE_EPOCHS, "test_images": TEST_IMAGES, "seeds": ALONE_SEEDS},
        "cpu_s": round(time.process_time() - began),
    }
    record("differentiable", rows, title="Cells that gradient searches find", seeds=range(SEEDS), notes=notes)
    flat = max(float(row["peak_mib_most"] or 0) for row in peaks[:-1]) / float(peaks[0]["peak_mib"] or 1)
    sys.exit(int(float(drawn["largest_error"] or 0) >= LAW_BOUND or flat > MEMORY_BOUND))


def summary(name: str, runs: list[dict[str, Any]], ranked: list[float]) -> Row:
    """Means and deviations over the seeds of an arm; `rank` is the share of all cells that are worse."""
    accuracy = [run["accuracy"] for run in runs]
    return {
        "arm": name,
        "skips": mean(run["skips"] for run in runs),
        "skip_weight": mean(run["skip_weight"] for run in runs),
        "accuracy": mean(accuracy),
        "accuracy_std": stdev(accuracy) if len(accuracy) > 1 else 0.0,
        "accuracy_median": float(np.median(accuracy)),
        "rank": float(np.mean([np.mean([other < value for other in ranked]) for value in accuracy])),
        "cpu_s": mean(run.get("cpu_s", 0.0) for run in runs),
    }


if __name__ == "__main__":
    main()
