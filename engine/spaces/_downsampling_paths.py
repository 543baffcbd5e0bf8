"""Blocks and supernet of paths down a lattice of resolutions."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture
from hwnas.engine.spaces.mobilenet_v3 import blocks  # noqa: F401  # registers the factories of stem and layers
from hwnas.latency.block import Block, block_factory

if TYPE_CHECKING:
    from hwnas.engine.spaces.downsampling_paths import DownsamplingPathSpace


@block_factory("downsampling_paths.reduction")
def reduction(*, in_channels: int, out_channels: int, halves_width: bool) -> nn.Module:
    """A strided 1x1 convolution and BatchNorm: what takes one resolution to the next."""
    stride = (2, 2 if halves_width else 1)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


@block_factory("downsampling_paths.head")
def head(*, channels: int, classes: int) -> nn.Module:
    """The mean over all positions, whatever the resolution, and a classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class DownsamplingPaths(nn.Module):
    """A Supernet: weights of their own for every layer, resolution and operation, as in TREFE; subnets are Sequentials.

    For training block after block it can end behind a block: `open_exits` gives each block but the last a head for
    every number of channels that it may end with, `stop_after` chooses the block.
    """

    def __init__(self, space: DownsamplingPathSpace) -> None:
        super().__init__()
        self.space = space
        full = space.restrict([[True] * len(gene.options) for gene in space.genes])
        self.parts = nn.ModuleDict()
        for slot in full.slots:
            for _, block in arch.scope_blocks(full, slot):
                if block is not None and _key(slot.name, block) not in self.parts:
                    self.parts[_key(slot.name, block)] = block.recipe()()
        self.exits = nn.ModuleDict()
        self.stop: str | None = None
        self.activate(arch.extreme(space.genes, largest=True))

    def activate(self, architecture: Architecture) -> None:
        """Make `forward` compute this architecture."""
        self.active = arch.check(self.space.genes, architecture)
        self._placed = arch.placed_blocks(self.space, self.active)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) -> logits (n, classes), of the exit behind the block to stop after if any."""
        x = images
        reached = False
        for slot, block in self._placed:
            here = slot.partition(".")[0]
            if self.stop is not None and reached and here != self.stop:
                break
            reached = reached or here == self.stop
            x = self.parts[_key(slot, block)](x)
        else:
            return x
        return cast(Tensor, self.exits[f"{self.stop}_c{x.shape[1]}"](x))

    def open_exits(self) -> None:
        """Heads behind every block but the last, freshly initialised: before an optimiser is made."""
        numbers = sorted(set(self.space.config.channels))
        for b in range(1, len(self.space.config.blocks)):
            for channels in numbers:
                self.exits[f"b{b}_c{channels}"] = head(channels=channels, classes=self.space.classes)

    def close_exits(self) -> None:
        """Whole paths again; the exits' weights are gone."""
        self.stop = None
        self.exits = nn.ModuleDict()

    def stop_after(self, block: str | None) -> None:
        """End behind this block (b1, b2, ...), or at the head for None and the last. Raises ValueError."""
        last = len(self.space.config.blocks)
        known = [f"b{b}" for b in range(1, last + 1)]
        if block is not None and block not in known:
            raise ValueError(f"no block is called {block!r}: the blocks are {', '.join(known)}")
        if block not in (None, known[-1]) and not self.exits:
            raise ValueError(f"there is no exit behind {block}: call open_exits() before the optimiser is made")
        self.stop = None if block == known[-1] else block

    def subnet(self, architecture: Architecture) -> nn.Module:
        """A plain nn.Sequential of the space's blocks with a copy of the weights, in evaluation mode."""
        placed = arch.placed_blocks(self.space, arch.check(self.space.genes, architecture))
        return nn.Sequential(OrderedDict((slot.replace(".", "_"), self.part(slot, block)) for slot, block in placed))

    def part(self, slot: str, block: Block) -> nn.Module:
        """The plain module of a block in the slot of that name, with a copy of the weights, in evaluation mode."""
        return deepcopy(self.parts[_key(slot, block)]).eval()


def _key(slot: str, block: Block) -> str:
    """Slots of one layer that stand for numbers of halvings share their weights."""
    words = slot.split(".")
    place = "_".join(words[:2])
    kind = words[2].rstrip("0123456789") if len(words) > 2 else "whole"
    return f"{place}_{kind}_{block.key}"
