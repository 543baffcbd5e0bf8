"""Many subnets at once: what networks begin with in common is computed once, BatchNorm's recalibration included.

Networks are put in lexicographic order of their blocks, which is a depth-first walk of the tree of their prefixes.
The outputs of a prefix are kept while a later network of the order branches off there, and longer where there is room.
Two streams run side by side: the calibration images with every BatchNorm on batch statistics, so that what a block sees
depends on the blocks before it alone, and the images to label with the statistics that came out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, SearchSpace
from hwnas.engine.evaluation.batchnorm import recalibrate
from hwnas.latency.block import Block

Shape = tuple[int, ...]
Images = Callable[[Shape], Sequence[Tensor]]  # shape of one input -> batches of that shape
Prefix = tuple[Hashable, ...]  # shape of the input, then blocks with their slots
Parts = list[nn.Module]  # a network cut into the modules of its blocks


@dataclass(frozen=True)
class SharedPrefixes:
    """Runs networks of one supernet together.

    A supernet takes part whose `subnet()` is an nn.Sequential of one module a block of the space; two of its networks
    share what lies before the first slot that holds another block or other weights. Any other network is one part
    that nothing is shared of.
    """

    space: SearchSpace
    supernet: nn.Module

    @torch.inference_mode()
    def outputs(
        self,
        architectures: Sequence[Architecture],
        images: Images,
        *,
        memory: Memory,
        calibration: Images | None = None,
        held: dict[Architecture, Parts] | None = None,
    ) -> Iterator[tuple[Architecture, Tensor]]:
        """Each architecture with its network's outputs for all images, (images, ...), as soon as it is through.

        The order is the order of the walk. With `calibration`, BatchNorm's statistics are averaged anew over those
        batches, as `recalibrate` does; without, they stay what they are. `held` gives the networks to run, and is
        filled with those that it lacks: after a calibrated pass it holds calibrated networks that share the modules
        of their common prefixes.
        """
        norms = any(isinstance(module, _BatchNorm) for module in self.supernet.modules())
        paths = self._walk(architectures)
        common = [*(_common(a.steps, b.steps) for a, b in pairwise(paths)), 0]
        for i, path in enumerate(paths):
            parts, stream = self._begun(path, memory, held, statistics=calibration is None)
            if held is not None:
                held[path.architecture] = parts
            if stream is None:
                batches = calibration(path.shape) if calibration is not None and norms else ()
                stream = _Outputs(0, tuple(batches), tuple(images(path.shape)))
            count = sum(map(len, (*stream.calibration, *stream.images)))
            branches = _branches(common[i:])
            needed = {path.prefix(depth) for depth in branches}
            for depth in range(stream.depth + 1, len(parts)):
                room = memory.lasting or depth in branches
                if room and memory.make_room(path.input_mib(depth) * count, path.prefix(depth), needed):
                    stream = _advance(stream, parts, depth)
                    memory.keep(path.prefix(depth), stream, parts[:depth])
            yield path.architecture, torch.cat(_advance(stream, parts, len(parts)).images)

    def _walk(self, architectures: Sequence[Architecture]) -> list[_Path]:
        """The paths in an order that visits the tree of prefixes depth first."""
        paths = [
            _Path(architecture, self.space.input_shape(architecture), arch.placed_blocks(self.space, architecture))
            for architecture in dict.fromkeys(architectures)
        ]
        numbers: dict[Hashable, int] = {}
        for path in paths:
            for step in path.steps:
                numbers.setdefault(step, len(numbers))
        return sorted(paths, key=lambda path: [numbers[step] for step in path.steps])

    def _begun(
        self, path: _Path, memory: Memory, held: dict[Architecture, Parts] | None, *, statistics: bool
    ) -> tuple[Parts, _Outputs | None]:
        """The network of a path, and the farthest outputs on it that are kept.

        BatchNorm's `statistics` count as weights where they are not to be averaged anew.
        """
        parts = None if held is None else held.get(path.architecture)
        part: Any = getattr(self.supernet, "part", None)  # of a PartedSupernet
        if parts is None and part is None:
            network: nn.Module = self.supernet.subnet(path.architecture)  # type: ignore[operator]  # a Supernet
            parts = list(network) if isinstance(network, nn.Sequential) else []
            parts = parts if len(parts) == len(path.blocks) else [network]
        for depth, kept in memory.along(path):
            if parts is None or _same_parts(kept.parts, parts, statistics=statistics):
                rest = [part(*placed) for placed in path.blocks[depth:]] if parts is None else parts[depth:]
                return [*kept.parts, *map(_ready, rest)], kept.outputs
        parts = [part(*placed) for placed in path.blocks] if parts is None else parts
        return [*map(_ready, parts)], None


@dataclass
class Memory:
    """Outputs of prefixes, at most `budget_mib` of them. What does not fit is computed again.

    A memory belongs to one supernet, one set of images and one calibration. A `lasting` one keeps what there is room
    for after the call that made it, the latest; another keeps only what networks of a call have in common.
    """

    budget_mib: float = 256.0
    lasting: bool = False
    _kept: dict[Prefix, _Kept] = field(default_factory=dict, init=False, repr=False)  # the latest last
    _mib: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if not self.budget_mib >= 0:
            raise ValueError(f"budget_mib is {self.budget_mib}: give the MiB of outputs that may be kept, 0 for none")

    @property
    def mib(self) -> float:
        """What is kept now."""
        return self._mib

    def copy(self) -> Memory:
        """Another memory that keeps the same now."""
        found = Memory(self.budget_mib, self.lasting)
        found._kept, found._mib = dict(self._kept), self._mib
        return found

    def along(self, path: _Path) -> list[tuple[int, _Kept]]:
        """What is kept on a path, the deepest first, which from now on counts as the latest."""
        found = []
        for depth in range(1, len(path.blocks)):
            prefix = path.prefix(depth)
            if prefix in self._kept:
                kept = self._kept[prefix] = self._kept.pop(prefix)
                found.append((depth, kept))
        return found[::-1]

    def make_room(self, mib: float, prefix: Prefix, needed: set[Prefix]) -> bool:
        """Whether so much can be kept for `prefix`: at the cost of others, but never of `needed` ones by another.

        Of those the shallow go first: they are the largest, save the least at each return, and are returned to last.
        """
        room = self.budget_mib - mib
        pinned = sorted(needed & self._kept.keys(), key=len)
        if room < 0 or (prefix not in needed and sum(self._kept[other].mib for other in pinned) > room):
            return False
        for other in [*(other for other in self._kept if other not in needed), *pinned] if self._mib > room else []:
            self._let_go(other)
            if self._mib <= room:
                break
        return True

    def keep(self, prefix: Prefix, outputs: _Outputs, parts: Parts) -> None:
        """Keep the outputs of these parts."""
        self._let_go(prefix)
        self._kept[prefix] = _Kept(outputs, tuple(parts), outputs.mib)
        self._mib += self._kept[prefix].mib

    def _let_go(self, prefix: Prefix) -> None:
        kept = self._kept.pop(prefix, None)
        if kept is not None:
            self._mib -= kept.mib


@dataclass(frozen=True, slots=True)
class _Path:
    architecture: Architecture
    shape: Shape  # of one input
    blocks: tuple[tuple[str, Block], ...]  # with the slots that hold them

    @property
    def steps(self) -> Prefix:
        return self.shape, *self.blocks

    def prefix(self, depth: int) -> Prefix:
        return self.shape, *self.blocks[:depth]

    def input_mib(self, depth: int) -> float:
        """What the block at `depth` reads for one image."""
        block = self.blocks[depth][1]
        width = torch.empty((), dtype=getattr(torch, block.dtype)).element_size()
        return sum(prod(shape) / shape[0] for shape in block.inputs) * width / 2**20


@dataclass(frozen=True, slots=True)
class _Outputs:
    depth: int  # parts behind it
    calibration: tuple[Tensor, ...]
    images: tuple[Tensor, ...]

    @property
    def mib(self) -> float:
        return sum(batch.nbytes for batch in (*self.calibration, *self.images)) / 2**20


@dataclass(frozen=True, slots=True)
class _Kept:
    outputs: _Outputs
    parts: tuple[nn.Module, ...]  # that made them
    mib: float


def _ready(part: nn.Module) -> nn.Module:
    # channels last: about twice as fast here, see the trainer
    return part.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # torch's stub


def _advance(stream: _Outputs, parts: Parts, depth: int) -> _Outputs:
    """The stream behind the first `depth` parts, batch by batch, so that nothing between is kept."""
    section = nn.Sequential(*parts[stream.depth : depth])
    calibrated: list[Tensor] = []
    if stream.calibration:
        hook = section.register_forward_hook(lambda _module, _inputs, output: calibrated.append(output))
        recalibrate(section, stream.calibration)
        if not calibrated:  # no BatchNorm in this section, but perhaps in the next
            for batch in stream.calibration:
                section(batch)
        hook.remove()
    return _Outputs(depth, tuple(calibrated), tuple(section(batch) for batch in stream.images))


def _common(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Blocks that two paths begin with in common; none where their inputs differ."""
    equal = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        equal += 1
    return max(0, equal - 1)


def _branches(common: Sequence[int]) -> set[int]:
    """Depths at which later networks branch off the current one, from what each shares with the one before it."""
    depths, least = set(), None
    for depth in common:
        least = depth if least is None else min(least, depth)
        if least == 0:
            break
        depths.add(least)
    return depths


def _same_parts(kept: Sequence[nn.Module], parts: Parts, *, statistics: bool) -> bool:
    """Whether `parts` begin with modules like the kept ones, equal in their weights."""
    return len(kept) < len(parts) and all(
        a is b or (type(a) is type(b) and _equal(_state(a, statistics), _state(b, statistics)))
        for a, b in zip(kept, parts, strict=False)
    )


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _state(part: nn.Module, statistics: bool) -> dict[str, Tensor]:
    left_out: set[int] = set()
    if not statistics:
        norms = [module for module in part.modules() if isinstance(module, _BatchNorm)]
        left_out = {id(buffer) for norm in norms for buffer in norm.buffers(recurse=False)}
    return {name: x for name, x in (*part.named_parameters(), *part.named_buffers()) if id(x) not in left_out}
