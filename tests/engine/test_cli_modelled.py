"""A whole run on a device that is a formula: marked as modelled wherever its figures go."""

from __future__ import annotations

from pathlib import Path

from tests.engine.commands import FAST, answered


def test_a_front_on_a_modelled_device_says_so_everywhere(run: tuple[Path, Path]) -> None:
    out, config = run
    config.write_text(FAST + '\n[device]\nname = "model-roofline-edge-npu"\n')
    where = (config, "--out", out)
    table = answered("table", "build", *where, "--table", out / "model.sqlite")
    assert table["modelled"] is True
    assert table["failed"] == 0
    config.write_text(config.read_text().replace("[table]", f'[table]\npath = "{out / "model.sqlite"}"'))
    assert answered("search", *where)["modelled"] is True
    front = answered("front", "verify", *where)
    assert front["modelled"] is True
    for point in front["points"]:
        assert point["energy_mj"] > 0
        assert point["weight_bytes"] > 0
        assert point["latency_ci_ms"] == [point["latency_ms"]] * 2
    exported = [Path(folder) for folder in answered("front", "export", *where)["exported"]]
    assert len(exported) == len(front["points"])
    assert all((folder / "model.onnx").exists() and not (folder / "model.so").exists() for folder in exported)
    page = Path(answered("report", *where)["report"]).read_text()
    assert "Modelled, not measured" in page
