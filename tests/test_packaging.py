"""The import name and the wheel's map hold the same folders."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("devices", "engine", "latency")
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_link_leads_to_the_folder(folder: str) -> None:
    assert (ROOT / "hwnas" / folder).samefile(ROOT / folder)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_wheel_maps_the_folder_to_its_import_name(folder: str) -> None:
    assert SETUPTOOLS["package-dir"][f"hwnas.{folder}"] == folder


def test_every_package_is_in_the_wheel() -> None:
    found = {"hwnas"}
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join(("hwnas", *init.parent.relative_to(ROOT).parts)))
    assert found == set(SETUPTOOLS["packages"])
