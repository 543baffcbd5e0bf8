"""Many subnets at once: what networks begin with in common is computed once, BatchNorm's recalibration included.

Networks are put in lexicographic order of their blocks, which is a depth-first walk of the tree of their prefixes.
The outputs of a prefix are kept while a later network of the order branches off there. Two streams run side by side:
the calibration images with every BatchNorm on batch statistics, so that what a block sees depends on the blocks before
it alone, and the images to label with the statistics that came out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, SearchSpace
from hwnas.engine.evaluation.batchnorm import recalibrate
from hwnas.latency.block import Block

Shape = tuple[int, ...]
Images = Callable[[Shape], Sequence[Tensor]]  # shape of one input -> batches of that shape
Parts = list[nn.Module]  # a network cut into the modules of its blocks


@dataclass(frozen=True)
class SharedPrefixes:
    """Runs networks of one supernet together.

    A supernet takes part whose `subnet()` is an nn.Sequential of one module a block of the space; two of its networks
    share what lies before the first slot that holds another block or other weights. Any other network is one part
    that nothing is shared of. At most `budget_mib` of outputs are kept; what does not fit is computed again.
    """

    space: SearchSpace
    supernet: nn.Module
    budget_mib: float = 256.0

    def __post_init__(self) -> None:
        if not self.budget_mib >= 0:
            raise ValueError(f"budget_mib is {self.budget_mib}: give the MiB of outputs that may be kept, 0 for none")

    @torch.inference_mode()
    def outputs(
        self,
        architectures: Sequence[Architecture],
        images: Images,
        *,
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
        common = [0, *(_common(a.steps, b.steps) for a, b in pairwise(paths)), 0]
        kept = _Kept(self.budget_mib)
        last: Parts = []
        for i, path in enumerate(paths):
            parts = self._parts(path, held)
            cut = len(parts) == len(path.blocks)
            shared = _same_parts(last, parts, common[i], statistics=calibration is None) if cut else 0
            parts[:shared] = last[:shared]
            last = parts if cut else []
            if held is not None:
                held[path.architecture] = parts
            stream = kept.back_to(shared)
            if stream is None:
                batches = calibration(path.shape) if calibration is not None and norms else ()
                stream = _Outputs(0, tuple(batches), tuple(images(path.shape)))
            count = sum(map(len, (*stream.calibration, *stream.images)))
            for depth in sorted(_branches(common[i + 1 :])):
                if stream.depth < depth < len(parts) and kept.make_room(path.input_mib(depth) * count):
                    stream = _advance(stream, parts, depth)
                    kept.add(stream)
            yield path.architecture, torch.cat(_advance(stream, parts, len(parts)).images)

    def _walk(self, architectures: Sequence[Architecture]) -> list[_Path]:
        """The paths in an order that visits the tree of prefixes depth first."""
        paths = [self._path(architecture) for architecture in dict.fromkeys(architectures)]
        numbers: dict[Hashable, int] = {}
        for path in paths:
            for step in path.steps:
                numbers.setdefault(step, len(numbers))
        return sorted(paths, key=lambda path: [numbers[step] for step in path.steps])

    def _path(self, architecture: Architecture) -> _Path:
        values = arch.options(self.space.genes, architecture)
        slots = ((slot.name, slot.block({name: values[name] for name in slot.scope})) for slot in self.space.slots)
        held = tuple((name, block) for name, block in slots if block is not None)
        return _Path(architecture, self.space.input_shape(architecture), held)

    def _parts(self, path: _Path, held: dict[Architecture, Parts] | None) -> Parts:
        if held is not None and path.architecture in held:
            return list(held[path.architecture])
        network: nn.Module = self.supernet.subnet(path.architecture)  # type: ignore[operator]  # a Supernet is a Module
        # channels last: about twice as fast here, see the trainer
        network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own stub
        parts = list(network) if isinstance(network, nn.Sequential) else []
        return parts if len(parts) == len(path.blocks) else [network]


@dataclass(frozen=True, slots=True)
class _Path:
    architecture: Architecture
    shape: Shape  # of one input
    blocks: tuple[tuple[str, Block], ...]  # with the slots that hold them

    @property
    def steps(self) -> tuple[Hashable, ...]:
        return self.shape, *self.blocks

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


class _Kept:
    """Outputs on the way to the last network, shallow first, within a budget."""

    def __init__(self, budget_mib: float) -> None:
        self.budget_mib = budget_mib
        self.outputs: list[_Outputs] = []

    @property
    def mib(self) -> float:
        return sum(outputs.mib for outputs in self.outputs)

    def back_to(self, depth: int) -> _Outputs | None:
        """The deepest that is no deeper; what lies behind `depth` is let go."""
        while self.outputs and self.outputs[-1].depth > depth:
            self.outputs.pop()
        return self.outputs[-1] if self.outputs else None

    def make_room(self, mib: float) -> bool:
        """Whether that much can be kept; for it the shallow goes first.

        It is the largest, saves the least at each return, and is the last that the walk returns to.
        """
        if mib > self.budget_mib:
            return False
        while self.mib > self.budget_mib - mib:
            self.outputs.pop(0)
        return True

    def add(self, outputs: _Outputs) -> None:
        self.outputs.append(outputs)


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


def _same_parts(before: Parts, parts: Parts, most: int, *, statistics: bool) -> int:
    """How many of the first `most` parts hold equal weights; BatchNorm's statistics count where they stay."""
    for i, (a, b) in enumerate(zip(before[:most], parts[:most], strict=False)):
        if a is not b and (type(a) is not type(b) or not _equal(_state(a, statistics), _state(b, statistics))):
            return i
    return min(most, len(before), len(parts))


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _state(part: nn.Module, statistics: bool) -> dict[str, Tensor]:
    left_out: set[int] = set()
    if not statistics:
        norms = [module for module in part.modules() if isinstance(module, _BatchNorm)]
        left_out = {id(buffer) for norm in norms for buffer in norm.buffers(recurse=False)}
    return {name: x for name, x in (*part.named_parameters(), *part.named_buffers()) if id(x) not in left_out}
