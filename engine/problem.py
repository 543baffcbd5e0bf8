"""What a run searches for on a device: objectives, limits and sums, from its configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms import Known
from hwnas.engine.architecture import Architecture, FloatArray, Gene, IntArray, SearchSpace
from hwnas.engine.config import ConfigError
from hwnas.engine.conflict import NamedLimit, conflict
from hwnas.engine.device_costs import Latency
from hwnas.engine.evaluation.complexity import block_macs, block_params
from hwnas.engine.front import FrontPoint
from hwnas.engine.objective import Constraint, Objective, Quantity
from hwnas.engine.objectives import Estimate, Predicted, estimate, find
from hwnas.engine.run import Run
from hwnas.engine.search import Infeasible
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
