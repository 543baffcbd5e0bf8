"""Handwritten digits, 1,797 images of 8 x 8, which scikit-learn ships (UCI Optical Recognition, test part).

With noise the task tells networks apart: without it nearly all of them label nearly all images right.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt
from sklearn.datasets import load_digits

from hwnas.engine.dataset import LabelledImages


class Config(BaseModel):
    """How hard the task is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["digits"] = "digits"
    noise: NonNegativeFloat = 0.0  # deviation of Gaussian noise, of images in 0..1
    seed: NonNegativeInt = 0  # of the noise


def load(config: Config) -> LabelledImages:
    """Images (1797, 1, 8, 8)."""
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    if config.noise:
        noise = np.random.default_rng(config.seed).normal(0, config.noise, images.shape)
        images = np.clip(images + noise, 0, 1).astype(np.float32)
    return LabelledImages("digits", images, digits.target.astype(np.int64), tuple("0123456789"))
