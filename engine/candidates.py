"""The search stage of a run: candidates, and the fronts that they make."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from hwnas.engine import algorithms
from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, IntArray
from hwnas.engine.exact_search import Gap, gap
from hwnas.engine.fleet import Fleet, Member, worst_share
from hwnas.engine.front import Front
from hwnas.engine.identity import SearchIdentity
from hwnas.engine.journal import earlier_evaluations
from hwnas.engine.objective import Constraint, violation
from hwnas.engine.problem import Problem
from hwnas.engine.record import SearchRecord
from hwnas.engine.run import Run, RunError, write_text
from hwnas.engine.search import Evaluated, Infeasible, hypervolume_trace, search


def search_run(
    run: Run,
    problems: Problem | Sequence[Problem],
    on_told: Callable[[Evaluated], None] | None = None,
    *,
    resume: bool = False,
) -> Evaluated:
    """Search for one device, or for many at once, and leave every candidate in the run's folder.

    The costs of what is answered are those of all problems, an accuracy once (`part` takes one problem's out). The
    search is recorded in the run's journal and goes on where it was; `resume` insists that it has begun. Raises
    Infeasible before or after the search, for a limit of any device.
    """
    problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
    for problem in problems:
        problem.check()
    section, genes = run.config.search, run.space.genes
    found = {key: o for problem in problems for key, o in zip(problem.keys, problem.objectives, strict=True)}
    keys = columns_of(problems)
    makers = [
        algorithms.make(
            algorithm_of(problem, section.algorithm),
            genes,
            population=section.population,
            # one device searches as it always did; of many, each has a stream of its own
            rng=np.random.default_rng([run.config.run.seed, 11] + ([number] if number else [])),
            initial=problem.seeds(),
            known=problem.known(),
        )
        for number, problem in enumerate(problems)
    ]
    if len(problems) == 1:
        algorithm, constraints = makers[0], list(problems[0].constraints)
    else:
        members = [
            Member(maker, tuple(keys.index(key) for key in problem.keys), partial(violation, problem.constraints))
            for maker, problem in zip(makers, problems, strict=True)
        ]
        algorithm = fleet = Fleet(members)
        constraints = [Constraint("limits", "", lambda X: 1 + fleet.violation(X), 1.0)]
    objectives = [replace(objective, name=key) for key, objective in found.items()]
    context = run.evaluator.context if "accuracy" in keys else ""  # all else is cheap
    identity = SearchIdentity.of(
        algorithm_of(problems[0], section.algorithm),
        genes,
        objectives,
        [constraint for problem in problems for constraint in problem.constraints],  # a fleet's say less of each
        population=section.population,
        seed=[run.config.run.seed, 11],
        context=context,
        initial=np.concatenate([problem.seeds() for problem in problems]),
        earlier=section.earlier or "",
    )
    # networks that are evaluated together share what they begin with
    record = SearchRecord(run.journal, identity, batch=section.population)
    if resume and record.progress() is None:
        differ = f" (the nearest differs in {', '.join(record.differences())})" if record.differences() else ""
        raise RunError(f"{run.journal}: there is no search with these settings to resume{differ}: leave --resume out")
    evaluated = search(
        algorithm,
        objectives,
        evaluations=section.evaluations,
        constraints=constraints,
        on_told=on_told,
        record=record,
        earlier=None if section.earlier is None else _taken_over(run, section.earlier, context),
    )
    for problem in problems:
        _refuse_infeasible(run, problem, part(evaluated, problem, keys))
    _write(run.search_path, evaluated, keys)
    return evaluated


def _taken_over(run: Run, journal: str, context: str) -> IntArray:
    """Rows whose accuracy another journal knows, from now on known here too."""
    X, accuracies = earlier_evaluations(journal, context, "accuracy")
    for row, accuracy in zip(X, accuracies, strict=True):
        run.journal.write(context, "accuracy", arch.to_architecture(row), float(accuracy))
    return X


def gap_of(problem: Problem, evaluated: Evaluated) -> Gap | None:
    """How far what was found for the problem is from what a surrogate promises; None where nothing can be said."""
    feasible = evaluated.feasible
    return gap(problem.sums, feasible.X, feasible.costs, allowed=lambda X: violation(problem.constraints, X) <= 0)


def columns_of(problems: Sequence[Problem]) -> tuple[str, ...]:
    """Names of the costs of a search for these problems, in order: one that several share is there once."""
    return tuple(dict.fromkeys(key for problem in problems for key in problem.keys))


def part(evaluated: Evaluated, problem: Problem, keys: Sequence[str]) -> Evaluated:
    """What a search, whose columns are `keys`, found for one problem: its own costs and limits."""
    columns = [list(keys).index(key) for key in problem.keys]
    return Evaluated(evaluated.X, evaluated.costs[:, columns], violation(problem.constraints, evaluated.X))


def _refuse_infeasible(run: Run, problem: Problem, evaluated: Evaluated) -> None:
    if len(evaluated.feasible):
        return
    nearest = arch.to_architecture(evaluated.X[int(np.argmin(evaluated.violation))])
    row = np.array([nearest])
    worst = max(problem.constraints, key=lambda c: float(c.costs(row)[0]) / c.upper)
    shown = json.dumps(arch.to_json(run.space.genes, nearest))
    raise Infeasible(worst, nearest, float(worst.costs(row)[0]), f"{shown}, with all limits at once")


def candidates(evaluated: Evaluated, n: int) -> list[Architecture]:
    """`n` architectures to verify: front by front, the last front thinned evenly."""
    chosen: list[int] = []
    for layer in evaluated.layers():
        room = n - len(chosen)
        if room <= 0:
            break
        spread = np.unique(np.linspace(0, len(layer) - 1, min(room, len(layer))).round().astype(int))
        chosen += layer[spread].tolist()
    return [arch.to_architecture(evaluated.X[i]) for i in chosen]


def front_of(run: Run, problem: Problem, evaluated: Evaluated) -> Front:
    """The predicted front, with the runners-up that verification will look at too.

    `evaluated` is what was found for this problem alone. Where there are limits, as many candidates again are kept
    to stand in for those that turn out to break one.
    """
    n = run.config.verify.candidates
    chosen = candidates(evaluated, 2 * n if problem.limits else n)
    provenance = {
        **run.provenance(),
        **_search_provenance(problem, run, evaluated, [objective.name for objective in problem.objectives]),
        "device_name": problem.device,
        "modelled": problem.latency.modelled,
        "maximised": [objective.name for objective in problem.objectives if objective.maximised],
        "limits": {limit.constraint.name: limit.constraint.upper for limit in problem.limits},
        "confidence": run.config.search.confidence,
    }
    return Front.of(problem.points(run, chosen), provenance=provenance)


def fleet_front(run: Run, problems: Sequence[Problem], evaluated: Evaluated) -> Front:
    """The front of accuracy and of latency on the device where it is worst, beside the largest network's there.

    Of subnets that keep the limits of every device. A point's latency is that of its worst device; its figures have
    `latency_share`, which the front compares, and the latency on each device.
    """
    X = evaluated.X[np.all([violation(problem.constraints, evaluated.X) <= 0 for problem in problems], axis=0)]
    names = [problem.device for problem in problems]
    if not len(X):
        raise RunError(f"no subnet that was evaluated keeps the limits of all of {', '.join(names)}: raise one of them")
    predicted = [problem.latency.predicted() for problem in problems]
    largest = np.array([arch.extreme(run.space.genes, largest=True)])
    of_largest = [float(each.costs(largest)[0]) for each in predicted]
    share = worst_share([each.costs for each in predicted], of_largest)
    costs = np.stack([run.evaluator.errors(X), share(X)], axis=1)
    found = Evaluated(X, costs, np.zeros(len(X)))
    points = []
    for architecture in candidates(found, run.config.verify.candidates):
        row = np.array([architecture])
        latencies = [float(each.costs(row)[0]) for each in predicted]
        worst = problems[int(np.argmax(np.divide(latencies, of_largest)))]
        (point,) = worst.points(run, [architecture])
        by_name = {f"latency_ms@{name}": latency_ms for name, latency_ms in zip(names, latencies, strict=True)}
        points.append(replace(point, figures={"latency_share": float(share(row)[0]), **by_name}))
    provenance = {
        **run.provenance(),
        **_search_provenance(problems[0], run, found, ["accuracy", "latency_share"]),
        "evaluations": len(evaluated),
        "devices": names,
        "modelled": all(problem.latency.modelled for problem in problems),
        "maximised": ["accuracy"],
    }
    return Front.of(points, provenance=provenance)


def algorithm_of(problem: Problem, configured: str | None) -> str:
    """The algorithm that is configured; without one rankers stand in for what is expensive."""
    return configured or ("nsga2" if all(objective.cheap for objective in problem.objectives) else "surrogate")


def _search_provenance(problem: Problem, run: Run, evaluated: Evaluated, objectives: list[str]) -> dict[str, object]:
    return {
        "algorithm": algorithm_of(problem, run.config.search.algorithm),
        "objectives": objectives,
        "evaluations": len(evaluated),
        "feasible": len(evaluated.feasible),
        "hypervolume_trace": asdict(hypervolume_trace(evaluated)),
    }


def read_search(path: Path) -> tuple[tuple[str, ...], Evaluated]:
    """The candidates that the last search left, and the names of their costs with devices. Raises RunError."""
    if not path.exists():
        raise RunError(f"{path}: no search yet: run `hwnas search` first")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        costs = np.array(data["costs"], dtype=np.float64)
        X, broken = np.array(data["architectures"], dtype=np.int64), np.array(data["violation"])
        return tuple(map(str, data["objectives"])), Evaluated(X, costs, broken)
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not a whole search ({error!r}): run `hwnas search` again") from error


def _write(path: Path, evaluated: Evaluated, names: Sequence[str]) -> None:
    costs = [[None if np.isnan(value) else value for value in row] for row in evaluated.costs.tolist()]
    data = {
        "objectives": list(names),
        "architectures": evaluated.X.tolist(),
        "costs": costs,
        "violation": [value if np.isfinite(value) else 1e300 for value in evaluated.violation.tolist()],
    }
    write_text(path, json.dumps(data))
