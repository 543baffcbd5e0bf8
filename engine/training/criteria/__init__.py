"""The loss of a path: one file a criterion, each with a pydantic `Config` and `build(config, *, label_smoothing)`.

A criterion that is for the supernets of one space alone names it, `SPACE = "long_chain"`.

A training's loss is a weighted sum of criteria. Each sees one path at a time, as only one path's graph is alive.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from hwnas.devices.plugins import load_plugin
from hwnas.engine.architecture import Architecture
from hwnas.engine.training.samplers import PathRole

Features = Mapping[str, Tensor]  # output of each submodule that a criterion taps and that ran


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """What a step begins with: the supernet in training mode, a batch, and how much of the training lies behind."""

    supernet: nn.Module
    images: Tensor  # (n, channels, height, width), at the size that the largest architecture takes
    labels: Tensor  # (n,)
    progress: float  # 0 at the first step, towards 1 at the last
    architectures: Sequence[Architecture]  # of the step's paths, in their order
    ask: Callable[[Architecture], tuple[Tensor, Features]]  # logits, features; leaves no gradient and no trace


@dataclass(frozen=True, slots=True)
class TrainedPath:
    """What a path of a step has computed."""

    supernet: nn.Module  # with `architecture` active
    architecture: Architecture
    role: PathRole
    logits: Tensor  # (n, classes)
    labels: Tensor  # (n,)
    progress: float
    features: Features
    teacher: Tensor | None = None  # logits of the largest of the step, without gradient, if it ran before
    teacher_features: Features | None = None  # its outputs, without gradient


class Criterion(Protocol):
    """Loss of one path of a step. Optional methods have their defaults here."""

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of the supernet's submodules whose outputs it reads."""
        return ()

    @property
    def module(self) -> nn.Module | None:
        """Weights of its own that are trained along, if any."""
        return None

    def prepare(self, supernet: nn.Module, features: Features) -> None:
        """Once, before the training: outputs of the submodules for a few images, the largest architecture active."""
        del supernet, features

    def begin(self, step: TrainingStep) -> None:
        """Before a step's paths."""
        del step

    def __call__(self, path: TrainedPath) -> Tensor:
        """Scalar loss."""
        ...

    def state(self) -> dict[str, Any]:
        """What it remembers from step to step beside `module`, fit for JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state()`."""
        del state


class Build(Protocol):
    """How every criterion is made."""

    def __call__(self, config: Any, *, label_smoothing: float) -> Criterion:
        """`label_smoothing` is for what compares with labels."""
        ...


@dataclass(frozen=True)
class Term:
    """A criterion, its weight, and over which share of the training the weight rises from nothing."""

    name: str
    criterion: Criterion
    weight: float = 1.0
    ramp: float = 0.0

    def weight_at(self, progress: float) -> float:
        """The weight when `progress` of the training is done."""
        return self.weight * min(1.0, progress / self.ramp) if self.ramp > 0 else self.weight


@dataclass(frozen=True)
class WeightedSum:
    """Several criteria as one."""

    terms: tuple[Term, ...]

    @property
    def taps(self) -> tuple[str, ...]:
        """Every tap that a term reads, once."""
        return tuple(dict.fromkeys(tap for term in self.terms for tap in term.criterion.taps))

    @property
    def module(self) -> nn.Module:
        """The weights of all terms."""
        return nn.ModuleDict(
            {str(i): found for i, term in enumerate(self.terms) if (found := term.criterion.module) is not None}
        )

    def prepare(self, supernet: nn.Module, features: Features) -> None:
        """See Criterion."""
        for term in self.terms:
            term.criterion.prepare(supernet, features)

    def begin(self, step: TrainingStep) -> None:
        """See Criterion."""
        for term in self.terms:
            term.criterion.begin(step)

    def __call__(self, path: TrainedPath) -> Tensor:
        """The weighted sum; terms whose weight is still nothing are called too, as they may remember the path."""
        total = torch.zeros((), device=path.logits.device)
        for term in self.terms:
            total = total + term.weight_at(path.progress) * term.criterion(path)
        return total

    def state(self) -> dict[str, Any]:
        """See Criterion."""
        return {str(i): found for i, term in enumerate(self.terms) if (found := term.criterion.state())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See Criterion."""
        for i, term in enumerate(self.terms):
            if str(i) in state:
                term.criterion.restore(state[str(i)])


def make(name: str, options: Mapping[str, Any], *, label_smoothing: float) -> Criterion:
    """The criterion called `name`. Raises LookupError with the known names, ValueError for options it does not take."""
    plugin = load_plugin(sys.modules[__name__], name)
    return cast(Build, plugin.build)(plugin.Config.model_validate(options), label_smoothing=label_smoothing)
