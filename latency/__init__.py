"""Block -> milliseconds on one device: tables, builders, predictors, checks."""

from hwnas.latency.block import Block, block_factory
from hwnas.latency.builder import (
    BuildReport,
    Committed,
    Compiled,
    Coverage,
    build,
    coverage,
)
from hwnas.latency.database import TableError
from hwnas.latency.predictors import (
    AdditivePredictor,
    LatencyPredictor,
    Prediction,
    Predictions,
    predictor_for,
    predictor_names,
)
from hwnas.latency.quality import PredictionQuality, split_noise_floor
from hwnas.latency.rows import BlockRow, DriftCheck, Evidence, NetworkRow, Quoted, Visit
from hwnas.latency.sentinels import Drift, DriftError, accept, check_drift, refuse_moved
from hwnas.latency.table import LatencyTable
from hwnas.latency.visits import BuildError
from hwnas.latency.work import Network

__all__ = [
    "AdditivePredictor",
    "Block",
    "BlockRow",
    "BuildError",
    "BuildReport",
    "Committed",
    "Compiled",
    "Coverage",
    "Drift",
    "DriftCheck",
    "DriftError",
    "Evidence",
    "LatencyPredictor",
    "LatencyTable",
    "Network",
    "NetworkRow",
    "Prediction",
    "PredictionQuality",
    "Predictions",
    "Quoted",
    "TableError",
    "Visit",
    "accept",
    "block_factory",
    "build",
    "check_drift",
    "coverage",
    "predictor_for",
    "predictor_names",
    "refuse_moved",
    "split_noise_floor",
]
