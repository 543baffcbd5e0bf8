"""Draws weights towards the distribution that their operator works with (ShiftAddNAS, You et al., ICML 2022).

Convolutions and shifts have Gaussian weights, additions heavy-tailed ones: a tensor that all of them share is read
through a map, and this is the penalty on what comes out. Give it the weight 10 beside `cross_entropy`, as they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat
from scipy.stats import laplace, norm
from torch import Tensor, nn

from hwnas.engine.training.criteria import Criterion, TrainedPath

SPACE = "hybrid"  # that it is made for

Kind = Literal["quantile", "index_kl"]


class Config(BaseModel):
    """Which penalty, and which distributions.

    "quantile" is the squared 2-Wasserstein distance: sorted weights against the quantiles of the target. "index_kl" is
    what ShiftAddNAS's released code computes: KL from the softmax of a fresh sample to the softmax of the weights,
    index by index. As the sample is not sorted, its optimum is a flat tensor, whatever the target: it is here to
    reproduce.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = "quantile"
    gaussian_std: PositiveFloat | Literal["own"] = 1.0  # own: the shape alone, BatchNorm hides a convolution's scale
    laplace_scale: PositiveFloat = 2.0
    seed: NonNegativeInt = 0  # of the samples of index_kl


@dataclass
class WeightDistribution(Criterion):
    """The penalty, summed over the layers of a path.

    A supernet says by `operator_weights() -> ((operator, weight), ...)` what its active path uses; of any other, every
    weight of a convolution counts as one.
    """

    config: Config
    _drawn: int = field(default=0, init=False)  # samples so far: a resumed training goes on with the next

    def __call__(self, path: TrainedPath) -> Tensor:
        """See Criterion."""
        total = path.logits.sum() * 0
        for operator, weight in _weights(path.supernet):
            total = total + self.penalty(weight, laplacian=operator == "add")
        return total

    def penalty(self, weight: Tensor, *, laplacian: bool) -> Tensor:
        """How far the numbers of a tensor are from the target; scalar."""
        scale = self.config.laplace_scale if laplacian else self.config.gaussian_std
        flat = weight.flatten()
        if isinstance(scale, str):  # its own
            flat, scale = flat / flat.detach().std().clamp_min(1e-12), 1.0
        if self.config.kind == "quantile":
            target = torch.from_numpy(_quantiles(len(flat), laplacian)).to(flat) * scale
            return (flat.sort().values - target).square().mean()
        rng = np.random.default_rng([self.config.seed, self._drawn])
        self._drawn += 1
        drawn = rng.laplace(0, scale, len(flat)) if laplacian else rng.normal(0, scale, len(flat))
        sample = torch.from_numpy(drawn).to(flat).log_softmax(0)
        # averaged over the numbers, as torch's divergences are by default: our reading of a form without one
        return torch.mean(sample.exp() * (sample - flat.log_softmax(0)))

    def state(self) -> dict[str, Any]:
        """See Criterion."""
        return {"drawn": self._drawn}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See Criterion."""
        self._drawn = int(state["drawn"])


@lru_cache(maxsize=64)  # a few sizes of tensors, at every step
def _quantiles(n: int, laplacian: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Quantiles of the standard distribution at the middles of `n` equal steps, ascending."""
    middles = (np.arange(n) + 0.5) / n
    return np.asarray((laplace if laplacian else norm).ppf(middles))


def _weights(supernet: nn.Module) -> Sequence[tuple[str, Tensor]]:
    found = getattr(supernet, "operator_weights", None)
    if found is not None:
        weights: Sequence[tuple[str, Tensor]] = found()
        return weights
    return [("conv", parameter) for parameter in supernet.parameters() if parameter.dim() == 4]


def build(config: Config, *, label_smoothing: float) -> WeightDistribution:  # noqa: ARG001 (the role's)
    """The criterion."""
    return WeightDistribution(config)
