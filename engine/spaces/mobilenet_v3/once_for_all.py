"""Names that Once-for-All's latency tables give to the blocks of MobileNetV3, and back.

The names are those of `MBv3LatencyTable` in `ofa/nas/efficiency_predictor/latency_lookup_table.py` (Cai et al., 2020):
sizes as height x width x channels, `expand` the number of expanded channels, `idskip` whether there is a residual.
Its head is four entries (Conv_1, AvgPool2D, Conv_2, Logits) where ours is one block, so heads have no equivalent.
"""

from __future__ import annotations

import re

from hwnas.latency import Block

_HARD_SWISH = {"hswish": 1, "relu": 0}
_SHAPES = r"input:(?P<h>\d+)x(?P<w>\d+)x(?P<c>\d+)-output:(?P<oh>\d+)x(?P<ow>\d+)x(?P<oc>\d+)"
_STEM = re.compile(rf"Conv-{_SHAPES}")
_MBCONV = re.compile(
    rf"expanded_conv-{_SHAPES}-expand:(?P<expand>\d+)-kernel:(?P<kernel>\d+)-stride:(?P<stride>\d+)"
    r"-idskip:(?P<idskip>[01])-se:(?P<se>[01])-hs:(?P<hs>[01])"
)


def name_of(block: Block) -> str | None:
    """The name of a block there; None for what Once-for-All does not have: batches, other types, heads."""
    (n, c, h, w), *more = block.inputs
    arguments = dict(block.kwargs)
    if more or n != 1 or block.dtype != "float32":
        return None
    match block.factory:
        case "mobilenet_v3.stem" if arguments["stride"] == 2 and arguments["activation"] == "hswish":
            return f"Conv-{_shapes(c, h, w, 2, arguments['out_channels'])}"
        case "mobilenet_v3.mbconv" if arguments["activation"] in _HARD_SWISH:
            out, stride = arguments["out_channels"], int(arguments["stride"])
            return (
                f"expanded_conv-{_shapes(c, h, w, stride, out)}-expand:{arguments['hidden']}"
                f"-kernel:{arguments['kernel']}-stride:{stride}-idskip:{int(stride == 1 and c == out)}"
                f"-se:{int(arguments['se'])}-hs:{_HARD_SWISH[str(arguments['activation'])]}"
            )
        case _:
            return None


def block_of(name: str) -> Block | None:
    """The block of a name there; None for what this space does not have."""
    if found := _STEM.fullmatch(name):
        c, out = int(found["c"]), int(found["oc"])
        block = Block.of(
            "mobilenet_v3.stem", _input(found), in_channels=c, out_channels=out, stride=2, activation="hswish"
        )
    elif found := _MBCONV.fullmatch(name):
        block = Block.of(
            "mobilenet_v3.mbconv",
            _input(found),
            in_channels=int(found["c"]),
            out_channels=int(found["oc"]),
            kernel=int(found["kernel"]),
            stride=int(found["stride"]),
            hidden=int(found["expand"]),
            se=found["se"] == "1",
            activation="hswish" if found["hs"] == "1" else "relu",
        )
    else:
        return None
    # what follows from the shapes here is free there: a missing residual, an output of another size
    return block if name_of(block) == name else None


def _shapes(c: int, h: int, w: int, stride: int, out: object) -> str:
    return f"input:{h}x{w}x{c}-output:{-(-h // stride)}x{-(-w // stride)}x{out}"


def _input(found: re.Match[str]) -> tuple[int, int, int, int]:
    return 1, int(found["c"]), int(found["h"]), int(found["w"])
