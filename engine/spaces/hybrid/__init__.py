"""Chains of convolutions, shifts and additions on shared weights (ShiftAddNAS, You et al., ICML 2022)."""

from hwnas.engine.spaces.hybrid.space import Config, HybridSpace, Layer, build

__all__ = ["EXAMPLE", "Config", "HybridSpace", "Layer", "build"]

EXAMPLE = Config(resolution=8, stem_width=6, layers=(Layer(widths=(4, 6)), Layer(widths=(4, 8), stride=2)))
