"""Search by gradient through mixtures of a space's options: DARTS, GDAS, MSG-DAS's sub-graphs, RF-DARTS."""

from hwnas.engine.training.differentiable.search import DifferentiableConfig, DifferentiableSearch, SearchEpoch

__all__ = ["DifferentiableConfig", "DifferentiableSearch", "SearchEpoch"]
