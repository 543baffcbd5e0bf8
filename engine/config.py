"""One TOML file describes a run; every mistake in it is found before anything starts."""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from hwnas.devices import Protocol
from hwnas.devices.measurement import TAIL_RUNS
from hwnas.devices.plugins import load_plugin, plugin_names
from hwnas.engine import algorithms, objectives, spaces, tasks
from hwnas.engine.objective import Quantity, fewest_runs
from hwnas.engine.training import criteria, samplers
from hwnas.engine.training.config import Plugin, TrainingConfig
from hwnas.latency import predictors


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line with the cure."""


Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunSection(_Section):
    """What the run is called and where its files go."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9._-]+$")
    folder: Path = Path("runs")  # the run's files lie in folder/name
    cache: Path = Path("runs/cache")  # compiled artefacts, shared by runs
    seed: NonNegativeInt = 0
    threads: PositiveInt | None = None  # of torch in training and evaluation; all cores if not given
    journal: str | None = None  # of evaluations and searches, a file or a URL, instead of one in the run's folder


class DataSection(_Section):
    """How the images are cut into splits, as shares of each class."""

    validation: float = Field(0.2, gt=0, lt=1)
    test: float = Field(0.3, gt=0, lt=1)
    limit: PositiveInt | None = None  # images in all


class DeviceSection(_Section):
    """Which device, and how networks are timed on it."""

    name: str = "host"
    devices: tuple[str, ...] = ()  # more of them, for which the same run finds fronts
    rounds: PositiveInt = 20  # at least
    max_rounds: NonNegativeInt = 40  # for what is not known to `precision` yet
    precision: PositiveFloat = 0.02  # half the 95 % interval of a median, relative to it
    repeats: PositiveInt = 5  # timed calls a round
    percentiles: bool = False  # measure long enough for a 99th percentile
    flush_mib: NonNegativeInt = 0  # written over the caches before each call; 0: caches are hot
    pinned: bool = True
    niceness: int = Field(-10, ge=-20, le=19)
    timeout_s: PositiveFloat = 60  # for one network in one round
    boards: PositiveInt | None = None  # of a farm to use at once; all if not given
    workers: PositiveInt | None = None  # compiling processes; all cores if not given
    compile_timeout_s: PositiveFloat = 180

    @property
    def names(self) -> tuple[str, ...]:
        """Every device of the run, each once."""
        return tuple(dict.fromkeys((self.name, *self.devices)))

    def protocol(self, seed: int, *, threads: int = 1, runs: int = 1) -> Protocol:
        """The measurement protocol on a device that runs `threads` threads, with so many runs at least."""
        fewest = ceil(max(runs, TAIL_RUNS if self.percentiles else 1) / self.repeats)
        return Protocol(
            rounds=max(self.rounds, fewest),
            max_rounds=self.max_rounds,
            precision=self.precision,
            repeats=self.repeats,
            threads=threads,
            flush_mib=self.flush_mib,
            pinned=self.pinned,
            niceness=self.niceness,
            timeout_s=self.timeout_s,
            seed=seed,
        )


class TableSection(_Section):
    """How the latency table is corrected and judged."""

    path: str | None = None  # of the database, a file or a URL, instead of one in the run's folder
    predictor: str = "corrected"
    miss: Literal["error", "measure", "estimate"] = "error"  # what to do about a block that was not measured
    budget_minutes: PositiveFloat | None = None  # of a build; what is left then is for the next one
    fit_networks: NonNegativeInt = 8  # whole networks measured to fit the correction
    check_networks: NonNegativeInt = 6  # others, to say how wrong it is


class SearchSection(_Section):
    """How the space is searched."""

    algorithm: str | None = None  # "surrogate" where an objective is expensive, else "nsga2"
    objectives: tuple[str, ...] = ("accuracy", "latency_ms")
    evaluations: PositiveInt = 400
    population: PositiveInt = 40
    calibration_images: PositiveInt = 256  # for BatchNorm
    kept_mib: NonNegativeFloat = 512  # of outputs kept for subnets that begin alike
    earlier: str | None = None  # journal, a file or a URL, whose accuracies of the same supernet are told first
    limits: dict[str, Limit] = {}  # upper, on any objective but accuracy: "latency_ms@pi:p99" = 16
    confidence: float = Field(0.95, ge=0.5, lt=1)  # that a limit on something predicted holds; 0.5: by the prediction
    max_latency_ms: PositiveFloat | None = None
    max_macs: PositiveFloat | None = None
    max_params: PositiveFloat | None = None

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The objectives, in order. Raises ValueError for text that names none."""
        return tuple(map(Quantity.parse, self.objectives))

    @property
    def uppers(self) -> dict[Quantity, float]:
        """Every limit; the keys max_... go before those of the same name in `limits`. Raises ValueError."""
        keys = {"latency_ms": self.max_latency_ms, "macs": self.max_macs, "params": self.max_params}
        named = {Quantity.parse(text): upper for text, upper in self.limits.items()}
        return {**named, **{Quantity(name): upper for name, upper in keys.items() if upper is not None}}


class VerifySection(_Section):
    """How many candidates are compiled whole and measured again."""

    candidates: PositiveInt = 24
    rounds: PositiveInt = 40
    repeats: PositiveInt = 5
    confidence: float = Field(0.95, ge=0.5, lt=1)  # that a difference in latency is more than noise
    other_images: bool = False  # a difference in accuracy has to hold on other images than those of the test split too
    replacements: NonNegativeInt = 4  # visits at most for candidates that stand in for those that broke a limit


class _File(_Section):
    """The sections of a file; [task] and [space] are read by the plugins they name."""

    run: RunSection = RunSection()
    task: dict[str, Any]
    data: DataSection = DataSection()
    space: dict[str, Any]
    training: TrainingConfig = TrainingConfig()
    device: DeviceSection = DeviceSection()
    table: TableSection = TableSection()
    search: SearchSection = SearchSection()
    verify: VerifySection = VerifySection()


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A configuration whose every value has been checked."""

    run: RunSection
    task: BaseModel
    data: DataSection
    space: BaseModel
    training: TrainingConfig
    device: DeviceSection
    table: TableSection
    search: SearchSection
    verify: VerifySection
    text: str  # of the file, kept with the run

    @property
    def folder(self) -> Path:
        """Where the run's files lie."""
        return self.run.folder / self.run.name

    @property
    def percentile(self) -> int | None:
        """The farthest percentile that an objective or a limit names."""
        named = (*self.search.quantities, *self.search.uppers)
        return max((each.percentile for each in named if each.percentile is not None), default=None)

    def with_device(self, name: str) -> RunConfig:
        """The run with `name` as its first device; one that it does not have becomes its only one."""
        known = self.device.names
        others = tuple(other for other in known if other != name) if name in known else ()
        return replace(self, device=self.device.model_copy(update={"name": name, "devices": others}))

    def protocol(self, *, threads: int = 1) -> Protocol:
        """How networks are timed: often enough for every percentile that the run names."""
        runs = 1 if self.percentile is None else fewest_runs(self.percentile)
        return self.device.protocol(self.run.seed, threads=threads, runs=runs)

    def check_quantities(self, source: str) -> None:
        """Raises ConfigError for objectives and limits that this run cannot have; `source` names it."""
        for where, texts in (("objectives", self.search.objectives), ("limits", self.search.limits)):
            for text in texts:
                try:
                    self._check_quantity(text, limited=where == "limits")
                except (ValueError, LookupError) as error:
                    raise ConfigError(f"{source}: search.{where}: {text!r}: {error}") from error
        if not self.search.objectives:
            raise ConfigError(
                f'{source}: search.objectives is empty: name one at least, e.g. ["accuracy", "latency_ms"]'
            )
        if len(self.device.names) > 1 and "fleet" in self.device.names:
            raise ConfigError(f"{source}: device.devices: 'fleet' names the front of all devices: rename that device")
        twice = [each for each, n in Counter(map(str, self.search.quantities)).items() if n > 1]
        if twice:
            raise ConfigError(f"{source}: search.objectives holds {twice[0]!r} twice: remove one")

    def _check_quantity(self, text: str, *, limited: bool) -> None:
        quantity = Quantity.parse(text)
        module = objectives.find(quantity)
        if limited and not getattr(module, "LIMITED", True):
            raise ValueError("it has no upper limit that a search can keep: choose by `hwnas front pick` instead")
        if quantity.device is not None and quantity.device not in self.device.names:
            raise LookupError(
                f"no device of this run is called {quantity.device!r} (known: {', '.join(self.device.names)}): correct "
                "the name, or add it to [device] devices"
            )


def read_config(path: Path) -> RunConfig:
    """The configuration in a TOML file. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}): give a TOML file, e.g. examples/digits.toml") from error
    return parse_config(text, source=str(path), folder=path.parent)


def parse_config(text: str, *, source: str, folder: Path = Path()) -> RunConfig:
    """The configuration in TOML text; `source` names it in errors, a plugin's file is relative to `folder`.

    Raises ConfigError.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not TOML ({error}): mend that line") from error
    file = _validated(_File, data, source, ())
    for key, name, package in (
        ("table.predictor", file.table.predictor, predictors),
        ("search.algorithm", file.search.algorithm, algorithms),
    ):
        if name is not None and name not in plugin_names(package):
            raise ConfigError(f"{source}: {key} = {name!r}: choose from {', '.join(plugin_names(package))}")
    _check_plugin(file.training.sampler, samplers, source, "training.sampler")
    for term in file.training.criterion:
        _check_plugin(term, criteria, source, "training.criterion")
    config = RunConfig(
        run=file.run,
        task=_plugin_config(tasks, file.task, source, "task", folder),
        data=file.data,
        space=_plugin_config(spaces, file.space, source, "space", folder),
        training=file.training,
        device=file.device,
        table=file.table,
        search=file.search,
        verify=file.verify,
        text=text,
    )
    config.check_quantities(source)
    return config


def _check_plugin(chosen: Plugin, package: ModuleType, source: str, key: str) -> None:
    """Raises ConfigError for a name that the package does not have and for options that the plugin does not take."""
    if chosen.name not in plugin_names(package):
        raise ConfigError(f"{source}: {key} = {chosen.name!r}: choose from {', '.join(plugin_names(package))}")
    _validated(load_plugin(package, chosen.name).Config, chosen.options, source, tuple(key.split(".")))


def _plugin_config(package: ModuleType, section: dict[str, Any], source: str, name: str, folder: Path) -> BaseModel:
    if not isinstance(section.get("name"), str):
        raise ConfigError(f'{source}: [{name}] has no name: write e.g. name = "{_EXAMPLES[name]}"')
    if section["name"].endswith(".py"):  # a file of the user's own
        section = {**section, "name": str((folder / section["name"]).resolve())}
    try:
        plugin = load_plugin(package, section["name"])
    except LookupError as error:
        raise ConfigError(f"{source}: [{name}] {error}") from error
    model: type[BaseModel] | None = getattr(plugin, "Config", None)
    if model is None:
        raise ConfigError(f"{source}: [{name}] {section['name']} has no Config: write one, see docs/own-space.md")
    return _validated(model, section, source, (name,))


_EXAMPLES = {"task": "digits", "space": "mobilenet_v3"}


Model = TypeVar("Model", bound=BaseModel)


def _validated(model: type[Model], data: dict[str, Any], source: str, where: tuple[str, ...]) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_mistake(model, error, where)}") from error


def _first_mistake(model: type[BaseModel], error: ValidationError, where: tuple[str, ...]) -> str:
    mistake = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in (*where, *mistake["loc"])) or "the file"
    if mistake["type"] == "extra_forbidden":
        known = _keys(model, mistake["loc"][:-1])
        return f"unknown key {path}: remove it, or correct its name; known here: {', '.join(known)}"
    if mistake["type"] == "missing":
        return f"{path} is missing: add it"
    return f"{path} = {mistake['input']!r}: {mistake['msg']}"


def _keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Keys allowed at a place inside a model."""
    for part in loc:
        if isinstance(part, int):
            continue
        inner = model.model_fields[part].annotation
        for candidate in (inner, *getattr(inner, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return sorted(model.model_fields)
