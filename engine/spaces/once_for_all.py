"""Once-for-All's MobileNetV3 (Cai et al., ICLR 2020) as its checkpoints have it: 2.2e19 subnets at each resolution.

Five stages of 2 to 4 blocks, kernels 3, 5 and 7, expansions 3, 4 and 6, behind a fixed stem and first block. `weights`
names a checkpoint that its authors have published, `ofa_mbv3_d234_e346_k357_w1.0` or, for `width_mult = 1.2`, `w1.2`:
the supernet then begins with it. They were trained on RGB images of ImageNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat

from hwnas.engine.spaces import mobilenet_v3
from hwnas.engine.spaces.mobilenet_v3 import MobileNetV3Space, Stage
from hwnas.engine.spaces.mobilenet_v3.blocks import make_divisible
from hwnas.engine.spaces.mobilenet_v3.space import Activation, Resolutions

RESOLUTIONS = (128, 160, 192, 224)
WIDTHS = (24, 40, 80, 112, 160)
STRIDES: tuple[Literal[1, 2], ...] = (2, 2, 2, 1, 2)
GATED = (False, True, False, True, True)  # by squeeze-and-excite
ACTIVATIONS: tuple[Activation, ...] = ("relu", "relu", "hswish", "hswish", "hswish")


class Config(BaseModel):
    """What differs between its checkpoints, and the resolutions to search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["once_for_all"] = "once_for_all"
    width_mult: PositiveFloat = 1.0
    resolutions: Resolutions = RESOLUTIONS
    weights: Path | None = None


def once_for_all_space(
    width_mult: float = 1.0,
    *,
    resolutions: Sequence[int] = RESOLUTIONS,
    in_channels: int = 3,
    classes: int = 1000,
    weights: Path | None = None,
) -> MobileNetV3Space:
    """The space of one checkpoint.

    >>> space = once_for_all_space(1.2, weights=Path("ofa_mbv3_d234_e346_k357_w1.2"))
    """

    def width(channels: int) -> int:
        return make_divisible(channels * width_mult)

    first = Stage(widths=(width(16),), depths=(1,), kernels=(3,), expansions=(1,), stride=1, activation="relu")
    elastic = [
        Stage(
            widths=(width(channels),),
            depths=(2, 3, 4),
            kernels=(3, 5, 7),
            expansions=(3, 4, 6),
            stride=stride,
            se=se,
            activation=activation,
        )
        for channels, stride, se, activation in zip(WIDTHS, STRIDES, GATED, ACTIVATIONS, strict=True)
    ]
    config = mobilenet_v3.Config(
        resolutions=tuple(resolutions),
        stem_width=width(16),
        stages=(first, *elastic),
        head_width=width(960),
        head_features=width(1280),
    )
    return MobileNetV3Space(config, in_channels, classes, weights=weights)


def build(config: Config, *, in_channels: int, classes: int) -> MobileNetV3Space:
    """The space for images of `in_channels` in `classes`; a classifier of another size than theirs begins anew."""
    return once_for_all_space(
        config.width_mult,
        resolutions=config.resolutions,
        in_channels=in_channels,
        classes=classes,
        weights=config.weights,
    )
