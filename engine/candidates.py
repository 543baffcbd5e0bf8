"""The search stage of a run: objectives and limits from its configuration, candidates and their front."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hwnas.engine import algorithms
from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import Architecture, FloatArray, IntArray
from hwnas.engine.evaluation.complexity import block_macs, block_params
from hwnas.engine.front import Front, FrontPoint
from hwnas.engine.hardware import Latency
from hwnas.engine.objective import Constraint, Objective
from hwnas.engine.run import Run, RunError, write_text
from hwnas.engine.search import Evaluated, Infeasible, hypervolume_trace, search


@dataclass(frozen=True)
class Limit:
    """A constraint whose cost rises with an additive one, so that its minimum over the space is known exactly."""

    constraint: Constraint
    additive: AdditiveCost

    def check(self) -> None:
        """Raises Infeasible where no architecture keeps the limit."""
        fastest, _ = self.additive.minimum()
        value = float(self.constraint.costs(np.array([fastest]))[0])
        if value > self.constraint.upper:
            shown = json.dumps(arch.to_json(self.additive.genes, fastest))
            raise Infeasible(self.constraint, fastest, value, shown)


@dataclass(frozen=True)
class Problem:
    """What a run searches for."""

    objectives: tuple[Objective, ...]
    limits: tuple[Limit, ...]
    latency: Latency
    additive: dict[str, AdditiveCost]

    @classmethod
    def of(cls, run: Run, latency: Latency) -> Problem:
        """Objectives and limits of the configuration. Raises LookupError for a block without a latency."""
        section, space = run.config.search, run.space
        additive = {
            "latency_ms": latency.additive(),
            "macs": AdditiveCost.of(space, block_macs),
            "params": AdditiveCost.of(space, block_params),
        }
        costs: dict[str, Callable[[IntArray], FloatArray]] = {**additive}
        costs["latency_ms"] = latency.costs(additive["latency_ms"])
        costs["accuracy"] = lambda X: run.evaluator.errors(X)  # noqa: PLW0108  # loads the supernet only when called
        objectives = tuple(
            Objective(name, UNITS[name], costs[name], maximised=name == "accuracy") for name in section.objectives
        )
        uppers = {"latency_ms": section.max_latency_ms, "macs": section.max_macs, "params": section.max_params}
        limits = [
            Limit(Constraint(name, UNITS[name], costs[name], upper), additive[name])
            for name, upper in uppers.items()
            if upper is not None
        ]
        if latency.failures:
            # an architecture with a block that failed on the device has no latency: no finite limit lets it through
            limits.append(Limit(Constraint("latency_ms", "ms", costs["latency_ms"], 1e12), additive["latency_ms"]))
        return cls(objectives, tuple(limits), latency, additive)

    def seeds(self) -> IntArray:
        """The cheapest architecture by each additive cost, the smallest and the largest, each once."""
        genes = self.additive["macs"].genes
        rows = [arch.extreme(genes, largest=False), arch.extreme(genes, largest=True)]
        rows += [cost.minimum()[0] for cost in self.additive.values()]
        return np.array(list(dict.fromkeys(rows)))

    def points(self, run: Run, architectures: Sequence[Architecture]) -> list[FrontPoint]:
        """Unverified front points of architectures whose accuracy is known or will be computed."""
        if not architectures:
            return []
        X = np.array(architectures)
        accuracies = 1 - run.evaluator.errors(X)
        predictions = self.latency.predictor.predict([arch.blocks(run.space, a) for a in architectures])
        macs, params = self.additive["macs"](X), self.additive["params"](X)
        return [
            FrontPoint(
                architecture=architecture,
                genes=arch.to_json(run.space.genes, architecture),
                accuracy_validation=float(accuracies[i]),
                latency_predicted_ms=predictions[i].mean_ms,
                latency_std_ms=predictions[i].std_ms,
                macs=int(macs[i]),
                params=int(params[i]),
            )
            for i, architecture in enumerate(architectures)
        ]


UNITS = {"accuracy": "", "latency_ms": "ms", "macs": "MACs", "params": "parameters"}


def search_run(run: Run, problem: Problem, on_told: Callable[[Evaluated], None] | None = None) -> Evaluated:
    """Search, and leave every candidate in the run's folder. Raises Infeasible before or after the search."""
    for limit in problem.limits:
        limit.check()
    section = run.config.search
    algorithm = algorithms.make(
        section.algorithm,
        run.space.genes,
        population=section.population,
        rng=np.random.default_rng([run.config.run.seed, 11]),
        initial=problem.seeds(),
    )
    constraints = [limit.constraint for limit in problem.limits]
    evaluated = search(
        algorithm, problem.objectives, evaluations=section.evaluations, constraints=constraints, on_told=on_told
    )
    if len(evaluated.feasible) == 0:
        nearest = arch.to_architecture(evaluated.X[int(np.argmin(evaluated.violation))])
        row = np.array([nearest])
        worst = max(constraints, key=lambda c: float(c.costs(row)[0]) / c.upper)
        shown = json.dumps(arch.to_json(run.space.genes, nearest))
        raise Infeasible(worst, nearest, float(worst.costs(row)[0]), f"{shown}, with all limits at once")
    _write(run.search_path, evaluated, [objective.name for objective in problem.objectives])
    return evaluated


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
    """The predicted front, with the runners-up that verification will look at too."""
    trace = hypervolume_trace(evaluated)
    provenance = {
        **run.provenance(),
        "modelled": problem.latency.modelled,
        "algorithm": run.config.search.algorithm,
        "objectives": list(run.config.search.objectives),
        "evaluations": len(evaluated),
        "feasible": len(evaluated.feasible),
        "limits": {limit.constraint.name: limit.constraint.upper for limit in problem.limits},
        "hypervolume_trace": asdict(trace),
    }
    return Front.of(problem.points(run, candidates(evaluated, run.config.verify.candidates)), provenance=provenance)


def read_search(path: Path) -> Evaluated:
    """The candidates that the last search left. Raises RunError."""
    if not path.exists():
        raise RunError(f"{path}: no search yet: run `hwnas search` first")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        costs = np.array(data["costs"], dtype=np.float64)
        return Evaluated(np.array(data["architectures"], dtype=np.int64), costs, np.array(data["violation"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not a whole search ({error!r}): run `hwnas search` again") from error


def _write(path: Path, evaluated: Evaluated, names: list[str]) -> None:
    costs = [[None if np.isnan(value) else value for value in row] for row in evaluated.costs.tolist()]
    data = {
        "objectives": names,
        "architectures": evaluated.X.tolist(),
        "costs": costs,
        "violation": [value if np.isfinite(value) else 1e300 for value in evaluated.violation.tolist()],
    }
    write_text(path, json.dumps(data))
