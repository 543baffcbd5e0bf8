"""Names of Once-for-All for the blocks of MobileNetV3."""

from __future__ import annotations

import pytest

from hwnas.engine import architecture as arch
from hwnas.engine.spaces.mobilenet_v3.once_for_all import block_of, name_of
from hwnas.latency import Block
from tests.engine.spaces import mobilenet

STEM = "Conv-input:160x160x3-output:80x80x16"
MBCONV = "expanded_conv-input:80x80x16-output:40x40x24-expand:64-kernel:5-stride:2-idskip:0-se:1-hs:0"


def test_names_are_those_of_once_for_all() -> None:
    stem = Block.of(
        "mobilenet_v3.stem", (1, 3, 160, 160), in_channels=3, out_channels=16, stride=2, activation="hswish"
    )
    mbconv = Block.of(
        "mobilenet_v3.mbconv", (1, 16, 80, 80), in_channels=16, out_channels=24, kernel=5, stride=2, hidden=64, se=True,
        activation="relu",
    )  # fmt: skip
    assert (name_of(stem), name_of(mbconv)) == (STEM, MBCONV)
    assert (block_of(STEM), block_of(MBCONV)) == (stem, mbconv)


def test_every_block_of_the_space_but_the_head_comes_back() -> None:
    blocks = set(arch.every_block(mobilenet()))
    there = {block: name_of(block) for block in blocks}
    unnamed = {block.factory for block, name in there.items() if name is None}
    assert unnamed == {"mobilenet_v3.head"}
    assert all(block_of(name) == block for block, name in there.items() if name is not None)
    names = [name for name in there.values() if name is not None]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "name",
    [
        "Logits-input:1x1x1280-output:1000",
        "expanded_conv-input:40x40x24-output:40x40x24-expand:64-kernel:5-stride:1-idskip:0-se:0-hs:0",
        "expanded_conv-input:40x40x24-output:40x40x32-expand:64-kernel:5-stride:1-idskip:1-se:0-hs:0",
        "expanded_conv-input:41x41x24-output:20x20x32-expand:64-kernel:5-stride:2-idskip:0-se:0-hs:0",
        "Conv-input:160x160x3-output:160x160x16",
        MBCONV + "-more",
    ],
)
def test_what_the_space_does_not_have_is_no_block(name: str) -> None:
    assert block_of(name) is None


def test_batches_and_other_types_have_no_name() -> None:
    block = block_of(MBCONV)
    assert block is not None
    batch = Block(block.factory, block.kwargs, ((8, *block.inputs[0][1:]),))
    assert name_of(batch) is None
    assert name_of(Block(block.factory, block.kwargs, block.inputs, "int8")) is None
