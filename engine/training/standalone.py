"""An architecture trained by itself from a fresh beginning: the truth that inherited weights are to rank by."""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from torch import Tensor, nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, SearchSpace
from hwnas.engine.dataset import Dataset
from hwnas.engine.evaluation.inherited import accuracy
from hwnas.engine.training.config import TrainingConfig
from hwnas.engine.training.trainer import Trainer


class Alone(nn.Module):
    """One network of a space with weights of its own, in the role of a supernet."""

    def __init__(self, space: SearchSpace, architecture: Architecture) -> None:
        super().__init__()
        placed = arch.placed_blocks(space, architecture)
        self.network = nn.Sequential(OrderedDict((slot.replace(".", "_"), block.recipe()()) for slot, block in placed))
        self.architecture = architecture

    def activate(self, architecture: Architecture) -> None:
        """Raises ValueError for any other architecture."""
        if architecture != self.architecture:
            raise ValueError(f"trained alone is {self.architecture}, not {architecture}")

    def subnet(self, architecture: Architecture) -> nn.Module:
        """A copy of the network."""
        self.activate(architecture)
        return copy.deepcopy(self.network)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) -> logits (n, classes)."""
        logits: Tensor = self.network(images)
        return logits


def accuracy_alone(
    space: SearchSpace, architecture: Architecture, data: Dataset, config: TrainingConfig, *, seed: int
) -> float:
    """Test accuracy in 0..1 of the architecture trained by itself, with `config`'s schedule and its label smoothing."""
    mask = [
        [option == chosen for option in range(len(gene.options))]
        for gene, chosen in zip(space.genes, architecture, strict=True)
    ]
    torch.manual_seed(seed)
    network = Alone(space, arch.check(space.genes, architecture))
    changes = {"seed": seed, "sampler": {"name": "uniform"}, "criterion": ["cross_entropy"], "largest_epochs": 0}
    alone = TrainingConfig.model_validate(config.model_dump() | changes | {"evaluate_every": config.epochs + 1})
    Trainer(space.restrict(mask), network, data, alone, None).run()
    return accuracy(network.network, data.test, resolution=space.input_shape(architecture)[-1], batch=512)
