"""Architecture and precision searched together, beside architecture first and precision after it, on the digits.

    python benchmarks/joint_precision.py [search] [times]

A small MobileNetV3 with 2, 4, 8 or 32 bits for the weights of every block, 8 for activations.
Every contestant evaluates as many candidates; "architecture, then bits" spends half of them on architectures in floats
and the rest on the bits of architectures spread over the front that it found. Two supernets, five searches each.
Searches see the validation split and the size; what is compared is the test accuracy of what they would choose under a
limit on the size, and the hypervolume of test error and size.

Then blocks of several sizes, in floats and in 8 bits, timed by ONNX Runtime on one core.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # a seed's weights depend on the number of threads

import numpy as np
import torch
from scipy.stats import wilcoxon

from hwnas.devices.compile.job import Settings
from hwnas.devices.compile.target import host_target
from hwnas.devices.runtimes import onnxruntime
from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms import make
from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.dataset import Dataset, split
from hwnas.engine.evaluation.complexity import block_weight_mib
from hwnas.engine.evaluation.inherited import InheritedAccuracy
from hwnas.engine.front import non_dominated, normalised_hypervolume
from hwnas.engine.journal import Journal
from hwnas.engine.spaces import hybrid, mixed_precision, mobilenet_v3  # noqa: F401  # whose blocks are timed
from hwnas.engine.spaces.mixed_precision import MixedPrecisionSpace, PreciseSupernet, block_of
from hwnas.engine.tasks import digits
from hwnas.engine.training.trainer import Trainer, TrainingConfig
from hwnas.latency import Block

sys.path.insert(0, str(Path(__file__).parent))
from record import Row, record

SPACE = {
    "name": "mobilenet_v3",
    "resolutions": [8],
    "stem_width": 8,
    "stem_stride": 1,
    "head_width": 32,
    "head_features": 32,
    "stages": [
        {"widths": [8], "depths": [1, 2], "expansions": [2, 4], "stride": 2},
        {"widths": [8, 16, 24], "depths": [1, 2], "kernels": [3, 5], "expansions": [2, 4], "stride": 2},
    ],
}
TRAINING = {"sampler": "sandwich", "criterion": "in_place_distillation", "epochs": 15, "largest_epochs": 3, "shift": 0}
BITS = (2, 4, 8, 32)
SUPERNETS, SEARCHES = 2, 5
EVALUATIONS, POPULATION = 48, 12
ARCHITECTURES = 3  # whose bits are searched after the architectures
LIMITS = (0.2, 0.3, 0.5)  # of the size of the largest network in floats

Errors = Callable[[IntArray], FloatArray]
Told = tuple[IntArray, FloatArray]  # candidates (n, genes), their error and size (n, 2)


# ---- contestants ----------------------------------------------------------------------------------------------------


def searched(space: MixedPrecisionSpace, costs: Errors, *, evaluations: int, seed: int, name: str = "nsga2") -> Told:
    """What an algorithm asks for; it begins with the smallest and the largest."""
    ends = np.array([arch.extreme(space.genes, largest=largest) for largest in (False, True)])
    population = min(POPULATION, evaluations)
    rng = np.random.default_rng([seed, 5])
    algorithm = make(name, space.genes, population=population, rng=rng, initial=None if name == "random" else ends)
    found = np.empty((0, len(space.genes)), dtype=np.int64)
    told = np.empty((0, 2))
    while len(found) < evaluations and len(X := algorithm.ask()):
        X = X[: evaluations - len(found)]
        F = costs(X)
        algorithm.tell(X, F, np.zeros(len(X)))
        found, told = np.concatenate([found, X]), np.concatenate([told, F])
    return found, told


def in_turn(space: MixedPrecisionSpace, costs: Errors, *, evaluations: int, seed: int) -> Told:
    """Architectures in floats, then the bits of some of their front."""
    X, F = searched(space.at(32), costs, evaluations=evaluations // 2, seed=seed)
    front = np.flatnonzero(non_dominated(F))
    front = front[F[front, 1].argsort()]
    spread = np.unique(np.linspace(0, len(front) - 1, ARCHITECTURES).round().astype(int))
    chosen = X[front[spread]]
    own = len(space.inner.genes)
    left = evaluations - len(X)
    for number, row in enumerate(chosen):
        mask = [[option == row[i] for option in range(len(gene.options))] for i, gene in enumerate(space.genes[:own])]
        mask += [[True] * len(gene.options) for gene in space.genes[own:]]
        share = left * (number + 1) // len(chosen) - left * number // len(chosen)
        more, told = searched(space.restrict(mask), costs, evaluations=share, seed=seed)
        X, F = np.concatenate([X, more]), np.concatenate([F, told])
    return X, F


CONTESTANTS: dict[str, Callable[..., Told]] = {
    "architecture and bits": searched,
    "architecture, then bits": in_turn,
    "architecture at 8 bits": lambda space, costs, **k: searched(space.at(8), costs, **k),
    "random": lambda space, costs, **k: searched(space, costs, name="random", **k),
}


# ---- the digits -----------------------------------------------------------------------------------------------------


def supernet(space: MixedPrecisionSpace, data: Dataset, seed: int) -> PreciseSupernet:
    """Trained in floats."""
    torch.manual_seed(seed)
    config = TrainingConfig.model_validate({**TRAINING, "evaluate_every": TRAINING["epochs"], "seed": seed})
    inner = space.inner.supernet()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(space.inner, inner, data, config, Path(folder)).run()
    return PreciseSupernet(space, inner).eval()


def choice(F: FloatArray, limit: float) -> int | None:
    """The candidate with the least error that keeps the limit on the size."""
    kept = np.flatnonzero(F[:, 1] <= limit)
    return int(kept[F[kept, 0].argmin()]) if len(kept) else None


def compared(data: Dataset, space: MixedPrecisionSpace) -> tuple[list[Row], dict[str, object]]:
    size = AdditiveCost.of(space, block_weight_mib)
    largest = float(size(np.array([arch.extreme(space.at(32).genes, largest=True)]))[0])
    smallest = size.minimum()[1]
    names = [*(f"at {limit:.0%}" for limit in LIMITS), "hypervolume"]
    figures: dict[str, dict[str, list[float]]] = {name: {key: [] for key in names} for name in CONTESTANTS}
    for group in range(SUPERNETS):
        net = supernet(space, data, group)
        evaluator = InheritedAccuracy(space, net, data, Journal(":memory:"), calibration=128)

        def costs(X: IntArray, evaluator: InheritedAccuracy = evaluator) -> FloatArray:
            return np.stack([evaluator.errors(X), size(X)], axis=1)

        def tested(X: IntArray, evaluator: InheritedAccuracy = evaluator) -> FloatArray:
            right = dict(evaluator.answers([arch.to_architecture(row) for row in X], data.test))
            return np.array([1 - right[arch.to_architecture(row)].mean() for row in X])

        for seed in range(SEARCHES):
            for name, contestant in CONTESTANTS.items():
                X, F = contestant(space, costs, evaluations=EVALUATIONS, seed=seed)
                front = np.flatnonzero(non_dominated(F))
                chosen = [choice(F, limit * largest) for limit in LIMITS]
                rows = sorted({*front.tolist(), *(row for row in chosen if row is not None)})
                errors = dict(zip(rows, tested(X[rows]), strict=True))
                for limit, row in zip(LIMITS, chosen, strict=True):
                    figures[name][f"at {limit:.0%}"].append(float("nan") if row is None else 1 - errors[row])
                points = np.array([[errors[row], F[row, 1]] for row in front.tolist()])
                volume = normalised_hypervolume(points, ideal=(0, smallest), reference=(0.9, largest))
                figures[name]["hypervolume"].append(volume)
            medians = {name: round(median(found["hypervolume"]), 4) for name, found in figures.items()}
            print(f"supernet {group}, search {seed}: {medians}", flush=True)
    values = {
        name: {key: [None if np.isnan(v) else v for v in found] for key, found in by_key.items()}
        for name, by_key in figures.items()
    }
    return summary(figures), {"largest_mib": largest, "smallest_mib": smallest, "values": values}


def summary(figures: dict[str, dict[str, list[float]]]) -> list[Row]:
    """Medians and spread, and Wilcoxon's two-sided p of the difference from the joint search, seed by seed."""
    joint = figures["architecture and bits"]
    rows_: list[Row] = []
    for name, by_key in figures.items():
        row: dict[str, str | float | None] = {"searched": name}
        for key, values in by_key.items():
            known = [value for value in values if not np.isnan(value)]
            row[f"{key}, median"] = float(median(known)) if known else None
            row[f"{key}, least"] = min(known) if known else None
            row[f"{key}, most"] = max(known) if known else None
            gains = np.array(joint[key]) - np.array(values)
            differ = gains[~np.isnan(gains)]
            row[f"{key}, p against joint"] = float(wilcoxon(differ).pvalue) if differ.any() else None
        rows_.append(row)
    return rows_


# ---- times ----------------------------------------------------------------------------------------------------------

BLOCKS = {
    "stem 3 to 16, 96x96": Block.of(
        "mobilenet_v3.stem", (1, 3, 96, 96), in_channels=3, out_channels=16, stride=2, activation="hswish"
    ),
    "MBConv 40, 160 hidden, 14x14": Block.of(
        "mobilenet_v3.mbconv",
        (1, 40, 14, 14),
        **{"in_channels": 40, "out_channels": 40, "kernel": 5, "stride": 1, "hidden": 160},
        **{"se": False, "activation": "relu"},
    ),
    "MBConv 24, 72 hidden, 4x4, SE": Block.of(
        "mobilenet_v3.mbconv",
        (1, 24, 4, 4),
        **{"in_channels": 24, "out_channels": 24, "kernel": 3, "stride": 1, "hidden": 72},
        **{"se": True, "activation": "hswish"},
    ),
    "head 96 to 576, 6x6": Block.of(
        "mobilenet_v3.head",
        (1, 96, 6, 6),
        **{"in_channels": 96, "channels": 576, "features": 640, "classes": 100, "activation": "hswish"},
    ),
    "conv 64 to 64, 3x3, 14x14": Block.of(
        "hybrid.layer",
        (1, 64, 14, 14),
        **{"in_channels": 64, "out_channels": 64, "operator": "conv", "kernel": 3, "stride": 1},
    ),
}


def timed(rounds: int = 5, calls: int = 60) -> list[Row]:
    """Medians over rounds in which floats and integers take turns."""
    settings = Settings(host_target(), Path(), "cpu", "benchmark", "onnxruntime")
    rows: list[Row] = []
    for name, block in BLOCKS.items():
        loaded = {}
        with tempfile.TemporaryDirectory() as folder:
            for bits in (32, 8):
                path = Path(folder) / f"{bits}.onnx"
                made = block_of(block, bits=bits, activation_bits=8)
                onnxruntime.prepare(made.recipe()().eval(), made.inputs, settings).write(path)
                loaded[bits] = onnxruntime.load(str(path), 1)
                loaded[bits].set_random_inputs()
                loaded[bits].time_ms(10)
        rounds_ms = {bits: [median(each.time_ms(calls)) for _ in range(rounds)] for bits, each in loaded.items()}
        floats, integers = (median(rounds_ms[bits]) for bits in (32, 8))
        row: Row = {
            "block": name,
            "float32 ms": floats,
            "int8 ms": integers,
            "float32 / int8": floats / integers,
            "float32 KiB": 1024 * block_weight_mib(block),
            "int8 KiB": 1024 * block_weight_mib(block_of(block, bits=8, activation_bits=8)),
        }
        rows.append(row)
    return rows


def main(parts: Sequence[str]) -> int:
    torch.set_num_threads(1)
    if not parts or "times" in parts:
        record("precision_latency", timed(), title="ONNX Runtime, one core: medians of 5 medians of 60 calls")
    if parts and "search" not in parts:
        return 0
    began = time.process_time()
    data = split(digits.load(digits.Config()), validation=0.2, test=0.3)
    config = mixed_precision.Config(space=SPACE, bits=BITS)
    space = mixed_precision.build(config, in_channels=data.channels, classes=len(data.classes))
    rows, notes = compared(data, space)
    shown = ["searched", *(f"{key}, median" for key in (*(f"at {limit:.0%}" for limit in LIMITS), "hypervolume"))]
    record(
        "joint_precision",
        rows,
        title=f"test accuracy under a limit on the size (of the largest in floats), {EVALUATIONS} evaluations each",
        seeds=range(SUPERNETS * SEARCHES),
        notes={
            **notes,
            "architectures": arch.size(space.inner.genes),
            "with bits": f"{arch.size(space.genes):.3g}",
            "images": data.sizes,
            "epochs": TRAINING["epochs"],
            "cpu_s": round(time.process_time() - began),
        },
        shown=shown,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
