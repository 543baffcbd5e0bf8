"""Which architectures train at a step: one file a sampler, each with `build(genes, seed=...) -> Sampler`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from hwnas.engine.architecture import Architecture

PathRole = Literal["largest", "smallest", "random"]


@dataclass(frozen=True, slots=True)
class TrainingPath:
    """One architecture of a step; the step's loss is the weighted sum over its paths."""

    architecture: Architecture
    role: PathRole
    weight: float = 1.0


class Sampler(Protocol):
    """Draws are a function of the step alone, so that a resumed training draws what an unbroken one draws."""

    def paths(self, step: int) -> tuple[TrainingPath, ...]:
        """The architectures of a step, in the order in which they are computed."""
        ...
