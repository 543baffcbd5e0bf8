"""The search stage of a run: objectives and limits from its configuration, candidates and their front."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from hwnas.engine import algorithms
from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms import Known
from hwnas.engine.architecture import Architecture, FloatArray, Gene, IntArray, SearchSpace
from hwnas.engine.config import ConfigError
from hwnas.engine.conflict import NamedLimit, conflict
from hwnas.engine.device_costs import Latency
from hwnas.engine.evaluation.complexity import block_macs, block_params
from hwnas.engine.exact_search import Gap, gap
from hwnas.engine.fleet import Fleet, Member, worst_share
from hwnas.engine.front import Front, FrontPoint
from hwnas.engine.identity import SearchIdentity
from hwnas.engine.journal import earlier_evaluations
from hwnas.engine.objective import Constraint, Objective, Quantity, violation
from hwnas.engine.objectives import Estimate, Predicted, estimate, find
from hwnas.engine.record import SearchRecord
from hwnas.engine.run import Run, RunError, write_text
from hwnas.engine.search import Evaluated, Infeasible, hypervolume_trace, search
from hwnas.latency import Block


@dataclass(frozen=True)
class Limit:
    """An upper limit, kept with a stated confidence where the cost is predicted."""

    constraint: Constraint  # on the upper confidence bound
    estimate: Estimate
    confidence: float

    @classmethod
    def of(cls, quantity: Quantity, estimate: Estimate, upper: float, *, confidence: float) -> Limit:
        """`quantity` at most `upper`, as its estimate tells."""
        unit = estimate.objective.unit
        return cls(Constraint(str(quantity), unit, estimate.bound(confidence), upper), estimate, confidence)

    def check(self) -> None:
        """Raises Infeasible where it is known that no architecture keeps the limit."""
        least = self.estimate.least(self.confidence)
        if least is not None and least[1] > self.constraint.upper:
            nearest, value = least
            raise Infeasible(self.constraint, nearest, value, self.shown(nearest))

    def named(self) -> NamedLimit | None:
        """The same for sums; None where the cost does not rise with one."""
        total = self.estimate.rises_with
        if total is None:
            return None
        constraint = self.constraint
        return NamedLimit(
            constraint.name,
            constraint.unit,
            total,
            constraint.upper,
            shown=lambda sums: self.estimate.bound_of_sums(sums, self.confidence),
        )

    def shown(self, architecture: Architecture) -> str:
        """The architecture, with the confidence of what is said of it."""
        additive = self.estimate.additive if self.estimate.predicted is None else self.estimate.predicted.additive
        genes = () if additive is None else additive.genes
        text = json.dumps(arch.to_json(genes, architecture)) if genes else str(list(architecture))
        predicted = self.estimate.objective.deviations is not None and self.confidence > 0.5
        return text + (f" (a bound that holds with {self.confidence:.0%} confidence)" if predicted else "")


@dataclass
class _Sources:
    """What the objectives of a run are made of."""

    run: Run
    latencies: Mapping[str, Latency]
    _sums: dict[Callable[[Block], float], AdditiveCost] = field(default_factory=dict)
    _predicted: dict[tuple[str, int | None], Predicted] = field(default_factory=dict)

    @property
    def space(self) -> SearchSpace:
        return self.run.space

    @property
    def validation(self) -> int:
        return len(self.run.data.validation)

    def errors(self, X: IntArray) -> FloatArray:
        return self.run.evaluator.errors(X)  # loads the supernet only when called

    def sums(self, cost: Callable[[Block], float]) -> AdditiveCost:
        if cost not in self._sums:
            self._sums[cost] = AdditiveCost.of(self.space, cost)
        return self._sums[cost]

    def latency(self, device: str, percentile: int | None) -> Predicted:
        if (device, percentile) not in self._predicted:
            self._predicted[device, percentile] = self.latencies[device].predicted(percentile)
        return self._predicted[device, percentile]

    def energy(self, device: str) -> Predicted:
        return self.latencies[device].energy()


@dataclass(frozen=True)
class Problem:
    """What a run searches for on one device."""

    device: str
    objectives: tuple[Objective, ...]  # named as the configuration names them
    keys: tuple[str, ...]  # the same with their device named: equal keys are one cost on every device's problem
    limits: tuple[Limit, ...]
    latency: Latency
    additive: dict[str, AdditiveCost]
    figures: tuple[Objective, ...] = ()  # cheap ones that points are told by, beside what every point says
    sums: tuple[AdditiveCost | None, ...] = ()  # one an objective: the sum that it is or rises with

    @classmethod
    def of(cls, run: Run, latency: Latency, others: Sequence[Latency] = ()) -> Problem:
        """Objectives and limits of the configuration, for the device of `latency`; `others` are the run's further ones.

        A quantity that names no device is that of this one; a limit on another device is left to its own problem.
        Raises ConfigError for a device that is not there, LookupError for a block without a latency, or a table
        without the percentile or the energy that is asked for.
        """
        section, device = run.config.search, latency.device
        latencies = {each.device: each for each in (latency, *others)}
        for quantity in (*section.quantities, *section.uppers):
            if quantity.device is not None and quantity.device not in latencies:
                raise ConfigError(
                    f"{quantity}: no device of this run is called {quantity.device!r} (known: {', '.join(latencies)}): "
                    "correct the name, or add it to [device] devices"
                )
        sources = _Sources(run, latencies)
        made: dict[Quantity, Estimate] = {}

        def placed(quantity: Quantity) -> Quantity:
            return quantity.on(device) if getattr(find(quantity), "ON_DEVICE", False) else quantity

        def estimated(quantity: Quantity) -> Estimate:
            where = placed(quantity)
            if where not in made:
                made[where] = estimate(sources, where)
            found = made[where]
            return replace(found, objective=replace(found.objective, name=str(quantity)))

        estimates = [estimated(quantity) for quantity in section.quantities]
        keys = tuple(str(placed(quantity)) for quantity in section.quantities)
        uppers = {q: upper for q, upper in section.uppers.items() if q.device in (None, device)}
        limits = [Limit.of(q, estimated(q), upper, confidence=section.confidence) for q, upper in uppers.items()]
        if latency.failures:
            # an architecture with a block that failed on the device has no latency: no finite limit lets it through
            limits.append(Limit.of(Quantity("latency_ms"), estimated(Quantity("latency_ms")), 1e12, confidence=0.5))
        additive = {
            "macs": sources.sums(block_macs),
            "params": sources.sums(block_params),
            "latency_ms": latency.additive(),
        }
        named = dict.fromkeys([*section.quantities, *uppers])
        figures = [q for q in named if str(q) not in ("accuracy", "latency_ms", "macs", "params")]
        return cls(
            device,
            tuple(each.objective for each in estimates),
            keys,
            tuple(limits),
            latency,
            additive,
            tuple(estimated(q).objective for q in figures),
            tuple(each.rises_with for each in estimates),
        )

    def weighing(self, *objectives: Objective) -> Problem:
        """This problem with further objectives, for example of `objective_of`. Raises ValueError for a name twice."""
        taken = {objective.name for objective in self.objectives}
        for objective in objectives:
            if objective.name in taken:
                raise ValueError(f"there is an objective called {objective.name!r} already: give it another name")
            taken.add(objective.name)
        return replace(
            self,
            objectives=(*self.objectives, *objectives),
            keys=(*self.keys, *(objective.name for objective in objectives)),
            figures=(*self.figures, *objectives),
            sums=(*self.sums, *(None for _ in objectives)),
        )

    def check(self) -> None:
        """Raises Infeasible where it is known that no architecture keeps the limits, or all of them at once."""
        for limit in self.limits:
            limit.check()
        named = [(limit, sums) for limit in self.limits if (sums := limit.named()) is not None]
        found = conflict([sums for _, sums in named]) if len(named) > 1 else None
        if found is not None:
            broken = next(limit for limit, sums in named if sums is found.limits[0])
            nearest, value = found.nearest[0] if found.nearest else (arch.extreme(self.genes, largest=False), np.inf)
            raise Infeasible(broken.constraint, nearest, value, "", text=str(found))

    @property
    def genes(self) -> tuple[Gene, ...]:
        """Those of the space."""
        return self.additive["macs"].genes

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The limits as a search takes them."""
        return tuple(limit.constraint for limit in self.limits)

    def known(self) -> Known:
        """What an algorithm may find out by itself."""
        return Known.of(self.objectives, self.constraints, tuple(self.additive.values()), self.sums)

    def seeds(self) -> IntArray:
        """The cheapest architecture by each additive cost, the smallest and the largest, each once."""
        rows = [arch.extreme(self.genes, largest=False), arch.extreme(self.genes, largest=True)]
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
        figures = {objective.name: objective.shown(objective.costs(X)) for objective in self.figures}
        return [
            FrontPoint(
                architecture=architecture,
                genes=arch.to_json(run.space.genes, architecture),
                accuracy_validation=float(accuracies[i]),
                latency_predicted_ms=predictions[i].mean_ms,
                latency_std_ms=predictions[i].std_ms,
                macs=int(macs[i]),
                params=int(params[i]),
                figures={name: float(values[i]) for name, values in figures.items()},
            )
            for i, architecture in enumerate(architectures)
        ]


def problems_of(run: Run, latencies: Sequence[Latency]) -> tuple[Problem, ...]:
    """A problem a device, in the given order."""
    return tuple(Problem.of(run, each, [other for other in latencies if other is not each]) for each in latencies)


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
