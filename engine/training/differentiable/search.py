"""Gradient search: weights and a policy over options are trained in turn, each on its own half of the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import cos, pi
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from hwnas.engine.architecture import IntArray, SearchSpace
from hwnas.engine.dataset import Split
from hwnas.engine.policy import CategoricalPolicy
from hwnas.engine.spaces.cell import DropBlockIdentity
from hwnas.engine.training.differentiable.relaxation import SubGraph, feasible, gumbel_top_k, union, whole_mixture
from hwnas.engine.training.filters import TrainableFilter, batch_norm_only, groups


class Mixture(Protocol):
    """What a supernet needs to be searched by gradient; also an nn.Module."""

    def mixture(self, images: Tensor, weights: Tensor, *, executed: Sequence[Sequence[int]] | None = None) -> Tensor:
        """Logits of a network that adds its options up by `weights` (genes, options); `executed` ones alone run."""
        ...

    def skips(self) -> Sequence[DropBlockIdentity]:
        """Identities that can drop blocks while training."""
        ...


class DifferentiableConfig(BaseModel):
    """How a space is searched by gradient. The defaults are first-order DARTS (Liu et al., ICLR 2019)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: PositiveInt | None = None  # sub-graphs a step, each of one option an edge; None: all options mixed
    temperature: tuple[PositiveFloat, PositiveFloat] = (10.0, 0.1)  # of sub-graphs, first and last epoch, as in GDAS
    epochs: PositiveInt = 50
    batch: PositiveInt = 64
    policy_share: float = Field(0.5, gt=0, lt=1)  # of the images, for the policy; the rest is for the weights
    learning_rate: PositiveFloat = 0.025  # of the weights; a cosine down to `last_learning_rate`
    last_learning_rate: NonNegativeFloat = 0.001
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 3e-4  # of weights with two axes or more
    gradient_norm: PositiveFloat = 5.0  # clipped to it
    policy_learning_rate: PositiveFloat = 3e-4  # of Adam
    policy_weight_decay: NonNegativeFloat = 1e-3
    trainable: Literal["all", "batch_norm"] = "all"  # batch_norm: RF-DARTS (Zhang et al., CVPR 2023)
    train_classifier: bool = False  # beside BatchNorm
    drop_block: float = Field(0.0, ge=0, lt=1)  # share that skips drop at first; falls to 0 in a line
    distillation: NonNegativeFloat = 0.0  # weight of learning from all of a step's sub-graphs at once
    distillation_temperature: PositiveFloat = 2.0
    distillation_start: float = Field(0.1, ge=0, le=1)  # share of the search before it: a random teacher slows
    seed: NonNegativeInt = 0

    def filters(self) -> tuple[TrainableFilter, ...]:
        """What trains of the weights."""
        return batch_norm_only(train_classifier=self.train_classifier) if self.trainable == "batch_norm" else ()


@dataclass(frozen=True, slots=True)
class SearchEpoch:
    """What one epoch came to; losses are means over steps and sub-graphs."""

    epoch: int  # 1-based
    weights_loss: float
    policy_loss: float  # on the half of the images that the weights do not see
    policy: CategoricalPolicy


@dataclass
class DifferentiableSearch:
    """Searches one space with a supernet that is trained along; the mode of the last policy is the network found."""

    space: SearchSpace
    supernet: nn.Module  # also a Mixture
    images: Split  # training images; no others are looked at
    config: DifferentiableConfig
    on_epoch: Callable[[SearchEpoch], None] | None = None
    logits: Tensor = field(init=False, repr=False)  # of the policy, (genes, most options)
    _allowed: Tensor = field(init=False, repr=False)
    _generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """All options alike, and the first of the random numbers."""
        self._allowed = torch.from_numpy(feasible(self.space.genes))
        self._generator = torch.Generator().manual_seed(self.config.seed)
        self.logits = torch.zeros(self._allowed.shape, requires_grad=True)

    def run(self) -> tuple[SearchEpoch, ...]:
        """Search from the beginning; every epoch. Raises FloatingPointError, ValueError where nothing can train."""
        config = self.config
        self.begin()
        # channels last: see the trainer
        self.supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own stub
        weights = groups(self.supernet, config.filters(), weight_decay=config.weight_decay)
        by_weights = torch.optim.SGD(weights, lr=config.learning_rate, momentum=config.momentum)
        by_policy = torch.optim.Adam(
            [self.logits], config.policy_learning_rate, betas=(0.5, 0.999), weight_decay=config.policy_weight_decay
        )
        history: tuple[SearchEpoch, ...] = ()
        self.supernet.train()
        try:
            for epoch in range(1, config.epochs + 1):
                progress = (epoch - 1) / config.epochs
                self._drop(config.drop_block * (1 - progress))
                for group in by_weights.param_groups:
                    group["lr"] = learning_rate(config, progress) * group["rate"]
                losses = self._epoch(epoch, progress, by_weights, by_policy)
                history = (*history, SearchEpoch(epoch, *losses, self.policy()))
                if self.on_epoch is not None:
                    self.on_epoch(history[-1])
        finally:
            self._drop(0.0)
            self.supernet.requires_grad_(True).eval()
        return history

    def policy(self) -> CategoricalPolicy:
        """Where the search stands."""
        weights = whole_mixture(self.logits.detach(), self._allowed).weights
        return CategoricalPolicy.of(self.space.genes, weights.double().numpy())

    def _epoch(
        self, epoch: int, progress: float, by_weights: torch.optim.Optimizer, by_policy: torch.optim.Optimizer
    ) -> tuple[float, float]:
        """Every step of one epoch; mean losses of the weights and of the policy."""
        trained = [parameter for group in by_weights.param_groups for parameter in group["params"]]
        losses = []
        for for_weights, for_policy in self.batches(epoch):
            by_policy.zero_grad()
            policy_loss = self.policy_gradient(*for_policy, progress)
            by_policy.step()
            by_weights.zero_grad()
            weights_loss = self.weights_gradient(*for_weights, progress)
            nn.utils.clip_grad_norm_(trained, self.config.gradient_norm)
            by_weights.step()
            losses.append((weights_loss, policy_loss))
        mean = np.mean(losses, axis=0)
        if not np.isfinite(mean).all():
            cure = f"lower learning_rate={self.config.learning_rate}"
            raise FloatingPointError(f"the losses became {mean.tolist()}: {cure}")
        return float(mean[0]), float(mean[1])

    def policy_gradient(self, images: Tensor, labels: Tensor, progress: float) -> float:
        """The gradient of the logits alone, first order, one sub-graph's graph alive at a time."""
        sub_graphs = self.sub_graphs(progress)
        leaf = [sub_graph.weights.detach().requires_grad_() for sub_graph in sub_graphs]
        total = 0.0
        for sub_graph, weights in zip(sub_graphs, leaf, strict=True):
            logits = self._run(images, SubGraph(weights, sub_graph.executed))
            loss = F.cross_entropy(logits, labels) / len(sub_graphs)
            (found,) = torch.autograd.grad(loss, weights, allow_unused=True)
            weights.grad = torch.zeros_like(weights) if found is None else found  # none of them was worth anything
            total += loss.item()
            del logits, loss  # or what led to no weight, as the stem, would stay while the next one runs
        # all sub-graphs lean on one draw: its own small graph is walked once, behind them
        torch.autograd.backward([s.weights for s in sub_graphs], [w.grad for w in leaf])
        return total

    def weights_gradient(self, images: Tensor, labels: Tensor, progress: float) -> float:
        """The gradient of the supernet's weights, one sub-graph's graph alive at a time."""
        with torch.no_grad():
            sub_graphs = self.sub_graphs(progress)
        teacher = self._teacher(images, sub_graphs) if progress >= self.config.distillation_start else None
        total = 0.0
        for sub_graph in sub_graphs:
            logits = self._run(images, sub_graph)
            loss = F.cross_entropy(logits, labels)
            if teacher is not None:
                loss = loss + self.config.distillation * divergence(
                    logits, teacher, temperature=self.config.distillation_temperature
                )
            loss = loss / len(sub_graphs)
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            total += loss.item()
        return total

    @torch.no_grad()
    def _teacher(self, images: Tensor, sub_graphs: Sequence[SubGraph]) -> Tensor | None:
        """Logits of all drawn options at once, before the weights move; BatchNorm on batch statistics as theirs is."""
        if not self.config.distillation:
            return None
        skips = self._mixture.skips()
        for skip in skips:
            skip.eval()  # a teacher drops nothing
        logits = self._run(images, union(sub_graphs, self.logits, self._allowed))
        for skip in skips:
            skip.train()
        return logits

    def sub_graphs(self, progress: float) -> tuple[SubGraph, ...]:
        """What runs in the next pass, drawn anew where it is drawn."""
        config = self.config
        if config.paths is None:
            return (whole_mixture(self.logits, self._allowed),)
        first, last = config.temperature
        temperature = first + (last - first) * progress * config.epochs / max(1, config.epochs - 1)
        return gumbel_top_k(
            self.logits, self._allowed, config.paths, temperature=temperature, generator=self._generator
        )

    def _run(self, images: Tensor, sub_graph: SubGraph) -> Tensor:
        return self._mixture.mixture(images, sub_graph.weights, executed=sub_graph.executed)

    def _drop(self, rate: float) -> None:
        """Let skips drop that share of their blocks while training."""
        for skip in self._mixture.skips():
            skip.rate, skip.generator = rate, self._generator if rate else None

    @property
    def _mixture(self) -> Mixture:
        return self.supernet  # type: ignore[return-value]  # an nn.Module that is one

    def batches(self, epoch: int) -> Iterator[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
        """Pairs of a batch for the weights and one for the policy; the two parts are the same in every epoch."""
        config, count = self.config, len(self.images)
        fixed = np.random.default_rng([config.seed, 0]).permutation(count)
        rng = np.random.default_rng([config.seed, epoch])
        cut = count - round(config.policy_share * count)
        for_weights, for_policy = rng.permutation(fixed[:cut]), rng.permutation(fixed[cut:])
        batch = min(config.batch, len(for_weights), len(for_policy))
        for start in range(0, len(for_weights) - batch + 1, batch):
            rows = np.take(for_policy, np.arange(start, start + batch), mode="wrap")
            yield self._batch(for_weights[start : start + batch]), self._batch(rows)

    def _batch(self, rows: IntArray) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(rows)
        images = self.images.images[chosen].contiguous(memory_format=torch.channels_last)
        return images, self.images.labels[chosen]


def learning_rate(config: DifferentiableConfig, progress: float) -> float:
    """A cosine from the first rate to the last; `progress` of the search in 0..1."""
    first, last = config.learning_rate, config.last_learning_rate
    return last + 0.5 * (first - last) * (1 + cos(pi * progress))


def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of softened logits (n, classes), a mean over n (Hinton et al., 2015)."""
    soft = F.log_softmax(student / temperature, 1)
    target = F.softmax(teacher / temperature, 1)
    return temperature**2 * F.kl_div(soft, target, reduction="batchmean")
