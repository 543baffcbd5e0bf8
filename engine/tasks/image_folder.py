"""A folder with a sub-folder of images a class."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, PositiveInt

from hwnas.engine.dataset import DataError, LabelledImages

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


class Config(BaseModel):
    """Where the folder is and what its images become."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["image_folder"] = "image_folder"
    path: Path
    size: PositiveInt  # every image is scaled to size x size
    mode: Literal["RGB", "L"] = "RGB"


def load(config: Config) -> LabelledImages:
    """Every image below the class folders, in the order of their names. Raises DataError that names a bad file."""
    if not config.path.is_dir():
        raise DataError(f"{config.path}: no such folder: give a folder with a sub-folder a class in [task]")
    classes = sorted(folder.name for folder in config.path.iterdir() if folder.is_dir())
    if len(classes) < 2:
        raise DataError(f"{config.path}: {len(classes)} class folders: give at least two, each named after its class")
    images, labels = [], []
    for label, name in enumerate(classes):
        files = sorted(file for file in (config.path / name).rglob("*") if file.suffix.lower() in ENDINGS)
        if not files:
            raise DataError(f"{config.path / name}: no images ({', '.join(sorted(ENDINGS))}): add some or remove it")
        images += [_read(file, config) for file in files]
        labels += [label] * len(files)
    return LabelledImages(config.path.name, np.stack(images), np.array(labels, dtype=np.int64), tuple(classes))


def _read(file: Path, config: Config) -> NDArray[np.float32]:
    try:
        with Image.open(file) as image:
            small = image.convert(config.mode).resize((config.size, config.size), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: not a readable image ({error}): mend or remove the file") from error
    array = np.asarray(small, dtype=np.float32) / np.float32(255)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
