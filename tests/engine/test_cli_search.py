"""Ways to search from the command line: along exact fronts, resumed, from an earlier journal, within several limits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import Gene
from hwnas.engine.objective import Quantity
from hwnas.engine.objectives import Estimate
from hwnas.engine.problem import Limit, Problem
from hwnas.engine.search import Infeasible
from tests.engine.commands import FAST, answered, failure, hwnas


def test_an_exact_search_ends_with_how_far_it_may_be_from_the_best(run: tuple[Path, Path]) -> None:
    out, config = run
    done = hwnas("search", config, "--out", out, "--exact")
    assert done.returncode == 0, done.stderr
    found = re.search(
        r"has (\d+\.\d)% of the hypervolume of the exact front of an additive surrogate \(Kendall tau (-?\d\.\d\d)",
        " ".join(done.stderr.split()),
    )
    assert found is not None, done.stderr
    assert 50 < float(found[1]) <= 100
    assert answered("front", "show", config, "--out", out)["algorithm"] == "exact"


def test_the_same_search_again_evaluates_nothing_and_finds_the_same(run: tuple[Path, Path]) -> None:
    out, config = run
    first = answered("search", config, "--out", out)
    front = (out / "demo-fast" / "front.json").read_bytes()
    again = answered("search", config, "--out", out, "--resume")
    assert again["points"] == first["points"]
    assert (out / "demo-fast" / "front.json").read_bytes() == front


def test_resuming_a_search_with_other_settings_names_what_differs(run: tuple[Path, Path]) -> None:
    out, config = run
    answered("search", config, "--out", out)
    config.write_text(FAST.replace("[search]", "[search]\nmax_macs = 1e9"))
    code, message = failure("search", config, "--out", out, "--resume")
    assert code == 1
    assert "no search with these settings to resume" in message
    assert "limits" in message


def test_accuracies_of_an_earlier_search_are_told_first(run: tuple[Path, Path], tmp_path: Path) -> None:
    out, config = run
    folder = out / "demo-fast"
    known = json.loads((folder / "search.json").read_text())["architectures"]
    earlier = (folder / "journal.sqlite").rename(tmp_path / "earlier.sqlite")
    answered("search", config, "--out", out, "--earlier", earlier, "--evaluations", 5)
    told = json.loads((folder / "search.json").read_text())["architectures"]
    assert sorted(told[: len(known)]) == sorted(known)
    assert len(told) == len(known) + 5


def test_limits_that_exclude_each_other_are_told_before_anything_is_evaluated() -> None:
    genes = (Gene("a", (0, 1)), Gene("b", (0, 1)))
    falls = AdditiveCost(genes, ((0,), (1,)), (np.array([4.0, 1.0]), np.array([2.0, 1.0])))
    rises = AdditiveCost(genes, ((0,), (1,)), (np.array([1.0, 5.0]), np.array([1.0, 2.0])))
    limits = [
        Limit.of(Quantity(name), Estimate.of_sum(Quantity(name), unit, cost), 3.0, confidence=0.95)
        for name, unit, cost in (("latency_ms", "ms", falls), ("macs", "MACs", rises))
    ]
    latency: Any = None  # nothing is predicted here
    problem = Problem("board", (), (), tuple(limits), latency, {"macs": rises})
    for limit in limits:
        limit.check()
    with pytest.raises(Infeasible, match="no subnet keeps latency_ms <= 3 ms and macs <= 3 MACs at once") as told:
        problem.check()
    assert told.value.limit is limits[0].constraint
