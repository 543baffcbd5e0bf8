"""A small real training for tests, also run in processes of their own."""

from __future__ import annotations

from pathlib import Path

import torch

from hwnas.engine.architecture import SearchSpace
from hwnas.engine.dataset import Dataset, split
from hwnas.engine.spaces.mobilenet_v3 import Stage
from hwnas.engine.tasks import digits
from hwnas.engine.training.config import TrainingConfig
from hwnas.engine.training.trainer import Trainer
from tests.engine.spaces import mobilenet

STAGES = (Stage(widths=(8, 16), depths=(1, 2), kernels=(3, 5), expansions=(2, 4), stride=2),)
SPACE = mobilenet(stages=STAGES, resolutions=(8,))


def dataset(limit: int = 300) -> Dataset:
    """A few hundred digits."""
    return split(digits.load(digits.Config()), validation=0.2, test=0.2, limit=limit)


def trainer(folder: Path, space: SearchSpace = SPACE, *, limit: int = 300, **changes: object) -> Trainer:
    """Four epochs of sandwich training, the first with the largest network alone."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = TrainingConfig.model_validate(
        {
            "sampler": "sandwich",
            "criterion": "in_place_distillation",
            "epochs": 4,
            "batch": 32,
            "warmup_epochs": 1,
            "largest_epochs": 1,
            "evaluate_every": 2,
            **changes,
        }
    )
    return Trainer(space, space.supernet(), dataset(limit), config, folder)
