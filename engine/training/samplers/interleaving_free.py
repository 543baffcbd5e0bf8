"""Periodic sampling of a chain's edges (Tian et al., "Interleaving-Free Sampling", 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt

from hwnas.engine.architecture import Gene
from hwnas.engine.interleaving import ChainEdge, chain_edges, reach, with_active
from hwnas.engine.training.samplers import Prior, Sampler, TrainingPath

SPACE = "long_chain"


class Config(BaseModel):
    """The period, and in which order its phases come."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    period: PositiveInt | None = None  # nodes from an active one to the next; one more than the reach if not given
    order: Literal["cyclic", "shuffled", "scattered"] = "cyclic"
    steps: PositiveInt = 1  # that a phase lasts; the paper changes it after each epoch


@dataclass(frozen=True)
class InterleavingFree(Sampler):
    """At a step every `period`-th node of a stage has all its edges, the others only the one from the node before.

    With a period of the reach or more no two edges of a step interleave; one of 1 has all edges at once, which is how
    a differentiable search trains them without this. `shuffled` goes through the phases of a period in another order
    each time. `scattered` is a control: each node has all its edges by chance, as often, and edges may interleave.
    A node's edges learn at one step of a period only: train longer by as much.
    """

    genes: tuple[Gene, ...]
    edges: tuple[ChainEdge, ...]
    period: int
    order: Literal["cyclic", "shuffled", "scattered"]
    steps: int
    seed: int

    def paths(self, step: int) -> tuple[TrainingPath, ...]:
        """See Sampler."""
        cycle, place = divmod(step // self.steps, self.period)
        nodes = list(dict.fromkeys((edge.stage, edge.target) for edge in self.edges))
        if self.order == "scattered":
            rng = np.random.default_rng([self.seed, step // self.steps])
            active = {
                node for node, drawn in zip(nodes, rng.random(len(nodes)), strict=True) if drawn < 1 / self.period
            }
        else:
            if self.order == "shuffled":
                place = int(np.random.default_rng([self.seed, cycle]).permutation(self.period)[place])
            active = {(stage, node) for stage, node in nodes if node % self.period == place}
        return (TrainingPath(with_active(self.genes, self.edges, frozenset(active)), "random"),)


def build(config: Config, genes: Sequence[Gene], *, seed: int, prior: Prior) -> InterleavingFree:  # noqa: ARG001 (the role's)
    """The sampler for the genes of a long chain. Raises ValueError for genes that are no edges."""
    edges = chain_edges(genes)
    return InterleavingFree(tuple(genes), edges, config.period or reach(edges) + 1, config.order, config.steps, seed)
