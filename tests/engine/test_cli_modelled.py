"""A whole run on a device that is a formula: marked as modelled wherever its figures go."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hwnas.engine.candidates import front_of, search_run
from hwnas.engine.cli.options import run_of
from hwnas.engine.cli.stages import tables_of
from hwnas.engine.config import read_config
from hwnas.engine.hardware import latency_of
from hwnas.engine.objective import objective_of
from hwnas.engine.problem import Problem
from tests.engine.commands import FAST, answered, failure, hwnas

NPU, GPU = "model-roofline-edge-npu", "model-roofline-a100-fp16"


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


# ---- many devices ---------------------------------------------------------------------------------------------------


def fleet_config(out: Path, config: Path, *, search: str = "") -> tuple[object, ...]:
    text = FAST.replace("[table]", f'[table]\npath = "{out / "models.sqlite"}"')
    text = text.replace("[search]", f"[search]\n{search}")
    config.write_text(text + f'\n[device]\nname = "{NPU}"\ndevices = ["{GPU}"]\n')
    return config, "--out", out


def test_one_run_finds_a_front_for_each_device_and_one_for_all(run: tuple[Path, Path]) -> None:
    out, config = run
    folder = out / "demo-fast"
    where = fleet_config(out, config)
    assert set(answered("table", "build", *where)["tables"]) == {NPU, GPU}
    (folder / "journal.sqlite").unlink()
    fronts = answered("search", *where)["fronts"]
    assert list(fronts) == [NPU, GPU, "fleet"]
    evaluated = json.loads((folder / "search.json").read_text())
    assert evaluated["objectives"] == ["accuracy", f"latency_ms@{NPU}", f"latency_ms@{GPU}"]
    assert len(evaluated["architectures"]) == 60  # for both together, not for each
    for name in (NPU, GPU):
        kept = json.loads((folder / f"front.{name}.json").read_text())
        assert kept["points"] == fronts[name]["points"]
        costs = np.array(evaluated["costs"])[:, [0, 1 + (name == GPU)]]
        best = [not ((costs <= cost).all(1) & (costs < cost).any(1)).any() for cost in costs]
        rows = {tuple(row) for row, is_best in zip(evaluated["architectures"], best, strict=True) if is_best}
        assert {tuple(point["indices"]) for point in kept["points"]} <= rows
    said = hwnas("search", *where)
    assert all(f"{name}: {folder}/front.{name}.json" in said.stdout for name in (NPU, GPU, "fleet"))
    assert "60 evaluations are known already" in said.stderr
    shown = answered("front", "show", *where)["fronts"]
    assert {name: front["points"] for name, front in shown.items()} == {
        name: front["points"] for name, front in fronts.items()
    }


def test_the_fleet_front_compares_the_worst_device_beside_its_largest_network(run: tuple[Path, Path]) -> None:
    out, config = run
    where = fleet_config(out, config)
    answered("table", "build", *where)
    fleet = answered("search", *where)["fronts"]["fleet"]
    assert fleet["objectives"] == ["accuracy", "latency_share"]
    shares = [point["figures"]["latency_share"] for point in fleet["points"]]
    assert all(0 < share <= 1 for share in shares)
    for point in fleet["points"]:
        assert {f"latency_ms@{NPU}", f"latency_ms@{GPU}"} <= set(point["figures"])
        assert point["latency_predicted_ms"] in point["figures"].values()


def test_every_stage_works_device_by_device(run: tuple[Path, Path]) -> None:
    out, config = run
    where = fleet_config(out, config)
    answered("table", "build", *where)
    answered("search", *where)
    fronts = answered("front", "verify", *where)["fronts"]
    assert list(fronts) == [NPU, GPU]
    assert all(point["verified"] for front in fronts.values() for point in front["points"])
    picked = answered("front", "pick", *where, "--device", GPU)
    assert picked in fronts[GPU]["points"]
    folders = [Path(folder) for folder in answered("front", "export", *where, "--device", GPU)["exported"]]
    assert {folder.parent.name for folder in folders} == {f"export.{GPU}"}
    reports = [Path(path) for path in answered("report", *where)["reports"]]
    assert [path.name for path in reports] == [f"report.{NPU}.html", f"report.{GPU}.html"]


def test_a_limit_on_one_device_bounds_its_own_front(run: tuple[Path, Path]) -> None:
    out, config = run
    where = fleet_config(out, config)
    answered("table", "build", *where)
    free = answered("search", *where)["fronts"]
    fast, slow = (free[NPU]["points"][i]["latency_predicted_ms"] for i in (0, -1))
    limit = 0.3 * fast + 0.7 * slow
    where = fleet_config(out, config, search=f'limits = {{ "latency_ms@{NPU}:p99" = {limit} }}')
    bounded = answered("search", *where)["fronts"]
    held = [*bounded[NPU]["points"], *bounded[NPU]["dominated"]]
    assert held
    assert all(point["figures"][f"latency_ms@{NPU}:p99"] <= limit for point in held)
    assert max(p["latency_predicted_ms"] for p in bounded[GPU]["points"] + bounded[GPU]["dominated"]) > 0
    assert bounded[GPU]["limits"] == {}


def test_energy_and_memory_are_objectives_where_the_table_has_them(run: tuple[Path, Path]) -> None:
    out, config = run
    where = fleet_config(out, config, search=f'objectives = ["accuracy", "energy_mj@{NPU}", "peak_memory_mib"]')
    answered("table", "build", *where)
    front = answered("search", *where)["fronts"][NPU]
    assert front["objectives"] == ["accuracy", f"energy_mj@{NPU}", "peak_memory_mib"]
    costs = np.array(
        [
            [1 - p["accuracy_validation"], p["figures"][f"energy_mj@{NPU}"], p["figures"]["peak_memory_mib"]]
            for p in front["points"]
        ]
    )
    assert not any(((costs <= cost).all(1) & (costs < cost).any(1)).any() for cost in costs)
    predicted = {tuple(p["indices"]): p["figures"][f"energy_mj@{NPU}"] for p in front["points"]}
    verified = answered("front", "verify", *where, "--device", NPU)
    for point in verified["points"]:
        assert point["figures"][f"energy_mj@{NPU}"] == point["energy_mj"]
        if tuple(point["indices"]) in predicted:
            assert point["energy_mj"] == pytest.approx(predicted[tuple(point["indices"])], rel=0.2)


def test_a_point_that_measuring_finds_over_its_limit_gives_its_place_to_the_next(run: tuple[Path, Path]) -> None:
    out, config = run
    algorithm = 'algorithm = "random"'  # which asks rows on both sides of a limit
    where = fleet_config(out, config, search=algorithm)
    answered("table", "build", *where, "--device", NPU)
    free = answered("search", *where, "--device", NPU)
    checked = answered("front", "verify", *where, "--device", NPU)
    found = [p for p in checked["points"] + checked["dominated"] if p["latency_ms"] > p["latency_predicted_ms"]]
    assert free["points"]
    assert found, "no prediction was too low: this test can tell nothing"
    low = max(found, key=lambda p: p["latency_ms"])  # so that many others keep the limit and can stand in
    limit = (low["latency_ms"] + low["latency_predicted_ms"]) / 2  # kept as predicted, broken as measured
    where = fleet_config(out, config, search=f"{algorithm}\nconfidence = 0.5\nlimits = {{ latency_ms = {limit} }}")
    predicted = answered("search", *where, "--device", NPU)
    assert low["indices"] in [p["indices"] for p in predicted["points"] + predicted["dominated"]]
    front = answered("front", "verify", *where, "--device", NPU)
    assert all(p["latency_ms"] <= limit for p in front["points"] + front["dominated"] if p["verified"])
    reasons = {tuple(entry["indices"]): entry["reason"] for entry in front["rejected"]}
    assert f"the limit is {limit:g}" in reasons[tuple(low["indices"])]
    # one visit for each that is out, as long as others are left: the first visit takes six
    others = len(predicted["points"]) + len(predicted["dominated"]) > 6
    assert (front["replacements"]["visits"] >= 1) == others
    assert others or not front["replacements"]["still"]


def test_a_function_of_ones_own_is_weighed_beside_the_configured_ones(run: tuple[Path, Path]) -> None:
    out, config = run
    answered("table", "build", *fleet_config(out, config))
    of_run = run_of(read_config(config), out=out)
    own = objective_of("depth", lambda values: values["s1.depth"], vectorised=False, genes=of_run.space.genes)
    with tables_of(of_run, [NPU]) as tables:
        problem = Problem.of(of_run, latency_of(of_run, tables[0])).weighing(own)
        front = front_of(of_run, problem, search_run(of_run, problem))
    assert front.objectives == ("accuracy", "latency_ms", "depth")
    assert {point.value("depth") for point in front.points} <= {1.0, 2.0}
    with pytest.raises(ValueError, match="called 'depth' already"):
        problem.weighing(own)


@pytest.mark.parametrize(
    ("search", "complaint"),
    [
        ('objectives = ["accuracy", "speed"]', "no objective is called 'speed': choose from accuracy, energy_mj"),
        ('objectives = ["accuracy", "latency_ms@pixel9"]', f"called 'pixel9' (known: {NPU}, {GPU})"),
        ('limits = { "latency_ms@pixel9:p99" = 3 }', f"called 'pixel9' (known: {NPU}, {GPU})"),
        ("limits = { accuracy = 0.9 }", "it has no upper limit that a search can keep"),
        ('limits = { "latency_ms:p12" = 3 }', "names no quantity"),
        ("limits = { macs = -3 }", "search.limits.macs = -3"),
        ("objectives = []", "search.objectives is empty"),
        ('objectives = ["accuracy", "macs", "macs"]', "holds 'macs' twice"),
    ],
)
def test_a_quantity_that_cannot_be_is_refused_before_anything_starts(
    run: tuple[Path, Path], search: str, complaint: str
) -> None:
    code, message = failure("search", *fleet_config(run[0], run[1], search=search))
    assert code == 2
    assert complaint in message


def test_a_device_without_a_table_is_named_before_anything_starts(run: tuple[Path, Path]) -> None:
    out, config = run
    where = fleet_config(out, config)
    answered("table", "build", *where, "--device", NPU)
    code, message = failure("search", *where)
    assert code == 4
    assert f"{GPU!r} is not among them" in message


def test_a_percentile_of_a_table_with_few_runs_says_how_to_get_it(run: tuple[Path, Path]) -> None:
    out, config = run
    config.write_text(FAST.replace("[search]", '[search]\nlimits = { "latency_ms:p99" = 3 }'))
    code, message = failure("search", config, "--out", out)
    assert code == 1
    assert "have the 200 runs that a p99 is read from" in message
    assert "percentiles = true" in message


def test_a_limit_that_nothing_keeps_for_sure_names_its_confidence(run: tuple[Path, Path]) -> None:
    out, config = run
    config.write_text(FAST.replace("[search]", "[search]\nlimits = { latency_ms = 1e-4, macs = 1e9 }"))
    code, message = failure("search", config, "--out", out)
    assert code == 3
    assert "no subnet keeps latency_ms <= 0.0001 ms" in message
    assert "(a bound that holds with 95% confidence)" in message
