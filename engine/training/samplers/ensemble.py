"""Ensemble of single paths: several uniform architectures a step, their gradients averaged (RSBNet, Peng et al., 2021).

The paper's text was not at hand: averaging gradients, and four of them, is our reading of its name.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, PositiveInt

from hwnas.engine.architecture import Gene
from hwnas.engine.training.samplers import Prior
from hwnas.engine.training.samplers.uniform import Uniform


class Config(BaseModel):
    """How many architectures a step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: PositiveInt = 4


def build(config: Config, genes: Sequence[Gene], *, seed: int, prior: Prior) -> Uniform:  # noqa: ARG001 (the role's)
    """The sampler for a space's genes."""
    return Uniform(tuple(genes), seed, config.paths)
