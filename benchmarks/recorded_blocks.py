"""Latencies of MobileNetV3 blocks that hwnas timed once, kept for regressors to be judged on."""

from __future__ import annotations

import json
from pathlib import Path

import hwnas.engine.spaces.mobilenet_v3.blocks  # noqa: F401  # registers the factories
from hwnas.latency import Block

PATH = Path(__file__).parents[1] / "tests" / "latency" / "recorded_blocks.json"


def recorded_blocks(path: Path = PATH) -> tuple[dict[Block, float], str]:
    """Block -> ms, and what it was measured on."""
    data = json.loads(path.read_text(encoding="utf-8"))
    latencies_ms = {Block.from_json(row["block"]): float(row["latency_ms"]) for row in data["blocks"]}
    return latencies_ms, f"{data['soc']}, {data['runtime']}, {data['date']}: {data['what']}"
