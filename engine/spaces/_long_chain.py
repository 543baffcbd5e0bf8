"""Blocks and supernet of the L-chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture
from hwnas.engine.interleaving import chain_edges, kept
from hwnas.latency.block import block_factory

if TYPE_CHECKING:
    from hwnas.engine.spaces.long_chain import LongChainSpace


def _separable(in_channels: int, channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, in_channels, kernel, padding=kernel // 2, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, channels, 1, bias=False),
    )


@block_factory("long_chain.stem")
def stem(*, in_channels: int, channels: int) -> nn.Module:
    """First convolution, 3x3, and BatchNorm."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


@block_factory("long_chain.entry")
class Entry(nn.Module):
    """A separable convolution, pooled to half the size, plus a strided 1x1 convolution."""

    def __init__(self, *, in_channels: int, channels: int) -> None:
        super().__init__()
        self.separable = _separable(in_channels, channels, 3)
        self.skip = nn.Conv2d(in_channels, channels, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, out, ceil(h / 2), ceil(w / 2))."""
        pooled = nn.functional.max_pool2d(self.separable(x), 3, stride=2, padding=1)
        out: Tensor = self.norm(pooled + self.skip(x))
        return out


@block_factory("long_chain.edge")
class PlainEdge(nn.Module):
    """One edge of a subnet: its operations, scaled and added to what came over the edges before it."""

    scale: Tensor

    def __init__(self, *, channels: int, operation: str) -> None:
        super().__init__()
        self.names = operation.split("+")
        self.convolutions = nn.ModuleDict(
            {name: _separable(channels, channels, int(name[-1])) for name in self.names if name != "skip"}
        )
        self.register_buffer("scale", torch.ones(()))

    def forward(self, total: Tensor, source: Tensor | None = None) -> Tensor:
        """The sum so far, where the edge adds to one, and the source's output; all (n, c, h, w)."""
        if source is None:
            return self.scale * self.operate(total)
        return total + self.scale * self.operate(source)

    def operate(self, source: Tensor, operations: str | None = None) -> Tensor:
        """The sum of all operations, or of those named, of (n, c, h, w)."""
        names = self.names if operations is None else operations.split("+")
        parts = [source if name == "skip" else self.convolutions[name](source) for name in names]
        out = parts[0]
        for part in parts[1:]:
            out = out + part
        return out


@block_factory("long_chain.norm")
def norm(*, channels: int) -> nn.Module:
    """What all inputs of a node share."""
    return nn.BatchNorm2d(channels)


@block_factory("long_chain.head")
def head(*, channels: int, classes: int) -> nn.Module:
    """Pooling and classifier."""
    return nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


# ---- networks -------------------------------------------------------------------------------------------------------

Sources = tuple[tuple[tuple[int, ...], ...], ...]  # by stage and node: the nodes that it reads, the nearest first


class PlainChain(nn.Module):
    """A subnet: the modules of its blocks, by slot."""

    def __init__(self, parts: dict[str, nn.Module], sources: Sources) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({_key(slot): module for slot, module in parts.items()})
        self.sources = sources

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) -> logits (n, classes)."""
        x = images
        for s, nodes in enumerate(self.sources, 1):
            outputs = [self.parts[f"s{s}_entry"](x)]
            for node, sources in enumerate(nodes, 1):
                total = self.parts[f"s{s}_n{node}_from{node - 1}"](outputs[node - 1])
                for source in sources[1:]:
                    total = self.parts[f"s{s}_n{node}_from{source}"](total, outputs[source])
                outputs.append(self.parts[f"s{s}_n{node}"](total))
            x = outputs[-1]
        logits: Tensor = self.parts["head"](x)
        return logits


class LongChain(nn.Module):
    """A Supernet: one convolution an edge and operation, and one strength an edge.

    A node with one edge takes it as it is. One with m edges takes `2 / m * sigmoid(strength)` of each, the mean of
    them while strengths are 0; strengths are parameters like others and learn at the rate of others, unless the
    training gives them a group of their own.
    """

    def __init__(self, space: LongChainSpace) -> None:
        super().__init__()
        self.space = space
        self.edges = chain_edges(space.genes)
        self._number = {(edge.stage, edge.target, edge.source): i for i, edge in enumerate(self.edges)}
        full = {gene.name: gene.options[-1] for gene in space.genes}  # masks do not change what there is
        blocks = {slot.name: slot.block({name: full[name] for name in slot.scope}) for slot in space.slots}
        self.parts = nn.ModuleDict({_key(name): block.recipe()() for name, block in blocks.items() if block})
        self.strengths = nn.Parameter(1e-5 * torch.randn(len(self.edges)))
        self.activate(arch.extreme(space.genes, largest=True))

    def activate(self, architecture: Architecture) -> None:
        """Make `forward` compute this architecture."""
        self.active = arch.check(self.space.genes, architecture)
        self._reads, self._choices = self._sources(self.active), self._joined(self.active)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) -> logits (n, classes)."""
        x, values = images, arch.options(self.space.genes, self.active)
        shares = {place: self._scale(edges) for place, edges in self._choices.items()}
        for s, nodes in enumerate(self._reads, 1):
            outputs = [self.parts[f"s{s}_entry"](x)]
            for node, sources in enumerate(nodes, 1):
                brought = []
                for source in sources:
                    edge = cast(PlainEdge, self.parts[f"s{s}_n{node}_from{source}"])
                    brought.append(edge.operate(outputs[source], str(values[f"s{s}.n{node}.from{source}"])))
                total = brought[0]
                if len(brought) > 1:
                    scale = shares[f"s{s}", node]
                    total = sum((scale[i] * part for i, part in enumerate(brought)), torch.zeros(()))
                outputs.append(self.parts[f"s{s}_n{node}"](total))
            x = outputs[-1]
        logits: Tensor = self.parts["head"](x)
        return logits

    def edge_weights(self, architecture: Architecture) -> tuple[Tensor, ...]:
        """sigmoid(strength) of the edges into each node that has several, (edges into it,), in 0..1, with gradient."""
        joined = self._choices if architecture == self.active else self._joined(architecture)
        return tuple(self.strengths[edges].sigmoid() for edges in joined.values())

    def derived(self, *, least: float = 0.1) -> Architecture:
        """The network that the strengths ask for: links, and long edges above `least` with all operations.

        Edges whose gene may not be absent stay, as do links (the paper's rule instead keeps the strongest edge of a
        node that would have none).
        """
        weights = self.strengths.detach().sigmoid().tolist()
        row = list(arch.extreme(self.space.genes, largest=True))
        for edge, weight in zip(self.edges, weights, strict=True):
            if not edge.is_link and weight <= least:
                row[edge.gene] = int(self.space.genes[edge.gene].choices[0])
        return arch.check(self.space.genes, row)

    @torch.no_grad()
    def subnet(self, architecture: Architecture) -> nn.Module:
        """A PlainChain with a copy of the weights, in evaluation mode."""
        architecture = arch.check(self.space.genes, architecture)
        parts = {}
        for slot, block in arch.placed_blocks(self.space, architecture):
            plain = block.recipe()()
            wanted = plain.state_dict()
            ours = self.parts[_key(slot)].state_dict()
            plain.load_state_dict({name: ours[name] for name in wanted})
            parts[slot] = plain
        sources = self._sources(architecture)
        for (stage, node), edges in self._joined(architecture).items():
            for source, share in zip(sources[int(stage[1:]) - 1][node - 1], self._scale(edges), strict=True):
                cast(PlainEdge, parts[f"{stage}.n{node}.from{source}"]).scale.copy_(share)
        return PlainChain(parts, sources).eval()

    def _sources(self, architecture: Architecture) -> Sources:
        pairs = kept(self.edges, architecture)
        return tuple(
            tuple(
                tuple(sorted((a for a, b in pairs[f"s{s}"] if b == node), reverse=True))
                for node in range(1, stage.nodes + 1)
            )
            for s, stage in enumerate(self.space.config.stages, 1)
        )

    def _joined(self, architecture: Architecture) -> dict[tuple[str, int], list[int]]:
        """The strengths of the edges into each node that has several, the nearest source first."""
        return {
            (f"s{s}", node): [self._number[f"s{s}", node, source] for source in sources]
            for s, nodes in enumerate(self._sources(architecture), 1)
            for node, sources in enumerate(nodes, 1)
            if len(sources) > 1
        }

    def _scale(self, edges: list[int]) -> Tensor:
        return 2 / len(edges) * self.strengths[edges].sigmoid()


def _key(slot: str) -> str:
    return slot.replace(".", "_")  # a dot may not be in the name of a module
