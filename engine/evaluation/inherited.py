"""Accuracy of subnets with the weights they inherit from the supernet."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, FloatArray, IntArray, SearchSpace
from hwnas.engine.dataset import Dataset, Split, resize
from hwnas.engine.evaluation.batchnorm import recalibrate
from hwnas.engine.journal import Journal


@torch.inference_mode()
def accuracy(network: nn.Module, split: Split, *, resolution: int, batch: int) -> float:
    """Share of `split` that `network` labels right, in 0..1."""
    images = split.at(resolution)
    right = 0
    for start in range(0, len(split), batch):
        stop = start + batch
        right += int((network(images[start:stop]).argmax(1) == split.labels[start:stop]).sum())
    return right / len(split)


def state_digest(network: nn.Module) -> str:
    """16 hex digits of every weight and statistic of a network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class InheritedAccuracy:
    """Evaluates architectures of a supernet on the search-validation split; each once, kept in the journal."""

    space: SearchSpace
    supernet: nn.Module
    data: Dataset
    journal: Journal
    calibration: int = 256  # images of the training split for BatchNorm
    batch: int = 256
    on_evaluation: Callable[[Architecture, float], None] | None = None

    @property
    def context(self) -> str:
        """What the figures depend on beside the architecture."""
        return f"{state_digest(self.supernet)}/{self.data.digest}/bn{self.calibration}/b{self.batch}"

    def subnet(self, architecture: Architecture) -> nn.Module:
        """The subnet with BatchNorm recalibrated for it, in evaluation mode."""
        network: nn.Module = self.supernet.subnet(architecture)  # type: ignore[operator]  # a Supernet is a Module
        return recalibrate(network, self._calibration_batches(architecture))

    def reference(self, architecture: Architecture) -> nn.Module:
        """A copy of the supernet with `architecture` active and BatchNorm recalibrated: what a subnet must equal."""
        network = copy.deepcopy(self.supernet)
        network.activate(architecture)  # type: ignore[operator]  # a Supernet is a Module
        return recalibrate(network, self._calibration_batches(architecture))

    def accuracy(self, architecture: Architecture, split: Split) -> float:
        """Accuracy on any split, in 0..1; computed afresh."""
        resolution = self.space.input_shape(architecture)[-1]
        # channels last: about twice as fast here, see the trainer
        network = self.subnet(architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return accuracy(network, split, resolution=resolution, batch=self.batch)

    def errors(self, X: IntArray) -> FloatArray:
        """1 - validation accuracy of each row, (n,)."""
        context, split = self.context, self.data.validation
        rows = [arch.to_architecture(row) for row in X]
        known = self.journal.read(context, "accuracy", rows)
        for row in rows:
            if row not in known:
                known[row] = self.accuracy(row, split)
                self.journal.write(context, "accuracy", row, known[row])
                if self.on_evaluation is not None:
                    self.on_evaluation(row, known[row])
        return 1 - np.array([known[row] for row in rows], dtype=float)

    def _calibration_batches(self, architecture: Architecture) -> list[Tensor]:
        resolution = self.space.input_shape(architecture)[-1]
        images = self.data.train.images[: self.calibration]
        return list(torch.split(resize(images, resolution), self.batch))
