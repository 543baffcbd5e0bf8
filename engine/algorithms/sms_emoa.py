"""SMS-EMOA: who adds least hypervolume leaves."""

from __future__ import annotations

from typing import Any

from pymoo.algorithms.moo.sms import SMSEMOA

from hwnas.engine.algorithms._pymoo import through_pymoo


def _build(objectives: int, population: int) -> Any:  # noqa: ARG001
    """SMS-EMOA (Beume, Naujoks, Emmerich, EJOR 181(3), 2007), a whole population of offspring at a time.

    Time grows steeply with the objectives: every row that leaves asks for all contributions anew.
    """
    return SMSEMOA(pop_size=population)


algorithm = through_pymoo(_build)
