"""Elastic MobileNetV3 (Once-for-All, Cai et al., ICLR 2020): depth, kernel, expansion, width and resolution."""

from hwnas.engine.spaces.mobilenet_v3.space import Config, MobileNetV3Space, Stage, build

__all__ = ["Config", "MobileNetV3Space", "Stage", "build"]
