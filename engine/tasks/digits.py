"""Handwritten digits, 1,797 images of 8 x 8, which scikit-learn ships (UCI Optical Recognition, test part)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from sklearn.datasets import load_digits

from hwnas.engine.dataset import LabelledImages


class Config(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["digits"] = "digits"


def load(config: Config) -> LabelledImages:  # noqa: ARG001 (every task is loaded by its configuration)
    """Images (1797, 1, 8, 8)."""
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    return LabelledImages("digits", images, digits.target.astype(np.int64), tuple("0123456789"))
