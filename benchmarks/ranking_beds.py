"""Where ranking is judged: two chains of layers, their data, and the truth of 60 architectures trained alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from latency_sets import data_folder
from record import RESULTS, machine

from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import Architecture, FloatArray, IntArray
from hwnas.engine.dataset import Dataset, split
from hwnas.engine.evaluation.complexity import block_macs, block_params
from hwnas.engine.spaces.chain import ChainSpace, Config, Stage, build
from hwnas.engine.tasks import digits, npz
from hwnas.engine.training.config import TrainingConfig
from hwnas.engine.training.standalone import accuracy_alone

ARCHITECTURES, TRUTH_SEEDS = 60, (0, 1, 2)
WIDTHS = (1, 2, 4, 8, 16)
STAGES = (
    Stage(widths=WIDTHS, depths=(1, 2)),
    Stage(widths=WIDTHS, depths=(1, 2), stride=2),
    Stage(widths=WIDTHS, depths=(1, 2), stride=2),
)
OPERATORS = ("skip", "maxpool3x3", "conv1x1", "separable3x3", "separable5x5", "conv3x3")


@dataclass(frozen=True)
class Bed:
    """A space, its data and how networks are trained there."""

    name: str
    config: Config
    load: Callable[[], Dataset]
    alone: TrainingConfig
    paths: int  # updates of a supernet's training

    @cached_property
    def data(self) -> Dataset:
        """Training, validation and test images."""
        return self.load()

    @cached_property
    def space(self) -> ChainSpace:
        """The chain."""
        return build(self.config, in_channels=self.data.channels, classes=len(self.data.classes))

    @cached_property
    def rows(self) -> IntArray:
        """The architectures whose truth is known, (60, genes), all different."""
        drawn = arch.sample(self.space.genes, 5 * ARCHITECTURES, np.random.default_rng(2022))
        first = np.sort(np.unique(drawn, axis=0, return_index=True)[1])
        return drawn[first][:ARCHITECTURES]

    @property
    def macs(self) -> FloatArray:
        """Of each row."""
        return AdditiveCost.of(self.space, block_macs)(self.rows)

    @property
    def params(self) -> FloatArray:
        """Of each row."""
        return AdditiveCost.of(self.space, block_params)(self.rows)

    @property
    def path(self) -> Path:
        """Where the truth is kept."""
        return RESULTS / f"ranking_truth_{self.name}.json"

    def digest(self, *more: str) -> str:
        """12 hex digits of what a training here depends on."""
        parts = [self.data.digest, self.config.model_dump_json(), self.alone.model_dump_json(), *more]
        return hashlib.sha256("/".join(parts).encode()).hexdigest()[:12]

    def truth(self) -> FloatArray:
        """Test accuracies (seeds, 60). Raises FileNotFoundError before they are computed."""
        found = json.loads(self.path.read_text())
        if found["architectures"] != self.rows.tolist():
            raise ValueError(f"{self.path}: of other architectures: delete it and compute it again")
        return np.array(found["test_accuracy"])


def noisy_digits() -> Dataset:
    """395 noisy digits to learn from, 701 to search by, 701 to judge by."""
    return split(digits.load(digits.Config(noise=0.25)), validation=0.39, test=0.39)


def fashion() -> Dataset:
    """Fashion-MNIST at 7 x 7: about 1,000 images to learn from, 1,000 to search by, those of its own test part."""
    path = data_folder() / "sets" / "fashion_mnist.npz"
    data = npz.load(npz.Config(path=path))
    images = torch.nn.functional.avg_pool2d(torch.from_numpy(data.images), 4).numpy()
    small = type(data)(data.name, images, data.labels, data.classes, data.is_test)
    return split(small, validation=0.5, test=0.1, limit=2400)


# an arm says what is drawn and minimised; these two stand in for it where a training is told from another
ARMS_OWN = {"sampler": "sandwich", "criterion": "in_place_distillation"}

BEDS = {
    "noisy_digits": Bed(
        "noisy_digits",
        Config(resolution=8, stages=STAGES),
        noisy_digits,
        TrainingConfig.model_validate({**ARMS_OWN, "epochs": 60, "batch": 50, "shift": 0}),
        1600,
    ),
    "fashion": Bed(
        "fashion",
        Config(resolution=7, stages=STAGES),
        fashion,
        TrainingConfig.model_validate({**ARMS_OWN, "epochs": 20, "batch": 50, "shift": 0}),
        1000,
    ),
}


def compute(name: str, jobs: int) -> None:
    """Train the 60 architectures alone and keep what they reach, unless that is known."""
    bed = BEDS[name]
    if bed.path.exists():
        return
    architectures = [arch.to_architecture(row) for row in bed.rows]
    tasks = [delayed(alone)(name, each, seed) for seed in TRUTH_SEEDS for each in architectures]
    found = np.array(Parallel(n_jobs=jobs)(tasks)).reshape(len(TRUTH_SEEDS), ARCHITECTURES)
    fields = {
        "what": "test accuracy of architectures trained alone, seeds x architectures",
        "machine": machine(),
        "data": bed.data.digest,
        "training": bed.alone.model_dump(mode="json"),
        "seeds": list(TRUTH_SEEDS),
        "architectures": bed.rows.tolist(),
        "test_accuracy": np.round(found, 5).tolist(),
    }
    written = bed.path.with_suffix(".tmp")
    written.write_text(json.dumps(fields) + "\n")
    written.replace(bed.path)
    halves = np.corrcoef(found[0], found[1])[0, 1]
    print(f"{name}: accuracy {found.mean(0).min():.3f} to {found.mean(0).max():.3f}, seeds correlate at {halves:.3f}")


def alone(name: str, architecture: Architecture, seed: int) -> float:
    torch.set_num_threads(1)
    bed = BEDS[name]
    return accuracy_alone(bed.space, architecture, bed.data, bed.alone, seed=seed)
