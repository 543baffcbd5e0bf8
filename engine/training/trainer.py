"""The training loop: every path of a step adds its gradient, then the weights move once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.engine import architecture as arch
from hwnas.engine import proxies
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import Architecture, FloatArray, IntArray, SearchSpace
from hwnas.engine.dataset import Dataset, resize
from hwnas.engine.evaluation.batchnorm import recalibrate, statistics_kept
from hwnas.engine.evaluation.complexity import block_macs
from hwnas.engine.evaluation.inherited import accuracy
from hwnas.engine.objective import Costs
from hwnas.engine.training import checkpoint as checkpoints
from hwnas.engine.training import criteria, filters, samplers
from hwnas.engine.training.checkpoint import Checkpoint, CheckpointError, EpochRecord
from hwnas.engine.training.config import TrainingConfig
from hwnas.engine.training.criteria import Features, TrainedPath, TrainingStep
from hwnas.engine.training.features import Taps

PRIOR_IMAGES = 16  # that a proxy looks at, as in the released code of PGONAS


@dataclass
class Trainer:
    """Trains one supernet, with a checkpoint every epoch in `folder`, if there is one."""

    space: SearchSpace
    supernet: nn.Module
    data: Dataset
    config: TrainingConfig
    folder: Path | None
    settings: str = ""  # what else the training depends on, e.g. the space's configuration
    on_epoch: Callable[[EpochRecord], None] | None = None

    def run(self) -> tuple[EpochRecord, ...]:
        """Train from the last checkpoint on; the history of every epoch. Raises CheckpointError."""
        config = self.config
        # channels last: 1.5 to 3 times as many steps a second as the default on an AVX-512 CPU, 1 or 2 threads
        self.supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own stub
        sampler = self.sampler()
        criterion = self._criterion()
        optimizer = self._optimizer(criterion.module)
        history = self._resume(optimizer, sampler, criterion)
        steps = self.steps
        with Taps(self.supernet, criterion.taps) as taps:
            for epoch in range(len(history) + 1, config.epochs + 1):
                if epoch == config.largest_epochs + 1 and config.largest_epochs:
                    self._sort_channels(optimizer)
                self.supernet.train()
                loss_sum = 0.0
                for index, batch in enumerate(self._batches(epoch, steps)):
                    step = (epoch - 1) * steps + index
                    rate = learning_rate(config, step / steps)
                    for group in optimizer.param_groups:
                        group["lr"] = rate * group["rate"]
                    if epoch <= config.largest_epochs:
                        paths: Sequence[samplers.TrainingPath] = (samplers.TrainingPath(self._largest, "largest"),)
                    else:
                        paths = sampler.paths(step)
                    progress = step / (config.epochs * steps)
                    still = self._parameters_of(sampler.frozen(step))
                    loss_sum += self._step(
                        optimizer, criterion, taps, paths, batch=batch, progress=progress, still=still
                    )
                record = EpochRecord(epoch, loss_sum / steps, rate)
                if epoch % config.evaluate_every == 0 or (epoch == config.epochs and self.folder is not None):
                    record = self._evaluated(record)
                history = (*history, record)
                self._save(history, optimizer, sampler, criterion)
                if self.on_epoch is not None:
                    self.on_epoch(record)
        self.supernet.eval()
        return history

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return max(1, len(self.data.train) // self.config.batch)

    def sampler(self) -> samplers.Sampler:
        """The sampler at its first step."""
        chosen = self.config.sampler
        return samplers.make(chosen.name, chosen.options, self.space.genes, seed=self.config.seed, prior=self._prior)

    def _step(
        self,
        optimizer: torch.optim.Optimizer,
        criterion: criteria.WeightedSum,
        taps: Taps,
        paths: Sequence[samplers.TrainingPath],
        *,
        batch: tuple[Tensor, Tensor],
        progress: float,
        still: Sequence[nn.Parameter],
    ) -> float:
        optimizer.zero_grad(set_to_none=True)
        images, labels = batch

        @torch.no_grad()
        def ask(architecture: Architecture) -> tuple[Tensor, Features]:
            with statistics_kept(self.supernet):
                return self._forward(architecture, images), taps.taken()

        architectures = [path.architecture for path in paths]
        largest = self._resized(images, self._largest)
        criterion.begin(TrainingStep(self.supernet, largest, labels, progress, architectures, ask))
        teacher: tuple[Tensor, Features] | tuple[None, None] = (None, None)
        total = 0.0
        for path in paths:
            logits = self._forward(path.architecture, images)
            features = taps.taken()
            trained = TrainedPath(
                self.supernet, path.architecture, path.role, logits, labels, progress, features, *teacher
            )
            loss = path.weight * criterion(trained)
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            total += loss.item()
            if path.role == "largest":
                teacher = logits.detach(), {name: feature.detach() for name, feature in features.items()}
        if not np.isfinite(total):
            raise FloatingPointError(
                f"the loss became {total} with learning_rate={self.config.learning_rate}: lower it in [training]"
            )
        for parameter in still:
            parameter.grad = None  # so neither momentum nor decay moves it
        nn.utils.clip_grad_norm_(self.supernet.parameters(), self.config.gradient_norm)
        optimizer.step()
        return total

    def _parameters_of(self, blocks: Sequence[str]) -> list[nn.Parameter]:
        """The parameters of the modules that are called so. Raises ValueError for a block that has none."""
        found: list[nn.Parameter] = []
        for block in blocks:
            own = [
                parameter
                for name, parameter in self.supernet.named_parameters()
                if any(word == block or word.startswith(f"{block}_") for word in name.split("."))
            ]
            if not own:
                raise ValueError(f"the sampler freezes {block!r}, and no module is called so: set freeze = false")
            found += own
        return found

    def _forward(self, architecture: Architecture, images: Tensor) -> Tensor:
        self.supernet.activate(architecture)  # type: ignore[operator]  # a Supernet is a Module
        logits: Tensor = self.supernet(self._resized(images, architecture))
        return logits

    def _resized(self, images: Tensor, architecture: Architecture) -> Tensor:
        resized = resize(images, self.space.input_shape(architecture)[-1])
        return resized.contiguous(memory_format=torch.channels_last)

    @cached_property
    def _largest(self) -> Architecture:
        return arch.extreme(self.space.genes, largest=True)

    def _prior(self, name: str) -> Costs:
        """What rows promise by a name: MACs, or the score of a proxy on a few training images."""
        if name == "macs":
            return self._macs
        few = self.data.train
        score = proxies.make(name, self.space, few.images[:PRIOR_IMAGES], few.labels[:PRIOR_IMAGES])
        return lambda X: -score(X)

    def _macs(self, X: IntArray) -> FloatArray:
        return self._additive_macs(X)  # which most samplers never ask for

    @cached_property
    def _additive_macs(self) -> AdditiveCost:
        return AdditiveCost.of(self.space, block_macs)

    def _criterion(self) -> criteria.WeightedSum:
        """The loss, ready for its first step."""
        config = self.config
        terms = [
            criteria.Term(
                term.name,
                criteria.make(term.name, term.options, label_smoothing=config.label_smoothing),
                term.weight,
                term.ramp,
            )
            for term in config.criterion
        ]
        found = criteria.WeightedSum(tuple(terms))
        self.supernet.eval()
        every = [name for name, _ in self.supernet.named_modules() if name]
        with torch.no_grad(), Taps(self.supernet, every) as taps:
            self._forward(self._largest, self.data.train.images[:2])
            found.prepare(self.supernet, taps.taken())
        return found

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

    def _optimizer(self, beside: nn.Module) -> torch.optim.Optimizer:
        config = self.config
        rules = [filters.rated(prefix, rate) for prefix, rate in config.rates.items()]
        if config.trainable == "batch_norm":
            rules += filters.batch_norm_only()
        parts = filters.groups(self.supernet, rules, weight_decay=config.weight_decay)
        if own := list(beside.parameters()):
            parts.append({"params": own, "weight_decay": 0.0, "rate": 1.0})
        return torch.optim.SGD(parts, lr=config.learning_rate, momentum=config.momentum, nesterov=True)

    def _save(
        self,
        history: tuple[EpochRecord, ...],
        optimizer: torch.optim.Optimizer,
        sampler: samplers.Sampler,
        criterion: criteria.WeightedSum,
    ) -> None:
        if self.folder is None:
            return
        momenta = {
            name: optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self._named_parameters(criterion.module)
            if "momentum_buffer" in optimizer.state[parameter]
        }
        checkpoints.save(
            self.folder,
            Checkpoint(
                epoch=history[-1].epoch,
                settings=self._digest(),
                history=history,
                model=self.supernet.state_dict(),
                optimizer=momenta,
                criterion=criterion.module.state_dict(),
                remembered={"sampler": sampler.state(), "criterion": criterion.state()},
            ),
        )

    def _resume(
        self, optimizer: torch.optim.Optimizer, sampler: samplers.Sampler, criterion: criteria.WeightedSum
    ) -> tuple[EpochRecord, ...]:
        found = None if self.folder is None else checkpoints.load(self.folder)
        if found is None:
            return ()
        if found.settings != self._digest():
            raise CheckpointError(
                f"{self.folder}: a checkpoint of other settings (space, data or [training]): "
                "give the run another folder, or delete this one to train again"
            )
        try:
            self.supernet.load_state_dict(found.model)
            criterion.module.load_state_dict(found.criterion)
            sampler.restore(found.remembered.get("sampler", {}))
            criterion.restore(found.remembered.get("criterion", {}))
        except (RuntimeError, ValueError, KeyError) as error:
            first = (str(error).splitlines() or [repr(error)])[-1].strip()
            cure = "delete it to train again"
            raise CheckpointError(f"{self.folder}: does not fit the supernet ({first}): {cure}") from error
        for name, parameter in self._named_parameters(criterion.module):
            if name in found.optimizer:
                optimizer.state[parameter]["momentum_buffer"] = found.optimizer[name]
        return found.history

    def _named_parameters(self, beside: nn.Module) -> list[tuple[str, nn.Parameter]]:
        return [*self.supernet.named_parameters(), *((f"criterion.{k}", v) for k, v in beside.named_parameters())]

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
