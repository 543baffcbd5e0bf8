"""Accuracy of subnets with the weights they inherit from the supernet."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, BoolArray, FloatArray, IntArray, SearchSpace
from hwnas.engine.dataset import Dataset, Split
from hwnas.engine.evaluation.batchnorm import recalibrate
from hwnas.engine.evaluation.prefix import Memory, Parts, Shape, SharedPrefixes
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
    """Evaluates architectures of a supernet on the search-validation split; each once, kept in the journal.

    Those that are asked for together are run together, so that what they begin with in common is computed once.
    """

    space: SearchSpace
    supernet: nn.Module
    data: Dataset
    journal: Journal
    calibration: int = 256  # images of the training split for BatchNorm
    batch: int = 256
    on_evaluation: Callable[[Architecture, float], None] | None = None
    budget_mib: float = 512.0  # of outputs that are kept for networks that begin alike
    _memory: dict[str, Memory] = field(default_factory=dict, init=False, repr=False, compare=False)  # by context

    @property
    def context(self) -> str:
        """What the figures depend on beside the architecture."""
        return f"{state_digest(self.supernet)}/{self.data.digest}/bn{self.calibration}/b{self.batch}"

    def subnet(self, architecture: Architecture) -> nn.Module:
        """The subnet with BatchNorm recalibrated for it, in evaluation mode."""
        network: nn.Module = self.supernet.subnet(architecture)  # type: ignore[operator]  # a Supernet is a Module
        return recalibrate(network, self._calibration_batches(self.space.input_shape(architecture)))

    def reference(self, architecture: Architecture) -> nn.Module:
        """A copy of the supernet with `architecture` active and BatchNorm recalibrated: what a subnet must equal."""
        network = copy.deepcopy(self.supernet)
        network.activate(architecture)  # type: ignore[operator]  # a Supernet is a Module
        return recalibrate(network, self._calibration_batches(self.space.input_shape(architecture)))

    def accuracy(self, architecture: Architecture, split: Split) -> float:
        """Accuracy on any split, in 0..1; computed afresh."""
        shape = self.space.input_shape(architecture)
        network: nn.Module = self.supernet.subnet(architecture)  # type: ignore[operator]  # a Supernet is a Module
        # channels last: about twice as fast here, see the trainer
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own stub
        recalibrate(network, self._calibration_batches(shape))
        return accuracy(network, split, resolution=shape[-1], batch=self.batch)

    def answers(
        self,
        architectures: Sequence[Architecture],
        split: Split,
        *,
        order: IntArray | None = None,
        held: dict[Architecture, Parts] | None = None,
    ) -> Iterator[tuple[Architecture, BoolArray]]:
        """Which images of `split` each network labels right, (images,), in the order in which networks get through.

        `order` picks images by their index, all of them if it is not given. Networks in `held` are run as they are;
        without it, or where it is empty, they are made, recalibrated and left there for the next call.
        """
        chosen = None if order is None else torch.from_numpy(order)
        labels = split.labels if chosen is None else split.labels[chosen]

        def images(shape: Shape) -> tuple[Tensor, ...]:
            resized = split.at(shape[-1])
            return torch.split(resized if chosen is None else resized[chosen], self.batch)

        whole = order is None and held is None and split is self.data.validation
        outputs = SharedPrefixes(self.space, self.supernet).outputs(
            architectures,
            images,
            memory=self.memory() if whole else Memory(self.budget_mib),
            calibration=None if held else self._calibration_batches,
            held=held,
        )
        for architecture, logits in outputs:
            yield architecture, (logits.argmax(1) == labels).numpy()

    def errors(self, X: IntArray) -> FloatArray:
        """1 - validation accuracy of each row, (n,)."""
        context, split = self.context, self.data.validation
        rows = [arch.to_architecture(row) for row in X]
        known = self.journal.read(context, "accuracy", rows)
        missing = [row for row in dict.fromkeys(rows) if row not in known]
        for row, right in self.answers(missing, split):
            known[row] = self.keep(context, row, right)
        return 1 - np.array([known[row] for row in rows], dtype=float)

    def keep(self, context: str, architecture: Architecture, right: BoolArray) -> float:
        """Journal, in this context, the accuracy that the answers to all validation images mean; in 0..1."""
        accuracy = int(right.sum()) / len(right)
        self.journal.write(context, "accuracy", architecture, accuracy)
        if self.on_evaluation is not None:
            self.on_evaluation(architecture, accuracy)
        return accuracy

    def memory(self) -> Memory:
        """Outputs kept of earlier calls with the same weights."""
        context = self.context
        if context not in self._memory:
            self.remember(Memory(self.budget_mib, lasting=True))
        return self._memory[context]

    def remember(self, memory: Memory) -> None:
        """Go on with this memory, made with the same weights, images and calibration."""
        self._memory.clear()
        self._memory[self.context] = memory

    @cached_property
    def _calibration_images(self) -> Split:
        return self.data.train.head(self.calibration)

    def _calibration_batches(self, shape: Shape) -> tuple[Tensor, ...]:
        return torch.split(self._calibration_images.at(shape[-1]), self.batch)
