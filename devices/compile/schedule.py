"""The deterministic CPU schedule: accumulators in registers, whole vectors, nothing tuned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwnas.devices.compile.tiles import Machine, divisors

# TVM ships no types: schedules, blocks and loops are Any throughout this file.
Schedule = Any
Block = Any
Loop = Any

_REDUCTION = 2  # tirx.IterVar.CommReduce


@dataclass(frozen=True, slots=True)
class Stage:
    """A reduction whose sums stay in registers, and the element-wise block of its shape that reads and stores them."""

    block: Block
    final: Block


def schedule_function(function: Any, machine: Machine) -> Any:
    """The scheduled PrimFunc. Raises whatever TVM raises for a function of another form than this file knows."""
    from tvm import s_tir

    sch = s_tir.Schedule(function)
    root = sch.get_sblock("root")
    transposed = _inline(sch, root)
    done: set[str] = set()
    for block in [b for b in sch.get_child_blocks(root) if _is_reduction(sch, b)]:
        name = sch.get(block).name_hint
        rule = next((r for prefix, r in RULES.items() if name.startswith(prefix)), None)
        if rule is not None:
            stage = _stage(sch, block)
            done.add(sch.get(stage.final).name_hint)
            rule(sch, stage, machine)
    for block in sch.get_child_blocks(root):
        name = sch.get(block).name_hint
        if name not in done and not name.startswith("last_border") and not _is_reduction(sch, block):
            rule_of_rest = _transpose if transposed else _elementwise
            rule_of_rest(sch, block, machine)
    return sch.mod["main"]


def _inline(sch: Schedule, root: Block) -> bool:
    """Compute every element-wise block where it is read, and say whether one of them moves the channels.

    A border stays, because a window reads it many times.
    """
    names = [str(sch.get(block).name_hint) for block in sch.get_child_blocks(root)]
    for block in sch.get_child_blocks(root):
        consumers = sch.get_consumers(block)
        if _is_reduction(sch, block) or not consumers or sch.get(block).name_hint.startswith("last_border"):
            continue
        if any(_is_reduction(sch, c) for c in consumers):
            continue
        sch.compute_inline(block)
    return any(name.startswith(("last_enter", "last_leave")) for name in names)


def _stage(sch: Schedule, block: Block) -> Stage:
    consumers = list(sch.get_consumers(block))
    if len(consumers) == 1 and not _is_reduction(sch, consumers[0]):
        final = consumers[0]
        if _written(sch, block) == _written(sch, final) and not sch.get(final).name_hint.startswith("last_leave"):
            sch.set_scope(block, 0, "local")
            return Stage(block, final)
    final = sch.cache_write(block, 0, "local")
    return Stage(block, final)


def _product(sch: Schedule, stage: Stage, machine: Machine) -> None:
    """A convolution or linear layer: points x columns of sums; a panel of weights outside stays in cache."""
    columns = int(sch.get(stage.block).reads[1].source.shape[-1])  # the last axis of the packed weights
    border = _border(sch, stage.block)
    *outer, o = sch.get_loops(stage.final)
    col_out, col_in = sch.split(o, [None, columns])
    if len(outer) == 1:
        n_out, n_in = sch.split(outer[0], [None, machine.patch(1, _extent(sch, outer[0]), columns)[1]])
        sch.reorder(col_out, n_out, n_in, col_in)
        _accumulate(sch, stage, n_out, machine)
        return
    n, y, x = outer
    rows, along = machine.patch(_extent(sch, y), _extent(sch, x), columns)
    y_out, y_in = sch.split(y, [None, rows])
    x_out, x_in = sch.split(x, [None, along])
    sch.reorder(n, col_out, y_out, x_out, y_in, x_in, col_in)
    _accumulate(sch, stage, x_out, machine)
    if border is not None:
        _elementwise(sch, border, machine)


def _depthwise(sch: Schedule, stage: Stage, machine: Machine) -> None:
    """One vector of channels at a time: its padded rows in cache, a patch of the output in registers."""
    border = _border(sch, stage.block)
    kernel = _reduced(sch, stage.block)[0]
    n, y, x, c = sch.get_loops(stage.final)
    height, width = _extent(sch, y), _extent(sch, x)
    tall, wide = (int(e) for e in sch.get(stage.block).reads[0].source.shape[1:3])
    stride = (tall - kernel) // (height - 1) if height > 1 else 1
    band = machine.plane_tile(height, row_bytes=wide * machine.lanes * 4, stride=stride, kernel=kernel)
    rows, along = machine.window_patch(band, width, kernel=kernel, stride=stride)
    c_out, c_in = sch.split(c, [None, machine.lanes])
    y_band, y_out, y_in = sch.split(y, [None, band // rows, rows])
    x_out, x_in = sch.split(x, [None, along])
    sch.reorder(n, c_out, y_band, y_out, x_out, y_in, x_in, c_in)
    _accumulate(sch, stage, x_out, machine)
    if border is not None:
        sch.set_scope(border, 0, "local")
        sch.compute_at(border, y_band, preserve_unit_loops=True)
        if not machine.scalable:  # TVM 0.27 does not mask a read under a condition: "Cannot match type"
            sch.vectorize(sch.get_loops(border)[-1])


def _pool(sch: Schedule, stage: Stage, machine: Machine) -> None:
    """Up to four vectors of channels at once: their sums are independent."""
    *outer, c = sch.get_loops(stage.final)
    vectors = divisors(_extent(sch, c) // machine.lanes, 4)[-1]
    c_out, c_in = sch.split(c, [None, vectors * machine.lanes])
    sch.reorder(*outer, c_out, c_in)
    _accumulate(sch, stage, c_out, machine)


def _accumulate(sch: Schedule, stage: Stage, at: Loop, machine: Machine) -> None:
    """Hold what is computed inside loop `at` in registers: the reduction outside, unrolled points and vectors inside.

    The loops behind `at` are those of the points, if any, and of the columns, whose extent is whole vectors.
    """
    loops = sch.get_loops(stage.final)
    outer = next(i for i, loop in enumerate(loops) if sch.get(loop).same_as(sch.get(at))) + 1
    _spread(sch, loops[outer:], machine)
    sch.compute_at(stage.block, at, preserve_unit_loops=True)
    inner = sch.get_loops(stage.block)[outer:]
    count = len(_reduced(sch, stage.block))
    reduced, kept = inner[len(inner) - count :], inner[: len(inner) - count]
    sch.reorder(*reduced, *kept)
    _spread(sch, kept, machine)
    sch.decompose_reduction(stage.block, reduced[0])
    if sch.get(stage.block).name_hint.startswith("last_depthwise"):
        sch.unroll(reduced[1])  # a row of the window is straight code


def _spread(sch: Schedule, loops: list[Loop], machine: Machine) -> None:
    """Unroll all of `loops` but the last, whose vectors are unrolled as well."""
    for loop in loops[:-1]:
        sch.unroll(loop)
    vectors, lanes = sch.split(loops[-1], [None, machine.lanes])
    sch.unroll(vectors)
    sch.vectorize(lanes)


def _transpose(sch: Schedule, block: Block, machine: Machine) -> None:
    """Channels to the front or to the back: a run of points of every channel, so that both sides stay in cache."""
    loops = sch.get_loops(block)
    if len(loops) != 4:
        _elementwise(sch, block, machine)
        return
    if sch.get(block).name_hint.startswith("last_enter"):
        n, *points, c = loops
        sch.reorder(c, *points)
    else:
        n, c, *points = loops
    fused = sch.fuse(*points)
    # 64 points: 9 us for 24x24x24, against 15 us with 16 and the same with 256
    outer, inner = sch.split(fused, [None, divisors(_extent(sch, fused), 64)[-1]])
    sch.reorder(n, outer, c, inner)


def _elementwise(sch: Schedule, block: Block, machine: Machine) -> None:
    """Vectors along the last axis where it holds whole ones; the compiler's own vectors elsewhere."""
    loops = sch.get_loops(block)
    if loops and _extent(sch, loops[-1]) % machine.lanes == 0:
        _, lanes = sch.split(loops[-1], [None, machine.lanes])
        sch.vectorize(lanes)


def _border(sch: Schedule, block: Block) -> Block | None:
    return next((p for p in sch.get_producers(block) if sch.get(p).name_hint.startswith("last_border")), None)


def _written(sch: Schedule, block: Block) -> list[int]:
    return [int(n) for n in sch.get(block).writes[0].source.shape]


def _reduced(sch: Schedule, block: Block) -> list[int]:
    return [int(v.dom.extent) for v in sch.get(block).iter_vars if int(v.iter_type) == _REDUCTION]


def _extent(sch: Schedule, loop: Loop) -> int:
    return int(sch.get(loop).extent)


def _is_reduction(sch: Schedule, block: Block) -> bool:
    return any(int(v.iter_type) == _REDUCTION for v in sch.get(block).iter_vars)


RULES: dict[str, Callable[[Schedule, Stage, Machine], None]] = {
    "last_pointwise": _product,
    "last_conv": _product,
    "last_depthwise": _depthwise,
    "last_pool": _pool,
}
