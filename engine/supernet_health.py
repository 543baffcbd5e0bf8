"""The diagnostics of a run's supernet, together."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import Architecture, FloatArray, IntArray
from hwnas.engine.dataset import resize
from hwnas.engine.diagnostics import Drift, batchnorm_drift, by_distance, interference, pairs_at, recency
from hwnas.engine.evaluation.complexity import block_macs, block_params
from hwnas.engine.ranking import RankingReport, ranking_report
from hwnas.engine.run import Run
from hwnas.engine.training import checkpoint as checkpoints
from hwnas.engine.training.standalone import accuracy_alone

DISTANCES = (1, 2, 3, 5, 8)
CALIBRATION = 256  # images


def supernet_health(run: Run, *, architectures: int, pairs: int, standalone: int, seed: int) -> dict[str, Any]:
    """Spread and recency of scores, drift of BatchNorm, interference by distance; and truth where it is asked for.

    `architectures` are drawn for scores and drift, `pairs` at each distance for interference; `standalone` of the
    architectures are trained by themselves, with the run's own schedule, for a ranking report. Raises CheckpointError
    where the supernet is not trained.
    """
    rng = np.random.default_rng(seed)
    X = np.unique(arch.sample(run.space.genes, architectures, rng), axis=0)
    accuracies = 1 - run.evaluator.errors(X)
    drifts = [_drift(run, arch.to_architecture(row)) for row in X[: min(len(X), 10)]]
    known = [drift for drift in drifts if drift is not None]
    last = last_trained(run)
    found: dict[str, Any] = {
        "architectures": len(X),
        "accuracy": {"lowest": float(accuracies.min()), "highest": float(accuracies.max())},
        "recency": recency(accuracies, X, last) if last else None,
        "batchnorm_drift": {"mean": _mean(d.mean for d in known), "scale": _mean(d.scale for d in known)},
        "cosine_by_distance": _cosines(run, pairs, rng),
        "standalone": None,
    }
    if standalone:
        chosen = X[rng.permutation(len(X))[:standalone]]
        found["standalone"] = _figures(_truth(run, chosen, accuracies, X))
    return found


def last_trained(run: Run) -> tuple[Architecture, ...]:
    """The architectures of the training's last step; none for a supernet that was not trained here."""
    if run.config.training.epochs == 0:
        return ()
    trainer = run.trainer()
    sampler = trainer.sampler()
    kept = checkpoints.load(run.supernet_folder)
    if kept is not None:
        sampler.restore(kept.remembered.get("sampler", {}))
    return tuple(path.architecture for path in sampler.paths(trainer.steps * run.config.training.epochs - 1))


def _cosines(run: Run, pairs: int, rng: np.random.Generator) -> dict[int, float]:
    batch = run.data.train.head(run.config.training.batch)
    drawn: list[tuple[Architecture, Architecture]] = []
    for distance in DISTANCES:
        try:
            drawn += pairs_at(run.space.genes, distance, pairs, rng)
        except ValueError:  # the space has no networks so far apart
            break
    return by_distance(interference(run.supernet, run.space, drawn, batch.images, batch.labels))


def _drift(run: Run, architecture: Architecture) -> Drift | None:
    resolution = run.space.input_shape(architecture)[-1]
    images = resize(run.data.train.head(CALIBRATION).images, resolution)
    return batchnorm_drift(run.supernet.subnet(architecture), [images])  # type: ignore[operator]  # a Supernet


def _truth(run: Run, chosen: IntArray, accuracies: FloatArray, X: IntArray) -> RankingReport:
    training = run.config.training
    truth = [
        accuracy_alone(run.space, arch.to_architecture(row), run.data, training, seed=training.seed) for row in chosen
    ]
    score = dict(zip(map(arch.to_architecture, X), accuracies, strict=True))
    return ranking_report(
        np.array([score[arch.to_architecture(row)] for row in chosen]),
        np.array(truth),
        macs=AdditiveCost.of(run.space, block_macs)(chosen),
        params=AdditiveCost.of(run.space, block_params)(chosen),
        rng=np.random.default_rng(0),
    )


def _figures(report: RankingReport) -> dict[str, Any]:
    def values(figures: Any) -> dict[str, list[float]]:
        return {name: [each.value, each.low, each.high] for name, each in figures.items()}

    return {
        "architectures": report.architectures,
        "inherited": values(report.figures),
        **{name: values(figures) for name, figures in report.baselines.items()},
    }


def _mean(values: Any) -> float | None:
    found = list(values)
    return float(np.mean(found)) if found else None
