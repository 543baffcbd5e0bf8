"""One search for four devices: how many accuracies it evaluates beside one search for one device.

    python benchmarks/devices.py

NAS-Bench-201: true accuracies and measured latencies of four devices (HELP), read from $HWNAS_DATA (default
../shared/data beside the repository); without them it says so and stops. A search for one device with BUDGET
evaluations sets the mark: the median over seeds of the hypervolume that it reaches there. Then, for each way of
searching for all four at once: after how many evaluations does every device's front have at least its mark? Hypervolume
is normalised by the box from the ideal to the nadir of the true front of each device, one tenth wider. The ways: a
member a device, asked in turn and told of everything (what `[device] devices` does); one NSGA-II or NSGA-III over
accuracy and all four latencies; a search a device, one after another. Exits with 1 where the product's way needs more
than FLOOR times the evaluations of one device.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # CPU time of one thread is what is compared

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
from latency_sets import data_folder
from record import Row, record

from hwnas.engine.algorithms import Algorithm, Known, make
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.fleet import Fleet, Member, worst_share
from hwnas.engine.front import non_dominated, normalised_hypervolume
from hwnas.engine.objective import Objective, violation

DEVICES = ("gold_6240", "titanx_256", "samsung_a50", "essential_ph_1")  # a server, a GPU in batches, two phones
ACCURACY = "c100_test_200ep"
BUDGET, POPULATION = 200, 20
FLOOR, PATIENCE = 1.6, 2  # the bound, and how many budgets a way may take at most
SEEDS = {"nsga2": 10, "surrogate": 5}  # of each algorithm; a search by rankers takes its CPU time

GENES = tuple(Gene(f"edge{i}", (0, 1, 2, 3, 4)) for i in range(6))
PLACES = 5 ** np.arange(5, -1, -1)


class Table:
    """The benchmark's networks: errors (15625,) and latencies (15625, devices) by place."""

    def __init__(self, folder: Path) -> None:
        latency = pd.read_parquet(folder / "nb201_latency.parquet").set_index("idx")
        accuracy = pd.read_parquet(folder / "nb201_accuracy.parquet").set_index("idx").loc[latency.index]
        place = latency[[f"op{i}" for i in range(6)]].to_numpy() @ PLACES
        self.errors, self.latency_ms = np.empty(5**6), np.empty((5**6, len(DEVICES)))
        self.errors[place] = 1 - accuracy[ACCURACY].to_numpy() / 100
        self.latency_ms[place] = latency[[f"lat_{name}" for name in DEVICES]].to_numpy()
        shares = [partial(self.latency, device) for device in range(len(DEVICES))]
        everything = np.stack([np.arange(5**6) // p % 5 for p in PLACES], axis=1)
        convolutions = np.full((1, 6), 3)  # a 3 x 3 convolution on every edge: the largest network
        self.worst = worst_share(shares, [float(share(convolutions)[0]) for share in shares])
        self.boxes = [_box(np.stack([self.errors, each], axis=1)) for each in self.latency_ms.T]
        self.fleet_box = _box(np.stack([self.errors, self.worst(everything)], axis=1))

    def error(self, X: IntArray) -> FloatArray:
        return self.errors[X @ PLACES]

    def latency(self, device: int, X: IntArray) -> FloatArray:
        return self.latency_ms[X @ PLACES, device]

    def objectives(self, devices: Sequence[int]) -> tuple[Objective, ...]:
        return (
            Objective("accuracy", "", self.error, maximised=True),
            *(Objective(f"latency_ms@{DEVICES[d]}", "ms", partial(self.latency, d), cheap=True) for d in devices),
        )

    def reached(self, X: IntArray, device: int) -> float:
        costs = np.stack([self.error(X), self.latency(device, X)], axis=1)
        return normalised_hypervolume(costs, ideal=self.boxes[device][0], reference=self.boxes[device][1])

    def reached_fleet(self, X: IntArray) -> float:
        costs = np.stack([self.error(X), self.worst(X)], axis=1)
        return normalised_hypervolume(costs, ideal=self.fleet_box[0], reference=self.fleet_box[1])


def _box(costs: FloatArray) -> tuple[list[float], list[float]]:
    front = costs[non_dominated(costs)]
    low, high = front.min(0), front.max(0)
    return low.tolist(), (high + 0.1 * (high - low)).tolist()


# ---- ways of searching ----------------------------------------------------------------------------------------------

Way = Callable[[Table, str, int], tuple[Algorithm, tuple[Objective, ...]]]


def one(table: Table, name: str, seed: int, *, device: int) -> tuple[Algorithm, tuple[Objective, ...]]:
    objectives = table.objectives([device])
    return _make(name, objectives, [seed, device]), objectives


def in_turn(table: Table, name: str, seed: int) -> tuple[Algorithm, tuple[Objective, ...]]:
    members = []
    for device in range(len(DEVICES)):
        algorithm = _make(name, table.objectives([device]), [seed, device])
        members.append(Member(algorithm, (0, 1 + device), partial(violation, ())))
    return Fleet(members), table.objectives(range(len(DEVICES)))


def jointly(table: Table, name: str, seed: int) -> tuple[Algorithm, tuple[Objective, ...]]:
    objectives = table.objectives(range(len(DEVICES)))
    return _make(name, objectives, [seed]), objectives


def _make(name: str, objectives: tuple[Objective, ...], seed: list[int]) -> Algorithm:
    known = Known.of(objectives)
    return make(name, GENES, population=POPULATION, rng=np.random.default_rng(seed), known=known)


def asked(algorithm: Algorithm, objectives: tuple[Objective, ...], evaluations: int) -> IntArray:
    """Everything that a search evaluates, in order."""
    rows: list[IntArray] = []
    while sum(map(len, rows)) < evaluations:
        X = algorithm.ask()
        if not len(X):
            break
        algorithm.tell(X, np.stack([objective.costs(X) for objective in objectives], axis=1), np.zeros(len(X)))
        rows.append(X)
    return np.concatenate(rows)[:evaluations]


# ---- figures --------------------------------------------------------------------------------------------------------


def evaluations_to(table: Table, X: IntArray, marks: Sequence[float]) -> int | None:
    """After how many of these rows every device's front has its mark; None where it never does."""
    for n in range(1, len(X) + 1):
        looked = n % 5 == 0 or n == len(X)
        if looked and all(table.reached(X[:n], device) >= mark for device, mark in enumerate(marks)):
            return n
    return None


def main() -> int:
    folder = data_folder()
    if not (folder / "nb201_latency.parquet").exists():
        print(f"no nb201_latency.parquet in {folder}: set HWNAS_DATA to the folder that holds it; nothing was measured")
        return 0
    table = Table(folder)
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    values: dict[str, object] = {}
    for name, seeds in SEEDS.items():
        began = time.process_time()
        single = [
            [asked(*one(table, name, seed, device=d), BUDGET) for d in range(len(DEVICES))] for seed in range(seeds)
        ]
        single_s = (time.process_time() - began) / seeds
        marks = [median(table.reached(runs[d], d) for runs in single) for d in range(len(DEVICES))]
        alone = [len(DEVICES) * BUDGET] * seeds
        rows.append(
            _row(f"{name}, a search a device", alone, table, [np.concatenate(runs) for runs in single], single_s)
        )
        ways: dict[str, tuple[Way, str]] = {f"{name}, devices in turn": (in_turn, name)}
        if name == "nsga2":
            ways |= {f"{each}, {len(DEVICES) + 1} objectives": (jointly, each) for each in ("nsga2", "nsga3")}
        else:
            ways |= {f"{name}, {len(DEVICES) + 1} objectives": (jointly, name)}
        for title, (way, each) in ways.items():
            began = time.process_time()
            together = [asked(*way(table, each, seed), PATIENCE * BUDGET) for seed in range(seeds)]
            took_s = (time.process_time() - began) / seeds
            needed = [evaluations_to(table, X, marks) for X in together]
            rows.append(_row(title, needed, table, [X[: round(FLOOR * BUDGET)] for X in together], took_s))
            values[title] = needed
            if way is in_turn:
                ratios[name] = float(np.median([np.inf if n is None else n for n in needed])) / BUDGET
        values[f"{name}, marks"] = dict(zip(DEVICES, marks, strict=True))
    record(
        "devices",
        rows,
        title=f"Evaluations until each of {len(DEVICES)} devices has what {BUDGET} for it alone reach (median)",
        seeds=range(max(SEEDS.values())),
        notes={
            "devices": DEVICES,
            "accuracy": ACCURACY,
            "population": POPULATION,
            "seeds": SEEDS,
            "box": "ideal to nadir of the true front, one tenth wider",
            "values": values,
            "bound": FLOOR,
        },
    )
    said = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    print(f"evaluations for four devices over those for one, at equal hypervolume each (at most {FLOOR}): {said}")
    return 0 if all(ratio <= FLOOR for ratio in ratios.values()) else 1


def _row(title: str, needed: Sequence[int | None], table: Table, runs: Sequence[IntArray], cpu_s: float) -> Row:
    counts = [np.inf if n is None else n for n in needed]
    middle = float(np.median(counts))
    fleet = [table.reached_fleet(X) for X in runs]
    return {
        "way": title,
        "evaluations": middle if np.isfinite(middle) else None,
        "over one device's": round(middle / BUDGET, 2) if np.isfinite(middle) else None,
        "least": min(counts) if np.isfinite(min(counts)) else None,
        "most": max(counts) if np.isfinite(max(counts)) else None,
        "seeds without": sum(n is None for n in needed),
        "fleet front": round(median(fleet), 4),
        "CPU s": round(cpu_s, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
