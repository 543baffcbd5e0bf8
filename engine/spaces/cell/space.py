"""Genes and slots of a network of equal cells, from a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator
from torch import nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, Gene, Slot
from hwnas.engine.spaces.cell.blocks import KERNELS, Operation
from hwnas.latency.block import Block

NAS_BENCH_201: tuple[Operation, ...] = ("none", "skip", "conv1x1", "conv3x3", "avgpool")


class Config(BaseModel):
    """What makes one space of cells. The defaults are NAS-Bench-201's, whose architectures have the same indices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["cell"] = "cell"
    resolution: PositiveInt = 32
    operations: tuple[Operation, ...] = Field(NAS_BENCH_201, min_length=1)  # of every edge, in the order of indices
    nodes: int = Field(4, ge=2)  # of a cell; the first is its input, the last its output
    channels: PositiveInt = 16  # of the first stage; every later one has twice as many
    stages: PositiveInt = 3
    cells: PositiveInt = 5  # a stage
    affine: bool = True  # whether BatchNorm scales and shifts; differentiable searches often go without

    @field_validator("operations")
    @classmethod
    def _each_once(cls, operations: tuple[Operation, ...]) -> tuple[Operation, ...]:
        if len(set(operations)) != len(operations):
            raise ValueError(f"list each operation once, got {operations}")
        return operations

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(from, to) of every edge of a cell, in the order of the genes."""
        return tuple((source, target) for target in range(1, self.nodes) for source in range(target))

    def channels_of(self, stage: int) -> int:
        """Channels of a stage (0-based)."""
        return self.channels << stage

    def size_of(self, stage: int) -> int:
        """Height and width of a stage (0-based)."""
        return -(-self.resolution // (1 << stage))


@dataclass(frozen=True)
class CellSpace:
    """The search space: see `Config`. A gene is an edge, "0-1", "0-2", "1-2", ..., the same in every cell.

    Options have no order of size: a sampler that wants the largest architecture is not for this space. Slots are
    named s1.c1.0-2 for the operation on an edge and s1.c1.0-2.add for adding its output to what its node has already;
    an edge that is `none` or `skip` holds no block of its own.
    """

    config: Config
    in_channels: int
    classes: int
    mask: tuple[tuple[bool, ...], ...] | None = None

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """One an edge."""
        genes = tuple(Gene(f"{source}-{target}", self.config.operations) for source, target in self.config.edges)
        return genes if self.mask is None else arch.restrict(genes, self.mask)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Stem, the edges and additions of every cell with a reduction between stages, head."""
        config = self.config
        slots = [Slot("stem", (), self._stem)]
        for stage in range(config.stages):
            if stage:
                slots.append(Slot(f"s{stage + 1}.reduction", (), partial(self._reduction, stage)))
            for cell in range(1, config.cells + 1):
                for source, target in config.edges:
                    place, edge = f"s{stage + 1}.c{cell}.{source}-{target}", f"{source}-{target}"
                    slots.append(Slot(place, (edge,), partial(self._operation, stage, edge)))
                    if source:
                        scope = tuple(f"{earlier}-{target}" for earlier in range(source + 1))
                        slots.append(Slot(f"{place}.add", scope, partial(self._addition, stage, edge)))
        return (*slots, Slot("head", (), self._head))

    def input_shape(self, architecture: Architecture) -> tuple[int, int, int]:
        """(channels, height, width)."""
        del architecture
        return self.in_channels, self.config.resolution, self.config.resolution

    def supernet(self) -> nn.Module:
        """A CellSupernet, freshly initialised."""
        from hwnas.engine.spaces.cell.supernet import CellSupernet

        return CellSupernet(self)

    def restrict(self, mask: Sequence[Sequence[bool]]) -> CellSpace:
        """The same space with only the masked options allowed."""
        narrowed = arch.restrict(self.genes, mask)
        return replace(self, mask=tuple(gene.allowed or (True,) * len(gene.options) for gene in narrowed))

    def _stem(self, genes: Mapping[str, Any]) -> Block:
        del genes
        config, shape = self.config, (1, self.in_channels, self.config.resolution, self.config.resolution)
        return Block.of(
            "cell.stem", shape, in_channels=self.in_channels, channels=config.channels, affine=config.affine
        )

    def _shape(self, stage: int) -> tuple[int, int, int, int]:
        return 1, self.config.channels_of(stage), self.config.size_of(stage), self.config.size_of(stage)

    def _operation(self, stage: int, edge: str, genes: Mapping[str, Any]) -> Block | None:
        name = genes[edge]
        if name in ("none", "skip"):
            return None
        if name == "avgpool":
            return Block.of("cell.pool", self._shape(stage))
        return Block.of(
            "cell.convolution",
            self._shape(stage),
            channels=self.config.channels_of(stage),
            kernel=KERNELS[name],
            separable=name.startswith("separable"),
            affine=self.config.affine,
        )

    def _addition(self, stage: int, edge: str, genes: Mapping[str, Any]) -> Block | None:
        earlier = [name for other, name in genes.items() if other != edge]
        if genes[edge] == "none" or all(name == "none" for name in earlier):
            return None
        return Block.of("cell.addition", self._shape(stage), self._shape(stage))

    def _reduction(self, stage: int, genes: Mapping[str, Any]) -> Block:
        del genes
        config = self.config
        return Block.of(
            "cell.reduction",
            self._shape(stage - 1),
            in_channels=config.channels_of(stage - 1),
            out_channels=config.channels_of(stage),
            affine=config.affine,
        )

    def _head(self, genes: Mapping[str, Any]) -> Block:
        del genes
        last = self.config.stages - 1
        return Block.of(
            "cell.head",
            self._shape(last),
            channels=self.config.channels_of(last),
            classes=self.classes,
            affine=self.config.affine,
        )


def build(config: Config, *, in_channels: int, classes: int) -> CellSpace:
    """The space for images of `in_channels` in `classes`."""
    return CellSpace(config, in_channels, classes)
