"""The training loop: every path of a step adds its gradient, then the weights move once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from hwnas.devices.plugins import load_plugin
from hwnas.engine import architecture as arch
from hwnas.engine.architecture import IntArray, SearchSpace
from hwnas.engine.dataset import Dataset, resize
from hwnas.engine.evaluation.batchnorm import recalibrate
from hwnas.engine.evaluation.inherited import accuracy
from hwnas.engine.training import checkpoint as checkpoints
from hwnas.engine.training import criteria, samplers
from hwnas.engine.training.checkpoint import Checkpoint, CheckpointError, EpochRecord


class TrainingConfig(BaseModel):
    """How a supernet is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampler: str = "sandwich"
    criterion: str = "in_place_distillation"
    epochs: NonNegativeInt = 60  # none: the weights that the supernet begins with are good as they are
    batch: PositiveInt = 64
    learning_rate: PositiveFloat = 0.1
    warmup_epochs: NonNegativeInt = 2
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 1e-4  # of weights with two axes or more
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    gradient_norm: PositiveFloat = 5.0  # clipped to it
    largest_epochs: NonNegativeInt = 0  # the largest architecture alone comes first; then channels are sorted
    shift: NonNegativeInt = 1  # pixels of random translation, at the source's size
    evaluate_every: PositiveInt = 10  # epochs
    seed: NonNegativeInt = 0


@dataclass
class Trainer:
    """Trains one supernet, with a checkpoint every epoch in `folder`."""

    space: SearchSpace
    supernet: nn.Module
    data: Dataset
    config: TrainingConfig
    folder: Path
    settings: str = ""  # what else the training depends on, e.g. the space's configuration
    on_epoch: Callable[[EpochRecord], None] | None = None

    def run(self) -> tuple[EpochRecord, ...]:
        """Train from the last checkpoint on; the history of every epoch. Raises CheckpointError."""
        config = self.config
        # channels last: 1.5 to 3 times as many steps a second as the default on an AVX-512 CPU, 1 or 2 threads
        self.supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own stub
        optimizer = self._optimizer()
        history = self._resume(optimizer)
        sampler = load_plugin(samplers, config.sampler).build(self.space.genes, seed=config.seed)
        criterion = load_plugin(criteria, config.criterion).build(label_smoothing=config.label_smoothing)
        steps = max(1, len(self.data.train) // config.batch)
        for epoch in range(len(history) + 1, config.epochs + 1):
            alone = epoch <= config.largest_epochs
            if epoch == config.largest_epochs + 1 and config.largest_epochs:
                self._sort_channels(optimizer)
            self.supernet.train()
            loss_sum = 0.0
            for index, (images, labels) in enumerate(self._batches(epoch, steps)):
                step = (epoch - 1) * steps + index
                rate = learning_rate(config, step / steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                paths = sampler.paths(step)
                if alone:
                    paths = (samplers.TrainingPath(arch.extreme(self.space.genes, largest=True), "largest"),)
                loss_sum += self._step(optimizer, criterion, paths, images, labels)
            record = EpochRecord(epoch, loss_sum / steps, rate)
            if epoch % config.evaluate_every == 0 or epoch == config.epochs:
                record = self._evaluated(record)
            history = (*history, record)
            model = self.supernet.state_dict()
            state = {
                name: optimizer.state[p]["momentum_buffer"]
                for name, p in self.supernet.named_parameters()
                if "momentum_buffer" in optimizer.state[p]
            }
            checkpoints.save(self.folder, Checkpoint(epoch, self._digest(), history, model, state))
            if self.on_epoch is not None:
                self.on_epoch(record)
        self.supernet.eval()
        return history

    def _step(
        self,
        optimizer: torch.optim.Optimizer,
        criterion: criteria.Criterion,
        paths: tuple[samplers.TrainingPath, ...],
        images: Tensor,
        labels: Tensor,
    ) -> float:
        optimizer.zero_grad(set_to_none=True)
        teacher: Tensor | None = None
        total = 0.0
        for path in paths:
            self.supernet.activate(path.architecture)  # type: ignore[operator]  # a Supernet is a Module
            resized = resize(images, self.space.input_shape(path.architecture)[-1])
            logits = self.supernet(resized.contiguous(memory_format=torch.channels_last))
            loss = path.weight * criterion(logits, labels, role=path.role, teacher=teacher)
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            total += loss.item()
            if path.role == "largest":
                teacher = logits.detach()
        if not np.isfinite(total):
            raise FloatingPointError(
                f"the loss became {total} with learning_rate={self.config.learning_rate}: lower it in [training]"
            )
        nn.utils.clip_grad_norm_(self.supernet.parameters(), self.config.gradient_norm)
        optimizer.step()
        return total

    def _batches(self, epoch: int, steps: int) -> list[tuple[Tensor, Tensor]]:
        """Shuffled and shifted batches; a function of the seed and the epoch alone."""
        config, train = self.config, self.data.train
        rng = np.random.default_rng([config.seed, epoch])
        order = torch.from_numpy(rng.permutation(len(train)))
        batch = min(config.batch, len(train))
        batches = []
        for index in range(steps):
            rows = order[index * batch : (index + 1) * batch]
            images = train.images[rows]
            if config.shift:
                images = shifted(images, rng.integers(0, 2 * config.shift + 1, (len(rows), 2)), config.shift)
            batches.append((images, train.labels[rows]))
        return batches

    def _optimizer(self) -> torch.optim.Optimizer:
        parameters = list(self.supernet.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, lr=self.config.learning_rate, momentum=self.config.momentum, nesterov=True)

    def _resume(self, optimizer: torch.optim.Optimizer) -> tuple[EpochRecord, ...]:
        found = checkpoints.load(self.folder)
        if found is None:
            return ()
        if found.settings != self._digest():
            raise CheckpointError(
                f"{self.folder}: a checkpoint of other settings (space, data or [training]): "
                "give the run another folder, or delete this one to train again"
            )
        try:
            self.supernet.load_state_dict(found.model)
        except RuntimeError as error:
            first = str(error).splitlines()[-1].strip()
            cure = "delete it to train again"
            raise CheckpointError(f"{self.folder}: does not fit the supernet ({first}): {cure}") from error
        for name, parameter in self.supernet.named_parameters():
            if name in found.optimizer:
                optimizer.state[parameter]["momentum_buffer"] = found.optimizer[name]
        return found.history

    def _sort_channels(self, optimizer: torch.optim.Optimizer) -> None:
        """Important channels first; momentum belongs to the old places and starts anew."""
        sort = getattr(self.supernet, "sort_channels", None)
        if sort is not None:
            sort()
            optimizer.state.clear()

    def _evaluated(self, record: EpochRecord) -> EpochRecord:
        genes = self.space.genes
        drawn = arch.sample(genes, 1, np.random.default_rng([self.config.seed, record.epoch, 1]))[0]
        figures = []
        for architecture in (
            arch.extreme(genes, largest=True),
            arch.extreme(genes, largest=False),
            arch.to_architecture(drawn),
        ):
            resolution = self.space.input_shape(architecture)[-1]
            subnet: nn.Module = self.supernet.subnet(architecture)  # type: ignore[operator]  # a Supernet is a Module
            recalibrate(subnet, [resize(self.data.train.images[:256], resolution)])
            figures.append(accuracy(subnet, self.data.validation, resolution=resolution, batch=256))
        return replace(record, accuracy_largest=figures[0], accuracy_smallest=figures[1], accuracy_random=figures[2])

    def _digest(self) -> str:
        parts = [self.config.model_dump(), self.data.digest, self.settings, torch.__version__]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def learning_rate(config: TrainingConfig, epoch: float) -> float:
    """Linear warm-up, then a cosine to zero; `epoch` counts finished epochs and may be a fraction."""
    if epoch < config.warmup_epochs:
        return config.learning_rate * (epoch + 1 / 16) / (config.warmup_epochs + 1 / 16)
    done = (epoch - config.warmup_epochs) / max(1e-9, config.epochs - config.warmup_epochs)
    return config.learning_rate * 0.5 * (1 + cos(pi * min(1.0, done)))


def shifted(images: Tensor, offsets: IntArray, most: int) -> Tensor:
    """Each image translated by its offset minus `most` pixels, edges repeated. (n, c, h, w) -> the same shape."""
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images, (most,) * 4, mode="replicate")
    cut = [image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, offsets.tolist(), strict=True)]
    return torch.stack(cut)
