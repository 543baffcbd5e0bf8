"""Spaces whose figures are looked up."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.engine import algorithms
from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Gene
from hwnas.engine.dataset import DataError
from hwnas.engine.search import search
from hwnas.engine.spaces import tabular
from hwnas.engine.spaces.tabular import Config, Metric, RowIndex, TabularSpace, build
from tests.engine.toy_spaces import every, gene_sets

METRICS = (Metric(column="top1", maximised=True, scale=0.01), Metric(column="ms", unit="ms"))
FRAME = pd.DataFrame(
    [(3, "relu", 60.0, 1.0), (3, "hswish", 62.0, 1.5), (5, "relu", 61.0, 2.0), (5, "hswish", 64.0, 3.0)],
    columns=["kernel", "activation", "top1", "ms"],
)
SPACE = TabularSpace.of(FRAME, ["kernel", "activation"], METRICS)


def row(**values: Any) -> arch.IntArray:
    return np.array([arch.from_json(SPACE.genes, values)])


def test_options_are_the_values_that_occur() -> None:
    assert [(gene.name, gene.options) for gene in SPACE.genes] == [
        ("kernel", (3, 5)),
        ("activation", ("hswish", "relu")),
    ]


def test_a_gain_is_turned_and_a_cost_is_not() -> None:
    X = row(kernel=5, activation="relu")
    top1, ms = SPACE.objective("top1"), SPACE.objective("ms")
    assert top1.costs(X) == pytest.approx([0.39])
    assert top1.shown(top1.costs(X)) == pytest.approx([0.61])
    assert (ms.costs(X).tolist(), ms.unit, ms.maximised) == ([2.0], "ms", False)


def test_an_unknown_metric_is_told_with_the_known_ones() -> None:
    with pytest.raises(LookupError, match="'energy': the metrics are top1, ms"):
        SPACE.objective("energy")


def test_the_true_front_is_what_no_row_beats() -> None:
    front = SPACE.true_front(["ms", "top1"])  # kernel 5 with relu is slower and worse than kernel 3 with hswish
    assert front.costs.tolist() == [[1.0, 1 - 0.6], [1.5, 1 - 0.62], [3.0, 1 - 0.64]]
    assert [arch.options(SPACE.genes, arch.to_architecture(x))["kernel"] for x in front.X] == [3, 3, 5]


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=30))
def test_the_true_front_is_that_of_comparing_every_pair(rows: list[tuple[int, int, int]]) -> None:
    frame = pd.DataFrame(rows, columns=["a", "b", "gain"]).assign(g=range(len(rows)))
    metrics = [Metric(column="a"), Metric(column="b"), Metric(column="gain", maximised=True)]
    front = TabularSpace.of(frame, ["g"], metrics).true_front(["a", "b", "gain"])
    costs = [(a, b, 1 - gain) for a, b, gain in rows]
    beaten = [any(all(x <= y for x, y in zip(o, c, strict=True)) and o != c for o in costs) for c in costs]
    assert sorted(front.X[:, 0].tolist()) == [i for i, is_beaten in enumerate(beaten) if not is_beaten]
    assert front.costs.tolist() == sorted(front.costs.tolist())


def test_a_search_of_the_whole_table_ends_on_the_true_front() -> None:
    objectives = [SPACE.objective("top1"), SPACE.objective("ms")]
    algorithm = algorithms.make("exhaustive", SPACE.genes, population=3, rng=np.random.default_rng(0))
    found = search(algorithm, objectives, evaluations=100)
    best = found.costs[found.layers()[0]]
    assert sorted(best.tolist()) == sorted(SPACE.true_front(["top1", "ms"]).costs.tolist())


def test_a_restricted_table_has_its_own_front() -> None:
    narrow = SPACE.restrict([[False, True], [True, True]])
    assert narrow.true_front(["ms", "top1"]).costs.tolist() == [[2.0, 1 - 0.61], [3.0, 1 - 0.64]]


@settings(deadline=None, max_examples=60)
@given(genes=gene_sets(), data=st.data())
def test_every_row_is_found_and_no_other(genes: tuple[Gene, ...], data: st.DataObject) -> None:
    genes = tuple(Gene(gene.name, gene.options, gene.needs) for gene in genes)
    known = sorted(every(genes))
    kept = data.draw(st.lists(st.sampled_from(known), unique=True, min_size=1))
    frame = pd.DataFrame([arch.options(genes, row) for row in kept])
    frame["cost"] = np.arange(len(kept), dtype=np.float64)
    space = TabularSpace.of(frame, genes, [Metric(column="cost")], partial=True)
    costs = space.objective("cost").costs(np.array(known))
    assert costs.tolist() == [kept.index(row) if row in kept else np.inf for row in known]


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(1, 2**20), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
    limit=st.sampled_from([2**20, 2**30, 2**62]),
)
def test_keys_of_any_length_tell_rows_apart(counts: list[int], seed: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabular, "KEY_LIMIT", limit)  # the smaller, the more runs a row is cut into
        held = np.unique(rng.integers(0, np.minimum(counts, 3), size=(20, len(counts))), axis=0)
        held[:, :] = held * (np.array(counts) // 3 + 1) % np.array(counts)  # far apart where there is room
        held = rng.permutation(np.unique(held, axis=0))
        index = RowIndex.of(held, counts)
    assert index.find(held).tolist() == list(range(len(held)))
    asked = rng.integers(-1, np.array(counts) + 1, size=(50, len(counts)))
    positions = {tuple(row): i for i, row in enumerate(held.tolist())}
    assert index.find(asked).tolist() == [positions.get(tuple(row), -1) for row in asked.tolist()]


def test_a_gene_that_is_off_may_hold_anything_in_the_file() -> None:
    depth = Gene("depth", (1, 2))
    second = Gene("second", (3, 5), needs=("depth", frozenset({1})))
    frame = pd.DataFrame({"depth": [1, 2, 2], "second": [np.nan, 3, 5], "ms": [1.0, 2.0, 3.0]})
    space = TabularSpace.of(frame, [depth, second], [Metric(column="ms")])
    assert space.objective("ms").costs(np.array([[0, 0], [1, 1]])).tolist() == [1.0, 3.0]


def test_options_keep_the_order_that_a_gene_gives_them() -> None:
    space = TabularSpace.of(FRAME, [Gene("kernel", (5, 3)), "activation"], METRICS)
    assert space.objective("ms").costs(np.array([[0, 1]])).tolist() == [2.0]


def test_a_row_that_a_whole_table_lacks_is_an_error() -> None:
    with pytest.raises(
        LookupError, match=r"1 of 2 architectures are not in the table, first kernel=5, activation=index 7"
    ):
        SPACE.look_up(np.array([[0, 0], [1, 7]]))


def test_a_table_with_gaps_has_to_say_so() -> None:
    with pytest.raises(DataError, match="3 of 4 architectures"):
        TabularSpace.of(FRAME[:3], ["kernel", "activation"], METRICS)


def test_what_a_partial_table_lacks_is_infeasible() -> None:
    space = TabularSpace.of(FRAME[:3], ["kernel", "activation"], METRICS, partial=True)
    objectives = [space.objective("top1"), space.objective("ms")]
    algorithm = algorithms.make("random", space.genes, population=2, rng=np.random.default_rng(0))
    found = search(algorithm, objectives, evaluations=100, constraints=[space.constraint()])
    assert (len(found), len(found.feasible)) == (4, 3)
    assert np.isfinite(found.feasible.costs).all()


def test_two_rows_of_one_architecture_are_an_error() -> None:
    with pytest.raises(DataError, match="rows 1 and 4 are one architecture, kernel=3, activation=hswish"):
        TabularSpace.of(pd.concat([FRAME, FRAME[1:2]]), ["kernel", "activation"], METRICS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ms": [1.0, np.nan, 2.0, 3.0]}, "row 1: ms is nan"),
        ({"ms": [1.0, 2.0, np.inf, 3.0]}, "row 2: ms is inf"),
        ({"ms": ["1", "2", "3", "four"]}, "row 3: ms is 'four'"),
        ({"kernel": [3, 3, 5, np.nan]}, "row 3: kernel is empty"),
        ({"kernel": [3, 3, 5, "5"]}, "kernel mixes"),
    ],
)
def test_a_bad_figure_is_told_with_its_row(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TabularSpace.of(FRAME.assign(**change), ["kernel", "activation"], METRICS)


def test_a_value_that_is_no_option_is_told() -> None:
    with pytest.raises(DataError, match=r"row 2: kernel is 5: choose from \(3, 7\)"):
        TabularSpace.of(FRAME, [Gene("kernel", (3, 7)), "activation"], METRICS)


def test_an_empty_table_is_told() -> None:
    with pytest.raises(DataError, match="no rows"):
        TabularSpace.of(FRAME[:0], ["kernel"], METRICS)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_is_a_space(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table.{ending}"
    if ending == "csv":
        FRAME.to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow")
        FRAME.to_parquet(path)
    space = build(Config(path=path, genes=("kernel", "activation"), metrics=METRICS))
    assert space.costs.tolist() == SPACE.costs.tolist()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", None, "cannot be read"),
        ("t.csv", "", "cannot be read"),
        ("t.csv", "kernel,activation\n3,relu\n", "no column 'top1': the columns are kernel, activation"),
        ("t.parquet", "kernel,activation\n3,relu\n", "cannot be read"),
        ("t.xlsx", "", "ends in .parquet or .csv"),
    ],
)
def test_a_bad_file_is_told_by_its_name(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}: .*{message}") as error:
        build(Config(path=tmp_path / name, genes=("kernel", "activation"), metrics=METRICS))
    assert "\n" not in str(error.value)


def test_a_table_has_nothing_to_train() -> None:
    with pytest.raises(LookupError, match="no supernet"):
        SPACE.supernet()


def test_a_million_look_ups_need_no_million_objects() -> None:
    # 5^6 rows: what a Python dictionary would do row by row is done by sorted searches of the whole population
    rows = np.array(list(product(range(5), repeat=6)))
    frame = pd.DataFrame(rows, columns=[f"g{i}" for i in range(6)]).assign(cost=rows.sum(1) * 1.0)
    space = TabularSpace.of(frame, [f"g{i}" for i in range(6)], [Metric(column="cost")])
    X = np.random.default_rng(0).integers(0, 5, size=(1_000_000, 6))
    assert (space.objective("cost").costs(X) == X.sum(1)).all()
