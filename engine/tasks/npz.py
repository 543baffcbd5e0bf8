"""Images and labels from one .npz file: `images` and `labels`, or `x_train`, `y_train` and perhaps a test part."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from hwnas.engine.dataset import DataError, LabelledImages, as_images

LAYOUTS = (("images", "labels"), ("x_train", "y_train"), ("x", "y"))


class Config(BaseModel):
    """Where the file is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["npz"] = "npz"
    path: Path


def load(config: Config) -> LabelledImages:
    """Images and labels of the file; arrays called `x_test` and `y_test` stay the test split. Raises DataError."""
    path = config.path
    if not path.is_file():
        raise DataError(f"{path}: no such file: give the path of an .npz in [task]")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a whole .npz ({error}): copy or make the file again") from error
    for images_name, labels_name in LAYOUTS:
        if images_name in arrays and labels_name in arrays:
            break
    else:
        raise DataError(f"{path}: holds {', '.join(arrays) or 'nothing'}: save it with images=... and labels=...")
    images, labels = as_images(arrays[images_name], f"{path}: {images_name}"), _labels(arrays[labels_name], path)
    is_test = None
    if {"x_test", "y_test"} <= arrays.keys():
        test_images, test_labels = as_images(arrays["x_test"], f"{path}: x_test"), _labels(arrays["y_test"], path)
        is_test = np.arange(len(images) + len(test_images)) >= len(images)
        images, labels = np.concatenate([images, test_images]), np.concatenate([labels, test_labels])
    present = np.unique(labels)
    return LabelledImages(
        path.stem, images, np.searchsorted(present, labels), tuple(str(label) for label in present), is_test
    )


def _labels(labels: NDArray[np.generic], path: Path) -> NDArray[np.int64]:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: labels are {labels.dtype} of shape {labels.shape}: give one integer an image")
    return labels.astype(np.int64)
