"""Plugins that are a file of the user's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest

from hwnas.devices.plugins import load_plugin
from hwnas.engine import spaces

FILE = """
from torch import nn
from hwnas.latency import block_factory

FEATURES = {features}

class Own(nn.Linear):
    pass

@block_factory("file.{name}")
def block():
    return Own(2, FEATURES)
"""


def written(path: Path, features: int) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(FILE.format(features=features, name=f"{path.parent.name}.{path.stem}"))
    return str(path)


def test_a_file_is_one_module_a_process(tmp_path: Path) -> None:
    name = written(tmp_path / "once" / "own.py", 3)
    assert load_plugin(spaces, name) is load_plugin(spaces, name)


def test_two_files_of_one_name_are_two_plugins(tmp_path: Path) -> None:
    loaded = [load_plugin(spaces, written(tmp_path / folder / "own.py", n)) for n, folder in enumerate("ab")]
    assert [plugin.FEATURES for plugin in loaded] == [0, 1]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"absent\.py: no such file"):
        load_plugin(spaces, str(tmp_path / "absent.py"))


def test_a_file_that_fails_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "half.py"
    path.write_text("raise RuntimeError('half')")
    for _ in range(2):  # the second time it would be found as if it had gone well
        with pytest.raises(RuntimeError, match="half"):
            load_plugin(spaces, str(path))


def test_its_blocks_are_built_in_processes_that_do_not_know_the_file(tmp_path: Path) -> None:
    plugin = load_plugin(spaces, written(tmp_path / "sent" / "own.py", 5))
    (tmp_path / "recipe").write_bytes(cloudpickle.dumps(plugin.block))
    code = "import sys, pickle; print(pickle.load(open(sys.argv[1], 'rb'))().weight.shape)"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "recipe"], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.strip() == "torch.Size([5, 2])"
