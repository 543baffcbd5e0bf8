"""Every example runs, and every configuration in examples/ is one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hwnas.engine.config import read_config
from hwnas.engine.run import Run
from hwnas.engine.spaces.mobilenet_v3.supernet import ElasticMobileNetV3
from hwnas.engine.spaces.once_for_all import once_for_all_space
from tests.engine.once_for_all_package import as_theirs
from tests.engine.processes import ENVIRONMENT

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
DATA = Path(os.environ.get("HWNAS_DATA", ROOT.parent / "shared" / "data"))


def printed(script: str, *arguments: object, **variables: str) -> list[str]:
    """The lines that an example prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)],
        env={**ENVIRONMENT, **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_space_of_ones_own_is_one_file_that_trains_and_searches(tmp_path: Path) -> None:
    lines = printed("own_space.py", tmp_path)
    points = [re.match(r"accuracy ([\d.]+) +([\d,]+) MACs +([\d.]+) KiB", line) for line in lines]
    figures = [[float(figure.replace(",", "")) for figure in point.groups()] for point in points if point]
    assert len(figures) == len(lines) >= 3
    costs = np.array(figures) * [-1, 1, 1]
    beaten = [((other <= row).all() and (other < row).any()) for row in costs for other in costs]
    assert not any(beaten)
    assert max(accuracy for accuracy, _, _ in figures) > 0.8  # chance is 0.1
    assert (tmp_path / "journal.sqlite").exists()


def nasbench201(folder: Path) -> list[float]:
    """Shares of the true hypervolume that the example prints, of random and of NSGA-II a device."""
    lines = printed("nasbench201.py", HWNAS_DATA=str(folder))
    shares = [re.search(r"true points  (random |nsga2  ) ([\d.]+) \(", line) for line in lines]
    assert all(shares), lines
    return [float(share[2]) for share in shares if share]


def test_a_tabular_benchmark_is_searched_from_its_files(tmp_path: Path) -> None:
    cells = np.array(list(product(range(5), repeat=6)))
    rng = np.random.default_rng(0)
    weight = np.array([0.0, 0.2, 2.0, 5.0, 0.7])[cells].sum(1)  # convolutions cost and gain the most
    frame = pd.DataFrame(cells, columns=[f"op{edge}" for edge in range(6)]).assign(idx=np.arange(len(cells)))
    accuracy = pd.DataFrame(
        {"idx": frame["idx"], "c100_test_200ep": 73 * (1 - np.exp(-weight / 8)) + rng.random(len(cells))}
    )
    for device in ("samsung_a50", "essential_ph_1", "silver_4114", "gold_6240", "2080ti_1"):
        frame[f"lat_{device}"] = 1 + weight * (1 + 0.2 * rng.random(len(cells)))
    frame.to_parquet(tmp_path / "nb201_latency.parquet")
    accuracy.sample(frac=1, random_state=0).to_parquet(tmp_path / "nb201_accuracy.parquet")  # in another order
    shares = nasbench201(tmp_path)
    assert len(shares) == 10
    assert all(0.5 < share <= 1 for share in shares)


@pytest.mark.skipif(not (DATA / "nb201_latency.parquet").exists(), reason=f"no nb201_latency.parquet in {DATA}")
def test_nasbench201_is_searched_on_real_devices() -> None:
    shares = nasbench201(DATA)
    random, nsga2 = shares[::2], shares[1::2]
    assert all(share <= 1 for share in shares)
    assert all(found > drawn for found, drawn in zip(nsga2, random, strict=True))


def test_without_its_data_the_benchmark_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=re.escape(f"{tmp_path}: no nb201_latency.parquet: say in HWNAS_DATA")):
        printed("nasbench201.py", HWNAS_DATA=str(tmp_path))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_every_configuration_is_one(path: Path) -> None:
    assert read_config(path).space.model_dump()["name"]


def test_the_example_of_once_for_all_begins_with_the_weights_of_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light", "mixed")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(60 * label, 60 * label + 120, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    theirs = tmp_path / "weights"
    torch.manual_seed(1)
    published = ElasticMobileNetV3(once_for_all_space(0.2, classes=1000))
    torch.save({"state_dict": as_theirs(published)}, theirs)
    text = (EXAMPLES / "once_for_all.toml").read_text()
    for old, new in (
        ('folder = "runs"', f'folder = "{tmp_path}/runs"'),
        ('path = "images"', f'path = "{tmp_path}/images"'),
        ("size = 224", "size = 32"),
        ("width_mult = 1.0", "width_mult = 0.2"),
        ("[128, 160, 192, 224]", "[24, 32]"),
        ('"ofa_mbv3_d234_e346_k357_w1.0"', f'"{theirs}"'),
        ("epochs = 10", "epochs = 1"),
        ("batch = 32", "batch = 4"),
        ("shift = 8", "shift = 1"),
        ("learning_rate = 0.01", "learning_rate = 1e-9"),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "run.toml").write_text(text)
    run = Run(read_config(tmp_path / "run.toml"))
    run.begin()
    run.train()
    trained = run.supernet.state_dict()
    assert trained["classify.weight"].shape[0] == 3  # classes of these images; the rest is what the file holds
    for name, tensor in published.named_parameters():
        if not name.startswith("classify"):
            assert torch.allclose(trained[name], tensor, atol=1e-4), name
