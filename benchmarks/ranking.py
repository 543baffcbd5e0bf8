"""How truly inherited weights rank architectures, by sampler and criterion, at equal path updates and equal CPU time.

    python benchmarks/ranking.py [--bed noisy_digits] [--seeds 5] [--only sandwich]

Plain chains of elastic widths and depths (benchmarks/ranking_beds.py) on noisy digits and on Fashion-MNIST at 7 x 7
(from $HWNAS_DATA; left out with a word where it is not there). The truth is the mean test accuracy of 60 architectures
trained by themselves with three seeds, computed once and kept in benchmarks/results/ranking_truth_BED.json. The score
is the validation accuracy with inherited weights, BatchNorm recalibrated in every arm. A path update is one
architecture's forward and backward pass in a step; what only looks (an anchor's forward pass) costs time, and no
update. For equal CPU time every arm is trained again with as many updates as take the seconds that uniform single path
takes. Arms are compared with uniform single path and with the sandwich seed by seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed

sys.path.insert(0, str(Path(__file__).parent))
from latency_sets import data_folder
from ranking_arms import ARMS, trained
from ranking_beds import BEDS, Bed, compute
from record import RESULTS, Row, record

from hwnas.engine.ranking import figures_of, ranking_report

SEEDS = (0, 1, 2, 3, 4)
FIGURES = ("kendall", "regret_at_10", "top_tenth", "kendall_given_macs")
BASELINES = ("uniform", "sandwich")
NEAR = 0.05  # arms whose updates take this share more or less than uniform's are not trained again


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bed", choices=sorted(BEDS), action="append")
    parser.add_argument("--only", choices=sorted(ARMS), action="append", help="arms, beside the two baselines")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    seeds = SEEDS[: arguments.seeds]
    names = [name for name in ARMS if arguments.only is None or name in (*arguments.only, *BASELINES)]
    for bed_name in arguments.bed or BEDS:
        if bed_name == "fashion" and not (data_folder() / "sets").is_dir():
            print(f"no Fashion-MNIST in {data_folder()}: set HWNAS_DATA to the folder that holds it; bed left out")
            continue
        compute(bed_name, arguments.jobs)
        judge(bed_name, names, seeds, arguments.jobs)
    return 0


def judge(bed_name: str, names: Sequence[str], seeds: Sequence[int], jobs: int) -> None:
    """Train every arm with every seed, at equal updates and then at equal time; record both."""
    bed = BEDS[bed_name]
    runs = runs_of(bed, names, seeds, jobs, dict.fromkeys(names, bed.paths))
    seconds = {name: float(np.median([run["seconds"] for run in runs[name]])) for name in names}
    shares = {name: seconds["uniform"] / seconds[name] for name in names}
    updates = {name: bed.paths if abs(share - 1) < NEAR else round(bed.paths * share) for name, share in shares.items()}
    timed = runs_of(bed, names, seeds, jobs, updates)
    rows = [
        *_rows(bed, "updates", runs, dict.fromkeys(names, bed.paths)),
        *_rows(bed, "CPU time", timed, updates),
        *_bounds(bed),
    ]
    record(
        f"ranking_{bed_name}",
        rows,
        title=f"{bed_name}: inherited against standalone accuracy, mean over {len(seeds)} seeds of a supernet",
        seeds=seeds,
        shown=(
            "equal",
            "arm",
            "paths",
            "kendall",
            "spread",
            "regret_at_10",
            "top_tenth",
            "against_uniform",
            "against_sandwich",
        ),
        notes={
            "against": "difference in Kendall's tau, seed by seed: mean and 95 % interval of the mean (Student's t)",
            "spread": "standard deviation of tau over seeds",
            "regret_at_10": "points of accuracy below the best of the 60, of the best among the ten scored highest",
            "scores": {name: [run["scores"] for run in runs[name]] for name in names},
        },
    )


def runs_of(
    bed: Bed, names: Sequence[str], seeds: Sequence[int], jobs: int, paths: Mapping[str, int]
) -> dict[str, list[dict[str, object]]]:
    """What each arm comes to with each seed; runs of before with the same settings are read, not repeated."""
    folder = RESULTS.parent / ".ranking"
    folder.mkdir(exist_ok=True)
    wanted = [(name, seed) for seed in seeds for name in names]
    tasks = [delayed(_kept)(folder, bed.name, name, seed, paths[name]) for name, seed in wanted]
    found = Parallel(n_jobs=jobs)(tasks)
    runs: dict[str, list[dict[str, object]]] = {name: [] for name in names}
    for (name, _), run in zip(wanted, found, strict=True):
        runs[name].append(run)
    return runs


def _kept(folder: Path, bed_name: str, name: str, seed: int, paths: int) -> dict[str, object]:
    torch.set_num_threads(1)
    bed = BEDS[bed_name]
    path = folder / f"{bed_name}-{name}-{seed}-{paths}-{bed.digest(repr(ARMS[name]))}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    start = time.process_time()
    scores = trained(bed, ARMS[name], seed=seed, paths=paths)
    run = {"seconds": time.process_time() - start - scores.evaluation_seconds, "scores": scores.accuracies}
    path.write_text(json.dumps(run))
    return run


def _rows(
    bed: Bed, equal: str, runs: Mapping[str, Sequence[Mapping[str, object]]], paths: Mapping[str, int]
) -> Iterator[Row]:
    truth = bed.truth().mean(0)
    taus: dict[str, np.ndarray] = {}
    figures: dict[str, dict[str, np.ndarray]] = {}
    for name, found in runs.items():
        each = [figures_of(np.array(run["scores"]), truth, bed.macs.astype(float)) for run in found]
        figures[name] = {figure: np.array([float(one[figure][0]) for one in each]) for figure in FIGURES}
        taus[name] = figures[name]["kendall"]
    for name in sorted(runs, key=lambda name: -taus[name].mean()):
        row: dict[str, object] = {"equal": equal, "arm": name, "paths": paths[name]}
        row["kendall"] = round(float(taus[name].mean()), 3)
        row["spread"] = round(float(taus[name].std(ddof=1)), 3)
        for figure in FIGURES[1:]:
            scale = 100 if figure == "regret_at_10" else 1
            row[figure] = round(scale * float(figures[name][figure].mean()), 3)
        for baseline in BASELINES:
            row[f"against_{baseline}"] = "" if name == baseline else paired(taus[name] - taus[baseline])
        row["seconds"] = round(float(np.median([float(str(run["seconds"])) for run in runs[name]])), 1)
        row["inherited"] = round(float(np.mean([run["scores"] for run in runs[name]])), 3)
        row["taus"] = str(np.round(taus[name], 3).tolist())
        yield row  # type: ignore[misc]  # cells


def _bounds(bed: Bed) -> Iterator[Row]:
    """The ceiling and what costs nothing, in the same columns."""
    truth = bed.truth()
    report = ranking_report(
        truth.mean(0), truth, macs=bed.macs.astype(float), params=bed.params.astype(float), rng=np.random.default_rng(0)
    )
    assert report.ceiling is not None
    for name, figures in {"one seed of the truth": report.ceiling, **report.baselines}.items():
        row: dict[str, object] = {"equal": "", "arm": name, "paths": None}
        row["kendall"] = round(figures["kendall"].value, 3)
        row["spread"] = f"{figures['kendall'].low:.3f} to {figures['kendall'].high:.3f}"
        for figure in FIGURES[1:]:
            found = figures.get(figure)
            scale = 100 if figure == "regret_at_10" else 1
            row[figure] = None if found is None else round(scale * found.value, 3)
        row |= {"against_uniform": "", "against_sandwich": "", "seconds": None, "inherited": None, "taus": ""}
        yield row  # type: ignore[misc]  # cells


def paired(differences: np.ndarray) -> str:
    """Mean and 95 % interval of the mean."""
    from scipy.stats import t

    n, mean = len(differences), float(differences.mean())
    if n < 2:
        return f"{mean:+.3f}"
    half = float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


if __name__ == "__main__":
    sys.exit(main())
