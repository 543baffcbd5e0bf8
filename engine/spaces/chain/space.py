"""Genes and slots of a chain, from a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator
from torch import nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, Gene, Slot
from hwnas.engine.spaces.chain.blocks import WEIGHTLESS, Operator
from hwnas.latency.block import Block


class Stage(BaseModel):
    """Layers of one image size, the first of which has the stride. Options are listed from small to large."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operators: tuple[Operator, ...] = ("conv3x3",)
    widths: tuple[PositiveInt, ...]  # each layer has its own
    depths: tuple[PositiveInt, ...] = (1,)
    stride: Literal[1, 2] = 1

    @field_validator("widths", "depths")
    @classmethod
    def _ascending(cls, options: tuple[int, ...]) -> tuple[int, ...]:
        if not options or list(options) != sorted(set(options)):
            raise ValueError(f"list each option once, from small to large, got {options}")
        return options

    @field_validator("operators")
    @classmethod
    def _small_to_large(cls, options: tuple[Operator, ...]) -> tuple[Operator, ...]:
        places = [get_args(Operator).index(option) for option in options]
        if not options or places != sorted(set(places)):
            raise ValueError(f"list each operator once, in the order {', '.join(get_args(Operator))}; got {options}")
        return options


class Config(BaseModel):
    """What makes one chain."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["chain"] = "chain"
    resolution: PositiveInt
    stem_width: PositiveInt | None = None  # of a first 3x3 convolution that every network has; none: there is none
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _channels_fit(self) -> Config:
        incoming: tuple[int, ...] = () if self.stem_width is None else (self.stem_width,)
        for number, stage in enumerate(self.stages, 1):
            kept = [operator for operator in stage.operators if operator in WEIGHTLESS]
            if kept and not (len(stage.widths) == 1 and incoming == stage.widths):
                raise ValueError(
                    f"stage {number}: {kept[0]} keeps the number of channels, so the stage needs the one width that "
                    f"comes in ({', '.join(map(str, incoming)) or 'the image has its own'}), not {stage.widths}"
                )
            incoming = stage.widths
        return self

    def size_at(self, stage: int) -> int:
        """Height and width at the input of `stage` (0-based; the number of stages means the head)."""
        size = self.resolution
        for each in self.stages[:stage]:
            size = (size + each.stride - 1) // each.stride
        return size


@dataclass(frozen=True)
class ChainSpace:
    """The search space: see `Config`. Gene names: s1.depth, s1.b1.operator, s1.b1.width; one option makes no gene."""

    config: Config
    in_channels: int
    classes: int
    mask: tuple[tuple[bool, ...], ...] | None = None

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Stage by stage the depth, then operators and widths of its layers."""
        genes: list[Gene] = []
        for s, stage in enumerate(self.config.stages, 1):
            if len(stage.depths) > 1:
                genes.append(Gene(f"s{s}.depth", stage.depths))
            for b in range(1, stage.depths[-1] + 1):
                deep = frozenset(i for i, depth in enumerate(stage.depths) if depth >= b)
                needs = None if len(deep) == len(stage.depths) else (f"s{s}.depth", deep)
                if len(stage.operators) > 1:
                    genes.append(Gene(f"s{s}.b{b}.operator", stage.operators, needs))
                if len(stage.widths) > 1:
                    genes.append(Gene(f"s{s}.b{b}.width", stage.widths, needs))
        return tuple(genes) if self.mask is None else arch.restrict(genes, self.mask)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Stem, every layer a stage can hold, head."""
        slots = [] if self.config.stem_width is None else [Slot("stem", (), self._stem)]
        for s, stage in enumerate(self.config.stages, 1):
            for b in range(1, stage.depths[-1] + 1):
                own = [f"s{s}.depth", f"s{s}.b{b}.operator", f"s{s}.b{b}.width"]
                scope = self._present(own + ([f"s{s}.b{b - 1}.width"] if b > 1 else self._leaving(s - 1)))
                slots.append(Slot(f"s{s}.b{b}", scope, partial(self._layer, s, b)))
        last = len(self.config.stages)
        slots.append(Slot("head", self._present(self._leaving(last)), self._head))
        return tuple(slots)

    def input_shape(self, architecture: Architecture) -> tuple[int, int, int]:
        """(channels, height, width); the same for all."""
        del architecture
        return self.in_channels, self.config.resolution, self.config.resolution

    def supernet(self) -> nn.Module:
        """An ElasticChain, freshly initialised."""
        from hwnas.engine.spaces.chain.supernet import ElasticChain

        return ElasticChain(self)

    def restrict(self, mask: Sequence[Sequence[bool]]) -> ChainSpace:
        """The same space with only the masked options allowed."""
        narrowed = arch.restrict(self.genes, mask)
        return replace(self, mask=tuple(gene.allowed or (True,) * len(gene.options) for gene in narrowed))

    # ---- what a network is ------------------------------------------------------------------------------------------

    def depth(self, s: int, values: Mapping[str, Any]) -> int:
        """Layers of stage `s` (1-based), given option values by gene name."""
        return int(values.get(f"s{s}.depth", self.config.stages[s - 1].depths[0]))

    def operator(self, s: int, b: int, values: Mapping[str, Any]) -> Operator:
        """Operator of layer `b` of stage `s`."""
        found: Operator = values.get(f"s{s}.b{b}.operator", self.config.stages[s - 1].operators[0])
        return found

    def width(self, s: int, b: int, values: Mapping[str, Any]) -> int:
        """Channels behind layer `b` of stage `s`; behind stage 0 those of the stem or of the image."""
        if s == 0:
            return self.config.stem_width or self.in_channels
        return int(values.get(f"s{s}.b{b}.width", self.config.stages[s - 1].widths[0]))

    def incoming(self, s: int, b: int, values: Mapping[str, Any]) -> int:
        """Channels in front of layer `b` of stage `s`."""
        return self.width(s, b - 1, values) if b > 1 else self.leaving(s - 1, values)

    def leaving(self, s: int, values: Mapping[str, Any]) -> int:
        """Channels behind stage `s`."""
        return self.width(s, self.depth(s, values) if s else 0, values)

    def _leaving(self, s: int) -> list[str]:
        """Names of the genes that decide the channels behind stage `s`."""
        if s == 0:
            return []
        depths = self.config.stages[s - 1].depths
        return [f"s{s}.depth", *(f"s{s}.b{b}.width" for b in depths)]

    def _present(self, names: Sequence[str]) -> tuple[str, ...]:
        known = {gene.name for gene in self.genes}
        return tuple(name for name in names if name in known)

    def _stem(self, values: Mapping[str, Any]) -> Block:
        del values
        size = self.config.resolution
        return Block.of(
            "chain.layer",
            (1, self.in_channels, size, size),
            operator="conv3x3",
            in_channels=self.in_channels,
            out_channels=self.width(0, 0, {}),
            stride=1,
        )

    def _layer(self, s: int, b: int, values: Mapping[str, Any]) -> Block | None:
        if self.depth(s, values) < b:
            return None
        incoming, size = self.incoming(s, b, values), self.config.size_at(s - 1 if b == 1 else s)
        return Block.of(
            "chain.layer",
            (1, incoming, size, size),
            operator=self.operator(s, b, values),
            in_channels=incoming,
            out_channels=self.width(s, b, values),
            stride=self.config.stages[s - 1].stride if b == 1 else 1,
        )

    def _head(self, values: Mapping[str, Any]) -> Block:
        last = len(self.config.stages)
        incoming, size = self.leaving(last, values), self.config.size_at(last)
        return Block.of("chain.head", (1, incoming, size, size), in_channels=incoming, classes=self.classes)


def build(config: Config, *, in_channels: int, classes: int) -> ChainSpace:
    """The space for images of `in_channels` in `classes`. Raises ValueError where the channels do not fit."""
    first = config.stages[0]
    kept = [operator for operator in first.operators if operator in WEIGHTLESS]
    if config.stem_width is None and kept:
        raise ValueError(f"stage 1: {kept[0]} keeps the image's {in_channels} channels: give [space] a stem_width")
    return ChainSpace(config, in_channels, classes)
