"""Gradual modification (Xu et al., MAGIC-T, ICML 2022): each step trains the last architecture with one gene changed.

Networks that follow each other share all but one of their operators, so their gradients interfere less. The walk over
the space has the uniform law in the limit, but a memory of about genes * (options - 1) / options steps: near the end of
a training the weights favour the neighbours of the last architecture unless the learning rate has fallen to nothing
by then, or several walks run side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt

from hwnas.engine.architecture import Gene, IntArray, active, canonical, check, sample, to_architecture
from hwnas.engine.training.samplers import Prior, Sampler, TrainingPath


class Config(BaseModel):
    """How far and how many walks go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    moves: PositiveInt = 1  # genes changed a step
    chains: PositiveInt = 1  # walks side by side, their gradients averaged


@dataclass
class Gradual(Sampler):
    """Walks by changes of single genes. Only genes that are on, and have another option, are changed.

    What a gene that is switched on anew holds is drawn uniformly: without that, deep networks would come back to
    the same small options.
    """

    genes: tuple[Gene, ...]
    seed: int
    config: Config
    _rows: IntArray = field(init=False, repr=False)
    _step: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        # a stream of its own: steps use [seed, step]
        self._rows = sample(self.genes, self.config.chains, np.random.default_rng([self.seed, 0, 1]))

    def paths(self, step: int) -> tuple[TrainingPath, ...]:
        """See Sampler."""
        rng = np.random.default_rng([self.seed, step])
        if step != self._step:  # asked again, a step does not move
            self._rows = np.stack([self._moved(row, rng) for row in self._rows])
            self._step = step
        n = self.config.chains
        return tuple(TrainingPath(to_architecture(row), "random", 1 / n) for row in self._rows)

    def state(self) -> dict[str, Any]:
        """Where the walks are."""
        return {"step": self._step, "rows": self._rows.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there. Raises ValueError for architectures of another space."""
        self._rows = np.array([check(self.genes, row) for row in state["rows"]], dtype=np.int64)
        self._step = int(state["step"])

    def _moved(self, row: IntArray, rng: np.random.Generator) -> IntArray:
        for _ in range(self.config.moves):
            on = active(self.genes, row[None])[0]
            movable = [i for i, gene in enumerate(self.genes) if on[i] and len(gene.choices) > 1]
            if not movable:
                break
            i = int(rng.choice(movable))
            changed = row.copy()
            changed[i] = rng.choice([option for option in self.genes[i].choices if option != row[i]])
            drawn = np.array([gene.choices[rng.integers(len(gene.choices))] for gene in self.genes])
            row = canonical(self.genes, np.where(on, changed, drawn)[None])[0]
        return row


def build(config: Config, genes: Sequence[Gene], *, seed: int, prior: Prior) -> Gradual:  # noqa: ARG001 (the role's)
    """The sampler for a space's genes."""
    return Gradual(tuple(genes), seed, config)
