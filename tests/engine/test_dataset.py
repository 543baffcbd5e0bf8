"""Splits are disjoint, stratified and fixed by content; bad data is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hwnas.engine.dataset import DataError, Dataset, LabelledImages, as_images, split
from hwnas.engine.tasks import digits, image_folder, npz


def _images(n: int, *, seed: int = 0, classes: int = 3) -> LabelledImages:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 1, 4, 4)).astype(np.float32) / 255
    return LabelledImages("toy", images, np.arange(n) % classes, tuple("abcdefghij"[:classes]))


def _contents(data: Dataset) -> list[set[bytes]]:
    return [{image.numpy().tobytes() for image in part.images} for part in (data.train, data.validation, data.test)]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), n=st.integers(60, 200))
def test_splits_are_disjoint_and_complete(seed: int, n: int) -> None:
    loaded = _images(n, seed=seed)
    data = split(loaded, validation=0.2, test=0.3)
    train, validation, test = _contents(data)
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert sum(data.sizes.values()) == n


def test_splits_are_stratified() -> None:
    data = split(_images(300), validation=0.2, test=0.3)
    for part, share in ((data.train, 0.5), (data.validation, 0.2), (data.test, 0.3)):
        assert np.bincount(part.labels.numpy()).tolist() == [100 * share] * 3


def test_splits_do_not_depend_on_the_order_of_the_images() -> None:
    loaded = _images(120)
    order = np.random.default_rng(1).permutation(120)
    shuffled = LabelledImages("toy", loaded.images[order], loaded.labels[order], loaded.classes)
    assert split(loaded, validation=0.2, test=0.3).digest == split(shuffled, validation=0.2, test=0.3).digest


def test_equal_images_land_in_one_split_even_under_other_labels() -> None:
    loaded = _images(90)
    doubled = LabelledImages(
        "toy",
        np.concatenate([loaded.images, loaded.images]),
        np.concatenate([loaded.labels, (loaded.labels + 1) % 3]),
        loaded.classes,
    )
    data = split(doubled, validation=0.2, test=0.3)
    train, validation, test = _contents(data)
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert sum(data.sizes.values()) == 180


def test_another_label_is_another_dataset() -> None:
    loaded = _images(90)
    labels = loaded.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    changed = LabelledImages("toy", loaded.images, labels, loaded.classes)
    assert split(loaded, validation=0.2, test=0.3).digest != split(changed, validation=0.2, test=0.3).digest


def test_a_test_part_of_the_source_stays_the_test_split() -> None:
    loaded = _images(120)
    is_test = np.arange(120) >= 90
    data = split(LabelledImages("toy", loaded.images, loaded.labels, loaded.classes, is_test), validation=0.2, test=0.3)
    assert data.sizes["test"] == 30


def test_a_class_too_small_to_split_is_named() -> None:
    loaded = _images(60)
    labels = loaded.labels.copy()
    labels[labels == 2] = 0
    labels[0] = 2
    with pytest.raises(DataError, match="class 'c' has 1 different images"):
        split(LabelledImages("toy", loaded.images, labels, loaded.classes), validation=0.2, test=0.3)


def test_images_are_normalised_by_the_training_part_alone() -> None:
    data = split(_images(300), validation=0.2, test=0.3)
    assert abs(float(data.train.images.mean())) < 1e-5
    assert abs(float(data.train.images.std(correction=0)) - 1) < 1e-4


def test_resizing_keeps_the_number_of_images() -> None:
    data = split(digits.load(digits.Config()), validation=0.2, test=0.3)
    assert tuple(data.validation.at(12).shape) == (data.sizes["validation"], 1, 12, 12)
    assert data.validation.at(8) is data.validation.images


@pytest.mark.parametrize(("shape", "expected"), [((5, 4, 4), (5, 1, 4, 4)), ((5, 6, 4, 3), (5, 3, 6, 4))])
def test_usual_layouts_of_images_are_understood(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert as_images(np.zeros(shape, dtype=np.uint8), "x").shape == expected


def test_floats_beyond_one_are_refused_with_their_range() -> None:
    with pytest.raises(DataError, match=r"x: float64 images range from 0.0 to 255.0"):
        as_images(np.array([[[0.0, 255.0]]]), "x")


# ---- files ----------------------------------------------------------------------------------------------------------


def test_an_npz_is_read(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, images=np.zeros((6, 5, 5), dtype=np.uint8), labels=np.array([3, 3, 7, 7, 9, 9]))
    loaded = npz.load(npz.Config(path=path))
    assert loaded.images.shape == (6, 1, 5, 5)
    assert loaded.classes == ("3", "7", "9")
    assert loaded.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_truncated_npz_is_named(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    images = np.random.default_rng(0).integers(0, 255, (200, 9, 9), dtype=np.uint8)
    np.savez_compressed(path, images=images, labels=np.arange(200))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"set.npz: not a whole .npz"):
        npz.load(npz.Config(path=path))


def test_a_pickle_in_an_npz_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, images=np.array([{"a": 1}], dtype=object), labels=np.array([0]))
    with pytest.raises(DataError, match=r"not a whole .npz"):
        npz.load(npz.Config(path=path))


def test_an_npz_without_images_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(DataError, match="holds weights: save it with images="):
        npz.load(npz.Config(path=path))


def _folder(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 255, (7, 9, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def test_an_image_folder_is_read(tmp_path: Path) -> None:
    loaded = image_folder.load(image_folder.Config(path=_folder(tmp_path / "set"), size=8))
    assert loaded.images.shape == (6, 3, 8, 8)
    assert loaded.classes == ("cat", "dog")


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set")
    (root / "dog" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1.png: not a readable image"):
        image_folder.load(image_folder.Config(path=root, size=8))


def test_a_class_folder_without_images_is_named(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set")
    (root / "eel").mkdir()
    with pytest.raises(DataError, match="eel: no images"):
        image_folder.load(image_folder.Config(path=root, size=8))
