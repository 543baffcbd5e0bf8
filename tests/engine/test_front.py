from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwnas.engine.architecture import FloatArray
from hwnas.engine.front import Front, FrontPoint, hypervolume, knee, non_dominated, normalised_hypervolume

# whole numbers in 0..4: ties are common, and unit cells count a volume exactly
cost_arrays = st.tuples(st.integers(1, 12), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(0, 5).map(float))
)


def point(latency: float, accuracy: float, *indices: int) -> FrontPoint:
    return FrontPoint(
        architecture=indices or (int(latency * 100), int(accuracy * 1000)),
        genes={"depth": 2, "kernel": "3x3"},
        accuracy_validation=accuracy,
        latency_predicted_ms=latency,
        latency_std_ms=0.25,
        macs=10**6,
        params=2000,
    )


def verified(p: FrontPoint, latency: float, accuracy: float) -> FrontPoint:
    return replace(
        p,
        verified=True,
        latency_ms=latency,
        latency_ci_ms=(latency - 0.1, latency + 0.1),
        latency_p99_ms=latency + 1,
        accuracy_test=accuracy,
    )


FRONT = Front.of([point(3, 0.9), point(1, 0.5), point(2, 0.8), point(2.5, 0.7)], provenance={"seed": 3})


# ---- costs ----------------------------------------------------------------------------------------------------------


@given(cost_arrays)
def test_non_dominated_rows_are_those_that_no_row_beats(costs: FloatArray) -> None:
    obvious = [not any((b <= a).all() and (b < a).any() for b in costs) for a in costs]
    assert non_dominated(costs).tolist() == obvious


def test_equal_rows_do_not_beat_each_other() -> None:
    assert non_dominated(np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 1.0]])).tolist() == [True, True, False]


@given(cost_arrays)
def test_hypervolume_counts_the_unit_cells_that_a_row_dominates(costs: FloatArray) -> None:
    cells = product(range(4), repeat=costs.shape[1])
    dominated = sum(any((row <= cell).all() for row in costs) for cell in cells)
    assert hypervolume(costs, [4.0] * costs.shape[1]) == pytest.approx(dominated)


def test_nothing_has_no_hypervolume() -> None:
    assert hypervolume(np.zeros((0, 2)), (1.0, 1.0)) == 0


@given(cost_arrays)
def test_normalised_hypervolume_counts_the_cells_of_its_box(costs: FloatArray) -> None:
    cells = list(product(range(1, 4), repeat=costs.shape[1]))
    dominated = sum(any((row <= cell).all() for row in costs) for cell in cells)
    share = normalised_hypervolume(costs, ideal=[1.0] * costs.shape[1], reference=[4.0] * costs.shape[1])
    assert share == pytest.approx(dominated / len(cells))


def test_an_ideal_beyond_the_reference_is_an_error() -> None:
    with pytest.raises(ValueError, match="below the reference"):
        normalised_hypervolume(np.zeros((1, 2)), ideal=(0.0, 2.0), reference=(1.0, 1.0))


@given(cost_arrays.filter(lambda costs: costs.shape[1] == 2))
def test_the_knee_is_farthest_from_the_line_between_the_ends(costs: FloatArray) -> None:
    front = costs[non_dominated(costs)]
    low, high = front.min(0), front.max(0)
    scaled = (front - low) / np.where(high > low, high - low, 1)
    distances = (1 - scaled.sum(1)) / np.sqrt(2)  # from the line x + y = 1
    chosen = (costs[knee(costs)] - low) / np.where(high > low, high - low, 1)
    assert non_dominated(costs)[knee(costs)]
    assert (1 - chosen.sum()) / np.sqrt(2) == pytest.approx(distances.max())


def test_the_knee_of_three_objectives_is_below_the_plane_of_the_ends() -> None:
    ends = [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    assert knee(np.array([*ends, [0.6, 0.6, 0.6], [0.4, 0.5, 0.5]])) == 4


@given(cost_arrays)
def test_the_knee_is_on_the_front(costs: FloatArray) -> None:
    assert non_dominated(costs)[knee(costs)]


def test_nothing_has_no_knee() -> None:
    with pytest.raises(ValueError, match="no knee"):
        knee(np.zeros((0, 2)))


# ---- points and fronts ----------------------------------------------------------------------------------------------


def test_a_front_is_sorted_by_latency_and_keeps_what_was_beaten_apart() -> None:
    assert [p.latency_predicted_ms for p in FRONT.points] == [1, 2, 3]
    assert [p.latency_predicted_ms for p in FRONT.dominated] == [2.5]


def test_once_one_is_verified_a_prediction_cannot_be_on_the_front() -> None:
    predicted, measured = point(1, 0.9, 1), verified(point(2, 0.8, 2), 2.5, 0.7)
    front = Front.of([predicted, measured])
    assert front.points == (measured,)
    assert front.dominated == (predicted,)


def test_verified_points_are_compared_by_what_was_measured() -> None:
    promised_fast = verified(point(1, 0.8, 1), 3.0, 0.7)
    is_fast = verified(point(2, 0.7, 2), 2.0, 0.8)
    assert Front.of([promised_fast, is_fast]).points == (is_fast,)


def test_of_one_architecture_the_verified_point_stays() -> None:
    predicted = point(1, 0.9, 1)
    measured = verified(predicted, 2.0, 0.8)
    for points in ([predicted, measured], [measured, predicted]):
        assert Front.of(points) == Front.of([measured])


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4), st.booleans()), max_size=10))
def test_every_point_is_on_the_front_or_beside_it(rows: list[tuple[int, int, bool]]) -> None:
    points = [point(ms, a / 4, i) for i, (ms, a, _) in enumerate(rows)]
    points = [verified(p, p.latency_predicted_ms, p.accuracy_validation) if r[2] else p for p, r in zip(points, rows)]  # noqa: B905
    front = Front.of(points)
    assert sorted(p.architecture for p in front.points + front.dominated) == [(i,) for i in range(len(rows))]
    assert len({p.verified for p in front.points}) <= 1
    assert non_dominated(front.costs).all() if front.points else not rows


def test_a_verified_point_without_a_measurement_is_an_error() -> None:
    with pytest.raises(ValueError, match="no measured latency_ms"):
        replace(point(1, 0.5), verified=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [("accuracy_validation", 76.5), ("latency_predicted_ms", float("nan")), ("latency_std_ms", -1.0)],
)
def test_a_figure_out_of_range_is_an_error_with_its_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        replace(point(1, 0.5), **{field: value})


def test_the_hypervolume_of_a_front() -> None:
    # 1 ms at 0.5, 2 ms at 0.8, 3 ms at 0.9 up to 4 ms and accuracy 0.4
    assert FRONT.hypervolume(latency_ms=4, accuracy=0.4) == pytest.approx(1 * 0.1 + 1 * 0.4 + 1 * 0.5)


def test_the_knee_of_a_front_is_a_point() -> None:
    assert FRONT.knee().latency_predicted_ms == 2


@pytest.mark.parametrize(
    ("limits", "latency"),
    [
        ({"max_latency_ms": 2.9}, 2),
        ({"max_latency_ms": 3.0}, 3),
        ({"min_accuracy": 0.6}, 2),
        ({"min_accuracy": 0.5}, 1),
        ({"min_accuracy": 0.6, "max_latency_ms": 3.5}, 3),
    ],
)
def test_pick_is_the_most_accurate_within_the_latency_or_the_fastest(limits: dict[str, float], latency: float) -> None:
    assert FRONT.pick(**limits).latency_predicted_ms == latency


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"max_latency_ms": 0.5}, r"within 0.5 ms: the fastest is 1 ms at accuracy 0.5 \(predicted\)"),
        ({"min_accuracy": 0.95}, r"accuracy 0.95: the most accurate is 3 ms at accuracy 0.9 \(predicted\)"),
        ({"min_accuracy": 0.85, "max_latency_ms": 2.0}, r"accuracy 0.85 within 2.0 ms: .* 2 ms at accuracy 0.8"),
    ],
)
def test_a_limit_that_nothing_meets_is_named_with_the_nearest_point(limits: dict[str, float], complaint: str) -> None:
    with pytest.raises(LookupError, match=complaint):
        FRONT.pick(**limits)


def test_a_pick_without_a_limit_is_an_error() -> None:
    with pytest.raises(ValueError, match="give max_latency_ms"):
        FRONT.pick()


def test_an_empty_front_has_nothing_to_pick() -> None:
    with pytest.raises(LookupError, match="empty"):
        Front.of([]).pick(max_latency_ms=1)
    with pytest.raises(LookupError, match="empty"):
        Front.of([]).knee()


# ---- files ----------------------------------------------------------------------------------------------------------


def test_a_front_comes_back_from_its_file(tmp_path: Path) -> None:
    front = Front.of([*FRONT.points, verified(point(4, 0.9), 4.5, 0.91)], provenance={"seed": 3, "device": "pi"})
    front.write(tmp_path / "new" / "front.json")
    assert Front.read(tmp_path / "new" / "front.json") == front


def test_the_file_names_what_a_deployer_reads(tmp_path: Path) -> None:
    Front.of([verified(point(4, 0.9, 1, 0), 4.5, 0.91)], provenance={"seed": 3}).write(tmp_path / "front.json")
    data = json.loads((tmp_path / "front.json").read_text())
    (first,) = data["points"]
    assert data["seed"] == 3
    assert data["dominated"] == []
    assert first["architecture"] == {"depth": 2, "kernel": "3x3"}
    assert first["indices"] == [1, 0]
    assert (first["latency_ms"], first["latency_ci_ms"]) == (4.5, [4.4, 4.6])
    assert (first["accuracy_test"], first["verified"]) == (0.91, True)


def test_a_table_has_a_row_a_point_and_a_column_a_gene(tmp_path: Path) -> None:
    FRONT.write(tmp_path / "front.csv")
    table = pd.read_csv(tmp_path / "front.csv")
    assert table["latency_predicted_ms"].tolist() == [1, 2, 3]
    assert table["gene.depth"].tolist() == [2, 2, 2]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    FRONT.write(tmp_path / "front.json")
    before = (tmp_path / "front.json").read_bytes()
    with pytest.raises(TypeError):
        replace(FRONT, provenance={"seed": object()}).write(tmp_path / "front.json")
    assert (tmp_path / "front.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["front.json"]


def broken(**changes: object) -> str:
    data = FRONT.to_json()
    data["points"][0].update(changes)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not JSON, or not all of it"),
        (json.dumps(FRONT.to_json())[:-40], "is not JSON, or not all of it"),
        ("[1, 2]", "is JSON but not a front"),
        ('{"points": [3], "dominated": []}', "is JSON but not a front"),
        ('{"blocks": []}', "is JSON but not a front"),
        (broken(macs="many"), "macs"),
        (broken(colour="red"), "unknown field 'colour'"),
        (broken(verified=True), "no measured latency_ms"),
    ],
)
def test_a_file_that_is_no_front_is_one_line_with_its_name_and_the_cure(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "front.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint) as error:
        Front.read(path)
    assert str(path) in str(error.value)
    assert "give another file" in str(error.value)
    assert "\n" not in str(error.value)


def test_provenance_may_not_hide_the_points() -> None:
    with pytest.raises(ValueError, match="'points'"):
        Front.of([], provenance={"points": 3})


@pytest.mark.parametrize("provenance", [{"modelled": True}, {"fingerprint": {"modelled": True}}])
def test_a_front_from_a_model_says_so_after_a_round_through_its_file(
    provenance: dict[str, object], tmp_path: Path
) -> None:
    Front.of([verified(point(3, 0.9), 3.1, 0.9)], provenance=provenance).write(tmp_path / "front.json")
    front = Front.read(tmp_path / "front.json")
    assert front.modelled
    assert not Front(front.points, provenance={"fingerprint": {"modelled": False}, "modelled": False}).modelled
    with pytest.raises(LookupError, match=r"\(modelled\)"):
        front.pick(max_latency_ms=1e-6)
