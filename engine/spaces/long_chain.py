"""The L-chain: stages of nodes in a row, where a node may also read nodes up to `reach` before it.

Tian et al., "Exploring Complicated Search Spaces with Interleaving-Free Sampling", 2021. Differences from the paper:
the edge to the next node is always there, so that every architecture is one connected network; the weights of an edge's
operations are not learned (the released optimiser holds them too) and are 1; convolutions are not normalised but the
sum that enters a node is, or the normalisation would undo what an edge's strength says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator
from torch import nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, Gene, Slot
from hwnas.engine.spaces._long_chain import LongChain
from hwnas.latency.block import Block

Operation = Literal["skip", "separable3", "separable5"]


class Stage(BaseModel):
    """Nodes of one width and resolution."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: PositiveInt
    channels: PositiveInt


class Config(BaseModel):
    """What makes one L-chain; every stage but the first begins by halving height and width."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["long_chain"] = "long_chain"
    resolution: PositiveInt
    stages: tuple[Stage, ...] = Field(min_length=1)  # (18, 20, 18) nodes in the paper
    reach: PositiveInt = 4  # nodes that an edge may lead on: 4, 6 or 8 in the paper
    operations: tuple[Operation, ...] = ("skip", "separable3")

    @field_validator("operations")
    @classmethod
    def _once_each(cls, operations: tuple[Operation, ...]) -> tuple[Operation, ...]:
        order = ("skip", "separable3", "separable5")
        if not operations or list(operations) != sorted(set(operations), key=order.index):
            raise ValueError(f"list each operation once, from small to large ({', '.join(order)}), got {operations}")
        return operations

    @property
    def options(self) -> tuple[str, ...]:
        """What an edge that is there may hold: one of the operations, or the sum of all."""
        return (*self.operations, "+".join(self.operations)) if len(self.operations) > 1 else self.operations


EXAMPLE = Config(resolution=8, stages=(Stage(nodes=4, channels=4), Stage(nodes=4, channels=8)), reach=3)


@dataclass(frozen=True)
class LongChainSpace:
    """The search space: see `Config`. Gene s1.n5.from2 is the edge from node 2 to node 5; node 0 is a stage's entry."""

    config: Config
    in_channels: int
    classes: int
    mask: tuple[tuple[bool, ...], ...] | None = None

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Edges, by node and then by where they come from: genes of one node are one place."""
        genes = []
        for s, stage in enumerate(self.config.stages, 1):
            for node in range(1, stage.nodes + 1):
                for source in range(max(0, node - self.config.reach), node):
                    options = self.config.options if source == node - 1 else ("none", *self.config.options)
                    genes.append(Gene(f"s{s}.n{node}.from{source}", options))
        return tuple(genes) if self.mask is None else arch.restrict(genes, self.mask)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Entry, then for each node its edges, nearest source first, and its normalisation; the head last."""
        slots = []
        for s, stage in enumerate(self.config.stages, 1):
            shape = self.shape(s)
            slots.append(Slot(f"s{s}.entry", (), partial(self._entry, s)))
            for node in range(1, stage.nodes + 1):
                for source in range(node - 1, max(0, node - self.config.reach) - 1, -1):
                    name = f"s{s}.n{node}.from{source}"
                    slots.append(Slot(name, (name,), partial(_edge, name, shape, source == node - 1)))
                norm = Block.of("long_chain.norm", shape, channels=stage.channels)
                slots.append(Slot(f"s{s}.n{node}", (), partial(_always, norm)))
        last = len(self.config.stages)
        head = Block.of("long_chain.head", self.shape(last), channels=self.shape(last)[1], classes=self.classes)
        return (*slots, Slot("head", (), partial(_always, head)))

    def shape(self, stage: int) -> tuple[int, int, int, int]:
        """What flows in a stage (1-based), for one image."""
        size = self.config.resolution
        for _ in range(stage - 1):
            size = (size + 1) // 2
        return 1, self.config.stages[stage - 1].channels, size, size

    def input_shape(self, architecture: Architecture) -> tuple[int, int, int]:  # noqa: ARG002  # the same for all
        """(channels, height, width)."""
        return self.in_channels, self.config.resolution, self.config.resolution

    def supernet(self) -> nn.Module:
        """A LongChain, freshly initialised."""
        return LongChain(self)

    def restrict(self, mask: Sequence[Sequence[bool]]) -> LongChainSpace:
        """The same space with only the masked options allowed."""
        narrowed = arch.restrict(self.genes, mask)
        return replace(self, mask=tuple(gene.allowed or (True,) * len(gene.options) for gene in narrowed))

    def _entry(self, s: int, genes: Mapping[str, Any]) -> Block:  # noqa: ARG002  # no gene decides it
        channels = self.config.stages[s - 1].channels
        if s == 1:
            shape = (1, self.in_channels, self.config.resolution, self.config.resolution)
            return Block.of("long_chain.stem", shape, in_channels=self.in_channels, channels=channels)
        before = self.shape(s - 1)
        return Block.of("long_chain.entry", before, in_channels=before[1], channels=channels)


def _edge(name: str, shape: tuple[int, ...], is_link: bool, genes: Mapping[str, Any]) -> Block | None:
    if genes[name] == "none":
        return None
    inputs = (shape,) if is_link else (shape, shape)  # a long edge adds to what the nearer ones brought
    return Block.of("long_chain.edge", *inputs, channels=shape[1], operation=genes[name])


def _always(block: Block, genes: Mapping[str, Any]) -> Block:  # noqa: ARG001  # no gene decides it
    return block


def build(config: Config, *, in_channels: int, classes: int) -> LongChainSpace:
    """The space for images of `in_channels` in `classes`."""
    return LongChainSpace(config, in_channels, classes)
