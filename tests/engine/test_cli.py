"""The command line on a real run: a small space trained, measured, searched, verified, exported and reported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.engine.export import verify_export
from tests.engine.commands import COMMAND, FAST, answered, failure, hwnas
from tests.engine.processes import ENVIRONMENT


def test_the_demo_leaves_a_verified_front(demo: tuple[Path, dict[str, Any]]) -> None:
    saved = json.loads((demo[0] / "demo-fast" / "front.json").read_text())
    assert saved["points"] == demo[1]["points"]
    for point in saved["points"]:
        low, high = point["latency_ci_ms"]
        assert point["verified"] is True
        assert low <= point["latency_ms"] <= high
        assert 0 <= point["accuracy_test"] <= 1
        assert point["architecture"]["resolution"] in (8, 12)
    costs = np.array([(p["latency_ms"], 1 - p["accuracy_test"]) for p in saved["points"]])
    for cost in costs:
        assert not ((costs <= cost).all(1) & (costs < cost).any(1)).any()


def test_the_demo_leaves_a_report_a_table_and_raw_runs(demo: tuple[Path, dict[str, Any]]) -> None:
    folder = demo[0] / "demo-fast"
    page = (folder / "report.html").read_text()
    assert "<h1>hwnas: demo-fast</h1>" in page
    assert f"The search left {len(demo[1]['points'])} network" in page
    assert (folder / "front.csv").read_text().count("\n") == len(demo[1]["points"]) + 1
    runs = json.loads((folder / "front_runs.json").read_text())
    measured = {}
    for row in runs:
        drift = row["drift"] or [1.0]
        steady = np.reshape(row["runs_ms"], (len(drift), -1)) / np.reshape(drift, (-1, 1))
        measured[tuple(row["indices"])] = float(np.median(steady))
    for point in demo[1]["points"]:
        assert measured[tuple(point["indices"])] == pytest.approx(point["latency_ms"])


def test_the_supernet_of_the_demo_is_diagnosed(run: tuple[Path, Path]) -> None:
    few = ("--architectures", 12, "--pairs", 2, "--standalone", 3)
    found = answered("diagnose", run[1], "--out", run[0], *few)
    assert 0 <= found["accuracy"]["lowest"] <= found["accuracy"]["highest"] <= 1
    assert -1 <= found["recency"] <= 1
    assert found["batchnorm_drift"]["mean"] > 0
    assert all(-1 <= cosine <= 1 for cosine in found["cosine_by_distance"].values())
    assert {"inherited", "params", "macs", "random"} <= set(found["standalone"])


def test_too_few_networks_to_rank_are_refused(run: tuple[Path, Path]) -> None:
    code, message = failure("diagnose", run[1], "--out", run[0], "--standalone", 2)
    assert code == 2
    assert "--standalone 2: fewer than 3 networks have no order" in message


def test_every_point_is_exported_whole(demo: tuple[Path, dict[str, Any]]) -> None:
    folders = [Path(folder) for folder in demo[1]["exported"]]
    assert len(folders) == len(demo[1]["points"])
    for folder in folders:
        assert {"weights.safetensors", "architecture.json", "program.pt2", "model.onnx", "model.so"} <= {
            path.name for path in folder.iterdir()
        }
        assert verify_export(folder) == []


def test_a_second_demo_reuses_what_the_first_left(run: tuple[Path, Path]) -> None:
    checkpoint = run[0] / "demo-fast" / "supernet" / "checkpoint.json"
    before = checkpoint.stat().st_mtime_ns
    done = hwnas("demo", "--fast", "--out", run[0])
    assert done.returncode == 0, done.stderr
    assert "supernet: reused the checkpoint of 8 epochs" in done.stderr
    assert "table: reused 20 blocks and 7 networks" in done.stderr
    assert "60 evaluations are known already" in done.stderr
    assert checkpoint.stat().st_mtime_ns == before


def test_pick_keeps_the_limit_and_names_the_nearest(run: tuple[Path, Path], demo: tuple[Path, dict[str, Any]]) -> None:
    out, config = run
    limit = demo[1]["points"][-1]["latency_ms"]
    picked = json.loads(hwnas("front", "pick", config, "--out", out, "--max-latency-ms", limit, "--json").stdout)
    assert picked["indices"] == demo[1]["points"][-1]["indices"]
    code, message = failure("front", "pick", config, "--out", out, "--max-latency-ms", 1e-6)
    assert code == 1
    assert "the fastest is" in message


def test_the_table_says_how_wrong_it_is(run: tuple[Path, Path]) -> None:
    shown = json.loads(hwnas("table", "show", run[1], "--out", run[0], "--json").stdout)
    assert (shown["blocks"], shown["failed"], shown["networks"]) == (20, 0, 7)
    assert shown["quality"]["n"] == 3
    assert len(shown["rows"]) == 20


def test_stages_work_one_by_one(run: tuple[Path, Path]) -> None:
    out, config = run
    for file in ("front.json", "front.csv", "report.html", "search.json"):
        (out / "demo-fast" / file).unlink()
    searched = json.loads(hwnas("search", config, "--out", out, "--json").stdout)
    assert not any(point["verified"] for point in searched["points"])
    kept = json.loads((out / "demo-fast" / "front.verified.json").read_text())
    assert all(point["verified"] for point in kept["points"])
    assert failure("front", "export", config, "--out", out) == (
        1,
        f"hwnas: {out}/demo-fast/front.json: not verified: run `hwnas front verify` first",
    )
    verified = json.loads(hwnas("front", "verify", config, "--out", out, "--json").stdout)
    assert all(point["verified"] for point in verified["points"])
    report = json.loads(hwnas("report", config, "--out", out, "--json").stdout)
    assert Path(report["report"]).exists()


# ---- kill -9 --------------------------------------------------------------------------------------------------------


def _evaluations(path: Path) -> list[tuple[str, float]]:
    if not path.exists():
        return []
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        try:
            return sorted(connection.execute("select architecture, value from evaluations"))
        except sqlite3.OperationalError:
            return []


def test_a_killed_search_ends_in_the_front_of_an_unbroken_one(run: tuple[Path, Path], tmp_path: Path) -> None:
    out, config = run
    for file in (out / "demo-fast").glob("journal.sqlite*"):
        file.unlink()
    (out / "demo-fast" / "front.json").unlink()
    broken = tmp_path / "broken"
    shutil.copytree(out, broken)
    assert hwnas("search", config, "--out", out).returncode == 0
    journal = broken / "demo-fast" / "journal.sqlite"
    process = subprocess.Popen(
        [*COMMAND, "search", str(config), "--out", str(broken)],
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while len(_evaluations(journal)) < 15:
        assert process.poll() is None, "the search ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    known = len(_evaluations(journal))
    assert 15 <= known < 60
    resumed = hwnas("search", config, "--out", broken, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"{known} evaluations are known already" in resumed.stderr
    fronts = [json.loads((folder / "demo-fast" / "front.json").read_text()) for folder in (out, broken)]
    assert fronts[0] == fronts[1]
    assert _evaluations(journal) == _evaluations(out / "demo-fast" / "journal.sqlite")


# ---- mistakes -------------------------------------------------------------------------------------------------------


def test_resuming_nothing_is_refused(run: tuple[Path, Path], tmp_path: Path) -> None:
    code, message = failure("search", run[1], "--out", tmp_path / "new", "--resume")
    assert code == 2
    assert "there is no search to resume" in message


def test_an_infeasible_limit_is_answered_with_the_fastest_subnet(run: tuple[Path, Path]) -> None:
    before = _evaluations(run[0] / "demo-fast" / "journal.sqlite")
    done = hwnas("search", run[1], "--out", run[0], "--max-latency-ms", "0.0001", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 3
    assert "no subnet keeps latency_ms <= 0.0001 ms: the lowest is" in answer["error"]
    assert '"resolution": 8' in answer["error"]
    assert answer["value"] > 0.0001
    assert _evaluations(run[0] / "demo-fast" / "journal.sqlite") == before


def test_a_limit_is_kept_by_every_point(run: tuple[Path, Path]) -> None:
    everything = json.loads(hwnas("search", run[1], "--out", run[0], "--json").stdout)
    latencies = [point["latency_predicted_ms"] for point in everything["points"]]
    limit = (latencies[0] + latencies[-1]) / 2
    limited = json.loads(hwnas("search", run[1], "--out", run[0], "--max-latency-ms", limit, "--json").stdout)
    kept = [point["latency_predicted_ms"] for point in (*limited["points"], *limited["dominated"])]
    assert kept
    assert max(kept) <= limit


def test_an_unknown_key_is_named(run: tuple[Path, Path]) -> None:
    run[1].write_text(FAST.replace("epochs =", "epoch ="))
    code, message = failure("train", run[1], "--out", run[0])
    assert code == 2
    assert "unknown key training.epoch" in message


def test_an_unknown_device_is_named(run: tuple[Path, Path]) -> None:
    code, message = failure("table", "build", run[1], "--out", run[0], "--device", "pixel9")
    assert code == 4
    assert "no device is called 'pixel9' (known: host," in message
    assert "hwnas devices add" in message


def test_a_corrupt_checkpoint_is_named(run: tuple[Path, Path]) -> None:
    tensors = next((run[0] / "demo-fast" / "supernet").glob("*.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:-100])
    code, message = failure("search", run[1], "--out", run[0])
    assert code == 1
    assert f"{tensors.name}: corrupt" in message


def test_a_truncated_npz_is_named(run: tuple[Path, Path], tmp_path: Path) -> None:
    data = tmp_path / "set.npz"
    np.savez_compressed(data, images=np.zeros((90, 8, 8), dtype=np.uint8), labels=np.arange(90) % 3)
    data.write_bytes(data.read_bytes()[:-30])
    run[1].write_text(FAST.replace('name = "digits"', f'name = "npz"\npath = "{data}"'))
    code, message = failure("train", run[1], "--out", tmp_path / "new")
    assert code == 2
    assert f"{data}: not a whole .npz" in message


def test_the_table_of_another_device_is_refused(run: tuple[Path, Path]) -> None:
    with sqlite3.connect(run[0] / "demo-fast" / "latency.sqlite") as connection:
        ((text,),) = connection.execute("select fingerprint from latency_tables").fetchall()
        changed = json.dumps({**json.loads(text), "soc": "Raspberry Pi 4 Model B"})
        connection.execute("update latency_tables set fingerprint = ?, identity = 'another'", (changed,))
    code, message = failure("table", "build", run[1], "--out", run[0])
    assert code == 4
    assert "Raspberry Pi 4 Model B" in message
    assert "build a table of your own: hwnas table build" in message


def test_a_folder_that_cannot_be_written_is_named(run: tuple[Path, Path]) -> None:
    code, message = failure("train", run[1], "--out", "/proc/hwnas")
    assert code == 1
    assert "/proc/hwnas" in message
    assert "--out" in message


def test_every_command_shows_an_example() -> None:
    commands = ["demo", "train", "search", "report"]
    commands += [f"table {verb}" for verb in ("build", "show", "check", "export", "import")]
    commands += [f"devices {verb}" for verb in ("list", "add", "remove", "probe", "serve", "tracker")]
    commands += [f"front {verb}" for verb in ("show", "pick", "verify", "export")]
    for command in commands:
        assert f"Example: hwnas {command}" in hwnas(*command.split(), "--help").stdout


def test_the_host_is_probed_by_both_runtimes() -> None:
    for name, runtime in (("host", "tvm"), ("host-onnxruntime", "onnxruntime")):
        found = json.loads(hwnas("devices", "probe", name, "--json").stdout)
        assert found["device"]["name"] == name
        assert found["before"]["runtime"].startswith(runtime)
        assert found["before"]["cores"] == os.cpu_count()
        assert found["before"]["soc"]
        assert found["deviation"] < 1e-4
        assert found["noise_floor"] >= 0
