"""RAPL is a folder of files, so a folder of files stands in for it; NVML needs a card."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.devices.energy import EnergyMeter, nvml_counter, rapl_counter

RANGE_UJ = 262_143_328_850  # of an Intel server


def zone(root: Path, name: str, kind: str, energy_uj: int, range_uj: int = RANGE_UJ) -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder


def test_packages_are_summed_and_their_parts_are_not(tmp_path: Path) -> None:
    first, second = (zone(tmp_path, f"intel-rapl:{i}", f"package-{i}", 1_000_000) for i in (0, 1))
    part = zone(tmp_path, "intel-rapl:0:0", "core", 500_000)
    zone(tmp_path, "intel-rapl:2", "psys", 7)
    counter = rapl_counter(tmp_path)
    assert counter is not None
    (first / "energy_uj").write_text("1002000")
    (second / "energy_uj").write_text("1000500")
    (part / "energy_uj").write_text("999999")
    assert counter.read_mj() == 2.5


def test_a_counter_that_runs_over_goes_on_counting(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 999)
    counter = rapl_counter(tmp_path)
    assert counter is not None
    (package / "energy_uj").write_text("2000")  # 999 to the end, 1 to zero, 2000 after it
    assert counter.read_mj() == 3.0
    (package / "energy_uj").write_text("5000")
    assert counter.read_mj() == 6.0
    (package / "energy_uj").write_text("1000")  # once more: all but 4000 of a whole range
    assert counter.read_mj() == pytest.approx(6.0 + (RANGE_UJ + 1 - 4000) / 1000)


def test_a_meter_says_what_passed_inside_it(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 1000)
    counter = rapl_counter(tmp_path)
    (package / "energy_uj").write_text("50000")
    with EnergyMeter([counter, None]) as meter:
        (package / "energy_uj").write_text("54000")
    assert meter.energy_mj == 4.0


def test_no_counter_is_not_known_and_never_zero() -> None:
    with EnergyMeter([None]) as meter:
        pass
    assert meter.energy_mj is None


@pytest.mark.parametrize("lacking", ["folder", "packages", "number", "file"])
def test_what_cannot_be_read_is_no_counter(lacking: str, tmp_path: Path) -> None:
    root = tmp_path / "powercap"
    if lacking != "folder":
        package = zone(root, "intel-rapl:0", "core" if lacking == "packages" else "package-0", 1)
        if lacking == "number":
            (package / "energy_uj").write_text("")
        if lacking == "file":
            (package / "energy_uj").unlink()
    assert rapl_counter(root) is None


def test_a_machine_without_a_card_has_no_nvml_counter() -> None:
    counter = nvml_counter(index=99)  # no machine has a hundred
    assert counter is None
