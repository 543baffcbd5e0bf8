"""A search of NAS-Bench-201 on real devices, judged by the true front: HWNAS_DATA=FOLDER python examples/nasbench201.py

Every figure is looked up (Dong and Yang, ICLR 2020; latencies of Lee et al., HELP, NeurIPS 2021), so the exact front
is known: printed is the share of its hypervolume that a search finds, median and range of five seeds a device. The
accuracy is that of CIFAR-100's test images after 200 epochs: here it stands for the truth that a search is after.
"""

import os
import sys
from pathlib import Path
from statistics import median

import numpy as np

from hwnas.engine import algorithms
from hwnas.engine.architecture import Gene
from hwnas.engine.front import hypervolume
from hwnas.engine.search import search
from hwnas.engine.spaces.tabular import Metric, TabularSpace, read_table

FOLDER = Path(os.environ.get("HWNAS_DATA", Path(__file__).parents[2] / "shared" / "data"))
DEVICES = ("samsung_a50", "essential_ph_1", "silver_4114", "gold_6240", "2080ti_1")
EVALUATIONS, SEEDS = 500, 5
# from the smallest to the largest: 0 nothing, 1 skip, 4 average pooling, 2 and 3 convolutions of 1x1 and 3x3
EDGES = [Gene(f"op{edge}", (0, 1, 4, 2, 3)) for edge in range(6)]


def table(folder: Path, devices: tuple[str, ...]) -> TabularSpace:
    """Accuracy on CIFAR-100 and latency on each device of all 15,625 cells."""
    accuracies = read_table(folder / "nb201_accuracy.parquet", ["idx", "c100_test_200ep"])[["idx", "c100_test_200ep"]]
    frame = read_table(folder / "nb201_latency.parquet").merge(accuracies, on="idx")
    latencies = [Metric(column=f"lat_{device}", unit="ms") for device in devices]
    accuracy = Metric(column="c100_test_200ep", maximised=True, scale=0.01)
    return TabularSpace.of(frame, EDGES, [accuracy, *latencies], source=str(folder))


if __name__ == "__main__":
    if not (FOLDER / "nb201_latency.parquet").exists():
        sys.exit(f"{FOLDER}: no nb201_latency.parquet: say in HWNAS_DATA where it lies")
    space = table(FOLDER, DEVICES)
    for device in DEVICES:
        objectives = [space.objective("c100_test_200ep"), space.objective(f"lat_{device}", cheap=True)]
        true = space.true_front([objective.name for objective in objectives])
        # a tenth of the front's range behind its worst corner, so that its ends count too
        reference = (true.costs.max(0) + 0.1 * np.ptp(true.costs, axis=0)).tolist()
        for name in ("random", "nsga2"):
            shares = []
            for seed in range(SEEDS):
                rng = np.random.default_rng(seed)
                found = search(
                    algorithms.make(name, space.genes, population=50, rng=rng), objectives, evaluations=EVALUATIONS
                )
                shares.append(hypervolume(found.costs, reference) / hypervolume(true.costs, reference))
            print(
                f"{device:14} {len(true.X):3} true points  {name:7} {median(shares):.3f} "
                f"({min(shares):.3f} to {max(shares):.3f}) of their hypervolume after {EVALUATIONS} of {len(space.X):,}"
            )
