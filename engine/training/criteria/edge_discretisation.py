"""Edges are to be there or not (Tian et al., "Interleaving-Free Sampling", 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from hwnas.engine.training.criteria import Criterion, Features, TrainedPath

SPACE = "long_chain"


class Config(BaseModel):
    """When it sets in. The released training weighs it by 0.0146 at its end: `weight` of the term."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: float = Field(0.65, ge=0, lt=1)  # share of the training after which it rises from nothing to its weight


@dataclass(frozen=True)
class EdgeDiscretisation(Criterion):
    """Over the edges into each node that has several: the sum of `log(w / mean(w) + 1)`, w the edges' weights.

    The logarithm is concave, so at a given mean the sum is largest where all weights are equal, and falls as one grows
    at the cost of others: minimised, it makes weights sparse. It says nothing about their mean.
    """

    start: float

    def prepare(self, supernet: nn.Module, features: Features) -> None:  # noqa: ARG002
        """Raises ValueError for a supernet whose edges have no weights."""
        if not hasattr(supernet, "edge_weights"):
            raise ValueError(
                f"edge_discretisation: {type(supernet).__name__} has no edge_weights: choose the space long_chain, or "
                "leave the criterion out"
            )

    def __call__(self, path: TrainedPath) -> Tensor:
        """See Criterion."""
        ramp = max(0.0, path.progress - self.start) / (1 - self.start)
        weights: tuple[Tensor, ...] = path.supernet.edge_weights(path.architecture)  # type: ignore[operator]  # see above
        nothing = torch.zeros((), device=path.logits.device, requires_grad=True)  # where no node has a choice
        return ramp * sum((unevenness(w) for w in weights), nothing)


def unevenness(weights: Tensor) -> Tensor:
    """Sum of `log(w / mean(w) + 1)` over positive weights (n,): n log 2 where they are equal, the less the sparser."""
    return (weights / weights.mean() + 1).log().sum()


def build(config: Config, *, label_smoothing: float) -> EdgeDiscretisation:  # noqa: ARG001 (the role's)
    """The criterion."""
    return EdgeDiscretisation(config.start)
