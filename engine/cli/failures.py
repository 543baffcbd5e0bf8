"""What a person is told when something goes wrong, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec

import typer

from hwnas.devices import DeviceError
from hwnas.engine.cli.terminal import Terminal
from hwnas.engine.config import ConfigError
from hwnas.engine.dataset import DataError
from hwnas.engine.export import ExportError
from hwnas.engine.journal import JournalError
from hwnas.engine.objective import ObjectiveError
from hwnas.engine.run import RunError
from hwnas.engine.search import Infeasible
from hwnas.engine.training.checkpoint import CheckpointError
from hwnas.latency import BuildError, DriftError, TableError

FAILURE, USAGE, INFEASIBLE, UNREACHABLE, DRIFT, INTERRUPTED = 1, 2, 3, 4, 5, 130

CODES: dict[type[BaseException], int] = {
    ConfigError: USAGE,
    DataError: USAGE,
    Infeasible: INFEASIBLE,
    DeviceError: UNREACHABLE,
    DriftError: DRIFT,
    BuildError: FAILURE,
    TableError: FAILURE,
    JournalError: FAILURE,
    ObjectiveError: FAILURE,
    CheckpointError: FAILURE,
    RunError: FAILURE,
    ExportError: FAILURE,
    LookupError: FAILURE,
    OSError: FAILURE,
    FloatingPointError: FAILURE,
}

P = ParamSpec("P")


def told(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose expected failures become one line and an exit code; anything else keeps its traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.get("as_json", False))
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            _leave(INTERRUPTED, "interrupted: run the same command again to go on from here", as_json)
        except tuple(CODES) as error:
            code = next(code for kind, code in CODES.items() if isinstance(error, kind))
            _leave(code, _one_line(error), as_json, error)

    return run


def _leave(code: int, message: str, as_json: bool, error: BaseException | None = None) -> NoReturn:
    Terminal().say(f"hwnas: {message}", style="bold red")
    if as_json:
        answer: dict[str, Any] = {"error": message, "exit_code": code}
        if isinstance(error, Infeasible):
            answer |= {"nearest": list(error.nearest), "value": error.value, "limit": error.limit.upper}
        typer.echo(json.dumps(answer))
    raise typer.Exit(code)


def _one_line(error: BaseException) -> str:
    # a LookupError that is a KeyError shows its argument quoted
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
