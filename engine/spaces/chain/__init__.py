"""A plain chain of layers: each is one of some operators, of some width, and some layers may be left out."""

from hwnas.engine.spaces.chain.space import ChainSpace, Config, Stage, build

EXAMPLE = Config(
    resolution=8,
    stem_width=8,
    stages=(
        Stage(operators=("skip", "avgpool3x3", "conv1x1", "separable5x5", "conv3x3"), widths=(8,), depths=(1, 2)),
        Stage(operators=("separable3x3", "conv3x3"), widths=(4, 8, 16), depths=(1, 2), stride=2),
    ),
)

__all__ = ["EXAMPLE", "ChainSpace", "Config", "Stage", "build"]
