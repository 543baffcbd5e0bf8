"""Chains of convolutions, shifts and additions on shared weights (ShiftAddNAS, You et al., ICML 2022)."""

from hwnas.engine.spaces.hybrid.space import Config, HybridSpace, Layer, build

__all__ = ["Config", "HybridSpace", "Layer", "build"]
