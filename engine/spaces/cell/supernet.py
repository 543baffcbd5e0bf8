"""The supernet of cells: one weight a cell, edge and operation; it runs one architecture or a mixture of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture
from hwnas.engine.spaces.cell import blocks

if TYPE_CHECKING:
    from hwnas.engine.spaces.cell.space import CellSpace


class DropBlockIdentity(nn.Module):
    """An identity that drops blocks of each channel while training; what stays is scaled up (Ghiasi et al., 2018).

    `rate` is the share to drop, 0 at first: a plain identity. A search raises it so that skips gain less from being
    an easy way around operations that have to learn first.
    """

    def __init__(self, block: int = 3) -> None:
        super().__init__()
        self.block, self.rate = block, 0.0
        self.generator: torch.Generator | None = None  # None: torch's own

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        if not self.training or self.rate == 0:
            return x
        height, width = x.shape[-2:]
        block = min(self.block, height, width)
        seeds = (height - block + 1, width - block + 1)  # corners whose block lies inside
        chance = self.rate * height * width / (block**2 * seeds[0] * seeds[1])
        noise = torch.rand((*x.shape[:2], *seeds), generator=self.generator, device=x.device)
        begun = F.pad((noise < chance).to(x.dtype), (block - 1,) * 4)
        kept = 1 - F.max_pool2d(begun, block, stride=1)
        return x * (kept / kept.mean().clamp_min(1e-6))


class MixedOperation(nn.Module):
    """Every operation of one edge. `none` has no module."""

    def __init__(self, operations: Sequence[str], channels: int, *, affine: bool) -> None:
        super().__init__()
        self.names = tuple(operations)
        self.choices = nn.ModuleDict(
            {
                name: DropBlockIdentity() if name == "skip" else blocks.operation(name, channels, affine=affine)
                for name in operations
                if name != "none"
            }
        )

    def one(self, x: Tensor, option: int) -> Tensor | None:
        """What one operation makes of x, (n, c, h, w); None where that is nothing."""
        name = self.names[option]
        return None if name == "none" else self.choices[name](x)

    def mixture(self, x: Tensor, weights: Tensor, executed: Iterable[int]) -> Tensor | None:
        """The sum of the `executed` operations by their weights (options,); None where that is nothing."""
        terms = ((option, self.one(x, option)) for option in executed)
        return _sum([weights[option] * term for option, term in terms if term is not None])


class CellSupernet(nn.Module):
    """A Supernet: `activate`, call, `subnet`; and `mixture`, which differentiable searches run."""

    def __init__(self, space: CellSpace) -> None:
        super().__init__()
        config = space.config
        self.space = space
        self.stem = blocks.stem(in_channels=space.in_channels, channels=config.channels, affine=config.affine)
        self.reductions = nn.ModuleList(
            blocks.Reduction(config.channels_of(stage - 1), config.channels_of(stage), affine=config.affine)
            for stage in range(1, config.stages)
        )
        self.cells = nn.ModuleList(
            nn.ModuleList(
                MixedOperation(config.operations, config.channels_of(stage), affine=config.affine) for _ in config.edges
            )
            for stage in range(config.stages)
            for _ in range(config.cells)
        )
        self.head = blocks.Head(config.channels_of(config.stages - 1), space.classes, affine=config.affine)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        self.activate(arch.extreme(space.genes, largest=True))

    def activate(self, architecture: Architecture) -> None:
        """Make `forward` compute this architecture."""
        self.active = arch.check(self.space.genes, architecture)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) -> logits (n, classes)."""
        return self._run(images, None, [[option] for option in self.active])

    def mixture(self, images: Tensor, weights: Tensor, *, executed: Sequence[Sequence[int]] | None = None) -> Tensor:
        """Logits (n, classes) of a network whose edges add their operations up by `weights` (genes, options).

        `executed` lists the options of each edge that run; the others count for nothing and cost neither time nor
        memory. All that the space allows run if it is not given.
        """
        chosen = [gene.choices.tolist() for gene in self.space.genes] if executed is None else executed
        return self._run(images, weights, chosen)

    def subnet(self, architecture: Architecture) -> nn.Module:
        """A CellNetwork with a copy of the weights, in evaluation mode."""
        return CellNetwork(self, arch.check(self.space.genes, architecture)).eval()

    def skips(self) -> tuple[DropBlockIdentity, ...]:
        """The identities on the edges of every cell; none where the space has no `skip`."""
        return tuple(module for module in self.modules() if isinstance(module, DropBlockIdentity))

    def _run(self, images: Tensor, weights: Tensor | None, executed: Sequence[Sequence[int]]) -> Tensor:
        x: Tensor = self.stem(images)
        for number, cell in enumerate(self.cells):
            if number and number % self.space.config.cells == 0:
                x = self.reductions[number // self.space.config.cells - 1](x)
            nodes = [x]
            for target in range(1, self.space.config.nodes):
                terms = []
                for source, edge in self._incoming(target):
                    operation = cell[edge]  # type: ignore[index]  # a ModuleList of ModuleLists
                    if weights is None:
                        terms.append(operation.one(nodes[source], executed[edge][0]))
                    else:
                        terms.append(operation.mixture(nodes[source], weights[edge], executed[edge]))
                total = _sum([term for term in terms if term is not None])
                nodes.append(torch.zeros_like(x) if total is None else total)
            x = nodes[-1]
        logits: Tensor = self.head(x)
        return logits

    def _incoming(self, target: int) -> list[tuple[int, int]]:
        """(source, edge) of a node's edges."""
        return [(source, edge) for edge, (source, node) in enumerate(self.space.config.edges) if node == target]


class CellNetwork(nn.Module):
    """One architecture as a plain module: only the operations that it has."""

    def __init__(self, supernet: CellSupernet, architecture: Architecture) -> None:
        super().__init__()
        config = supernet.space.config
        self.nodes, self.every = config.nodes, config.cells  # cells a stage
        self.stem, self.head = copy.deepcopy(supernet.stem), copy.deepcopy(supernet.head)
        self.reductions = copy.deepcopy(supernet.reductions)
        chosen = [
            (edge, f"{source}-{target}", config.operations[option])
            for edge, ((source, target), option) in enumerate(zip(config.edges, architecture, strict=True))
        ]
        self.cells = nn.ModuleList()
        for members in supernet.cells:
            plain: dict[str, nn.Module] = {}
            for edge, place, name in chosen:
                if name == "skip":
                    plain[place] = nn.Identity()
                elif name != "none":
                    plain[place] = copy.deepcopy(members[edge].choices[name])  # type: ignore[index]  # ditto
            self.cells.append(nn.ModuleDict(plain))

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) -> logits (n, classes)."""
        x: Tensor = self.stem(images)
        for number, cell in enumerate(self.cells):
            if number and number % self.every == 0:
                x = self.reductions[number // self.every - 1](x)
            nodes = [x]
            for target in range(1, self.nodes):
                terms: list[Tensor] = []
                for source in range(target):
                    if f"{source}-{target}" in cell:  # type: ignore[operator]  # a ModuleList of ModuleDicts
                        terms.append(cell[f"{source}-{target}"](nodes[source]))  # type: ignore[index]  # ditto
                total = _sum(terms)
                nodes.append(torch.zeros_like(x) if total is None else total)
            x = nodes[-1]
        logits: Tensor = self.head(x)
        return logits


def _sum(terms: Sequence[Tensor]) -> Tensor | None:
    if not terms:
        return None
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
