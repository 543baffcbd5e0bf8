"""Elastic MobileNetV3 (Once-for-All, Cai et al., ICLR 2020): depth, kernel, expansion, width and resolution."""

from hwnas.engine.spaces.mobilenet_v3.space import Config, MobileNetV3Space, Stage, build

EXAMPLE = Config(
    resolutions=(8, 12),
    stem_width=8,
    stages=(
        Stage(widths=(8, 16), depths=(1, 2), kernels=(3, 5, 7), expansions=(1, 3)),
        Stage(widths=(16, 24), depths=(1, 2, 3), expansions=(2, 4), stride=2, se=True, activation="hswish"),
    ),
    head_width=32,
    head_features=32,
)

__all__ = ["EXAMPLE", "Config", "MobileNetV3Space", "Stage", "build"]
