"""The samplers and criteria that benchmarks/ranking.py compares."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from ranking_beds import Bed

from hwnas.engine import architecture as arch
from hwnas.engine.dataset import Dataset
from hwnas.engine.evaluation.batchnorm import recalibrate
from hwnas.engine.evaluation.inherited import accuracy
from hwnas.engine.training import samplers
from hwnas.engine.training.config import TrainingConfig
from hwnas.engine.training.trainer import Trainer

Plugin = dict[str, object]
LABELS: list[Plugin] = [{"name": "cross_entropy"}]
IN_PLACE: list[Plugin] = [{"name": "in_place_distillation"}]
ANCHOR: Plugin = {"name": "feature_distillation", "teacher": "anchor", "weight": 0.5}
PAIRS: Plugin = {"name": "sandwich", "pairs": 2}


@dataclass(frozen=True)
class Arm:
    """A sampler and what it minimises."""

    sampler: Plugin
    criterion: list[Plugin]


ARMS = {
    "uniform": Arm({"name": "uniform"}, LABELS),
    "uniform over architectures": Arm({"name": "restricted", "uniform": "architectures"}, LABELS),
    "progressive": Arm({"name": "progressive_blocks", "steps": 250}, LABELS),
    "fair": Arm({"name": "fair"}, LABELS),
    "ensemble of 4": Arm({"name": "ensemble"}, LABELS),
    "gumbel top 2": Arm({"name": "gumbel_top_k"}, LABELS),
    "gradual": Arm({"name": "gradual"}, LABELS),
    "gradual, 4 chains": Arm({"name": "gradual", "chains": 4}, LABELS),
    "uniform, anchor": Arm({"name": "uniform"}, [*LABELS, ANCHOR]),
    "gradual, anchor": Arm({"name": "gradual"}, [*LABELS, ANCHOR]),
    "sandwich, labels": Arm({"name": "sandwich"}, LABELS),
    "sandwich": Arm({"name": "sandwich"}, IN_PLACE),
    "sandwich, logits and labels": Arm({"name": "sandwich"}, [*LABELS, {"name": "logit_distillation"}]),
    "sandwich, features": Arm({"name": "sandwich"}, [*IN_PLACE, {"name": "feature_distillation", "weight": 0.5}]),
    "sandwich, channel maxima": Arm(
        {"name": "sandwich"}, [*IN_PLACE, {"name": "feature_distillation", "match": "channel_max", "weight": 0.5}]
    ),
    "balanced sandwich": Arm({"name": "cost_weighted"}, IN_PLACE),
    "sandwich, ranked pairs": Arm(PAIRS, [*IN_PLACE, {"name": "pairwise_rank", "weight": 2.0, "ramp": 0.29}]),
    "sandwich, pairs ranked by Zen-score": Arm(
        {**PAIRS, "prior": "zen"}, [*IN_PLACE, {"name": "pairwise_rank", "weight": 2.0, "ramp": 0.29}]
    ),
    "sandwich, pairs by labels": Arm(PAIRS, IN_PLACE),  # the control: the same passes without the comparison
}


@dataclass(frozen=True)
class Scores:
    """Validation accuracies of a bed's rows, and the CPU seconds that it took to evaluate them."""

    accuracies: list[float]
    evaluation_seconds: float


def trained(bed: Bed, arm: Arm, *, seed: int, paths: int) -> Scores:
    """Train a supernet by `paths` updates and score every row of the bed with what it inherits."""
    config = configured(bed, arm, seed=seed, paths=paths)
    torch.manual_seed(seed)
    supernet = bed.space.supernet()
    Trainer(bed.space, supernet, bed.data, config, None).run()
    start = time.process_time()
    accuracies = [inherited(bed.data, supernet, arch.to_architecture(row), bed) for row in bed.rows]
    return Scores(accuracies, time.process_time() - start)


def inherited(data: Dataset, supernet: torch.nn.Module, architecture: arch.Architecture, bed: Bed) -> float:
    """Validation accuracy with BatchNorm recalibrated on the training images."""
    subnet: torch.nn.Module = supernet.subnet(architecture)  # type: ignore[operator]  # a Supernet
    recalibrate(subnet, [data.train.images])
    return accuracy(subnet, data.validation, resolution=bed.config.resolution, batch=512)


def configured(bed: Bed, arm: Arm, *, seed: int, paths: int) -> TrainingConfig:
    """The bed's own training with the arm's sampler, for as many steps as make `paths` updates."""
    drawn = samplers.make(
        str(arm.sampler["name"]),
        {key: value for key, value in arm.sampler.items() if key != "name"},
        bed.space.genes,
        seed=0,
        prior=lambda _: lambda X: np.ones(len(X)),
    )
    a_step = len(drawn.paths(0))
    steps = max(1, len(bed.data.train) // bed.alone.batch)
    epochs = max(1, round(paths / a_step / steps))
    changes = {
        "sampler": arm.sampler,
        "criterion": arm.criterion,
        "epochs": epochs,
        "warmup_epochs": min(bed.alone.warmup_epochs, epochs // 5),
        "evaluate_every": epochs + 1,
        "seed": seed,
    }
    return TrainingConfig.model_validate(bed.alone.model_dump() | changes)
