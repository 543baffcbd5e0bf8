"""Small spaces that several tests share."""

from __future__ import annotations

from hwnas.engine.spaces.mobilenet_v3 import Config, MobileNetV3Space, Stage, build

STAGES = (
    Stage(widths=(8, 16), depths=(1, 2), kernels=(3, 5, 7), expansions=(1, 3), stride=1),
    Stage(widths=(16, 24), depths=(1, 2, 3), kernels=(3, 5), expansions=(2, 4), stride=2, se=True, activation="hswish"),
)


def mobilenet(*, stages: tuple[Stage, ...] = STAGES, resolutions: tuple[int, ...] = (8, 12)) -> MobileNetV3Space:
    """A space of a few thousand small networks for grey images of ten classes."""
    config = Config(resolutions=resolutions, stem_width=8, stages=stages, head_width=32, head_features=32)
    return build(config, in_channels=1, classes=10)
