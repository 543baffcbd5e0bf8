"""Labelled images and their splits: disjoint, stratified and fixed by the content of the images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SplitName = Literal["train", "validation", "test"]


class DataError(ValueError):
    """A data file that cannot be used, named."""


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """What a task loads: images (n, channels, height, width) in 0..1, labels (n,), class names.

    `is_test` marks the images of a test split that the source itself defines; None lets the hash choose one.
    """

    name: str
    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    is_test: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or len(self.images) != len(self.labels):
            raise DataError(
                f"{self.name}: {self.images.shape} images do not fit {self.labels.shape} labels: "
                "give (n, channels, height, width) images and (n,) labels"
            )


@dataclass(frozen=True)
class Split:
    """One part of the data, normalised with the figures of the training part."""

    images: Tensor  # (n, channels, height, width), float32
    labels: Tensor  # (n,), int64

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, resolution: int) -> Tensor:
        """All images resized to (n, channels, resolution, resolution); kept for the next call."""
        return _resized(self.images, resolution)

    def head(self, n: int) -> Split:
        """The first `n` images; their order is by content hash, so they are a fair sample."""
        return Split(self.images[:n], self.labels[:n])


@dataclass(frozen=True)
class Dataset:
    """Training, search-validation and test splits of one task."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split  # for the final verification alone
    digest: str  # of images, labels and split
    mean: tuple[float, ...]  # of the training images in 0..1, one number a channel
    std: tuple[float, ...]

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self.train.images.shape[1])

    @cached_property
    def sizes(self) -> dict[SplitName, int]:
        """Images a split."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def resize(images: Tensor, resolution: int) -> Tensor:
    """Bilinear, with anti-aliasing where it shrinks. (n, c, h, w) -> (n, c, resolution, resolution)."""
    if images.shape[-2:] == (resolution, resolution):
        return images
    shrinks = resolution < max(images.shape[-2:])
    return F.interpolate(images, (resolution, resolution), mode="bilinear", align_corners=False, antialias=shrinks)


@lru_cache(maxsize=32)  # a few resolutions of a few splits; tensors hash by identity
def _resized(images: Tensor, resolution: int) -> Tensor:
    return resize(images, resolution)


def split(data: LabelledImages, *, validation: float, test: float, limit: int | None = None) -> Dataset:
    """Cut `data` into splits by the SHA-256 of each image, class by class.

    Equal images get equal hashes and land in one split, whatever their labels, so no split has seen another's
    images. `limit` keeps that many images, a fair share of each class. Raises DataError.
    """
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise DataError(
            f"validation={validation} and test={test} leave nothing to train on: give two positive shares below 1"
        )
    codes = np.round(data.images * 255).astype(np.uint8)
    digests = np.array([hashlib.sha256(image.tobytes()).digest()[:16] for image in codes])
    distinct, first, group = np.unique(digests, return_index=True, return_inverse=True)
    official = np.zeros(len(distinct), dtype=bool)
    if data.is_test is not None:
        official[group[data.is_test]] = True
    part = np.full(len(distinct), "train", dtype="<U10")
    for label in range(len(data.classes)):
        # np.unique sorts by digest: within a class that is a fixed random order
        members = np.flatnonzero(data.labels[first] == label)
        if limit is not None:
            keep = max(3, round(limit * len(members) / len(distinct)))
            part[members[keep:]] = "unused"
            members = members[:keep]
        own_test = members[official[members]] if data.is_test is not None else members[: round(test * len(members))]
        rest = np.setdiff1d(members, own_test)
        held_out = rest[: max(1, round(validation * len(members)))]
        part[own_test], part[held_out] = "test", "validation"
        if min(len(own_test), len(held_out), len(rest) - len(held_out)) < 1:
            raise DataError(
                f"{data.name}: class {data.classes[label]!r} has {len(members)} different images, too few for a"
                " training, a validation and a test split: add images or drop the class"
            )
    order = np.argsort(digests, kind="stable")  # also the order inside a split
    rows = {name: order[part[group[order]] == name] for name in ("train", "validation", "test")}
    mean = data.images[rows["train"]].mean((0, 2, 3), keepdims=True)
    std = data.images[rows["train"]].std((0, 2, 3), keepdims=True) + 1e-6
    whole = hashlib.sha256()
    for name, indices in rows.items():
        whole.update(name.encode())
        whole.update(codes[indices].tobytes())
        whole.update(data.labels[indices].tobytes())

    def part_of(name: str) -> Split:
        images = (data.images[rows[name]] - mean) / std
        return Split(torch.from_numpy(images.astype(np.float32)), torch.from_numpy(data.labels[rows[name]]))

    return Dataset(
        data.name,
        data.classes,
        part_of("train"),
        part_of("validation"),
        part_of("test"),
        whole.hexdigest()[:16],
        tuple(mean.ravel().tolist()),
        tuple(std.ravel().tolist()),
    )


def as_images(array: NDArray[np.generic], source: str) -> NDArray[np.float32]:
    """Images of any usual layout and range as (n, channels, height, width) in 0..1. Raises DataError."""
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or prod(array.shape) == 0:
        raise DataError(f"{source}: images of shape {array.shape}: give (n, h, w), (n, c, h, w) or (n, h, w, c)")
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    images = array.astype(np.float32)
    if not np.isfinite(images).all() or images.min() < 0 or images.max() > 1:
        raise DataError(
            f"{source}: {array.dtype} images range from {images.min()} to {images.max()}: give uint8, or floats in 0..1"
        )
    return images
