"""A configuration's mistakes are one line each, with the value and the cure."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from hwnas.engine.config import ConfigError, parse_config, read_config
from hwnas.engine.objective import Quantity

TEXT = files("hwnas.engine").joinpath("digits.toml").read_text(encoding="utf-8")


def _mistake(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, source="run.toml")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("run.toml: ")
    return message


def test_the_example_is_the_demonstration() -> None:
    assert (Path(__file__).parents[2] / "examples" / "digits.toml").read_text() == TEXT


def test_every_packaged_configuration_is_valid() -> None:
    for name in ("digits.toml", "digits_fast.toml"):
        parse_config(files("hwnas.engine").joinpath(name).read_text(encoding="utf-8"), source=name)


def test_an_unknown_key_is_named_with_the_known_ones() -> None:
    message = _mistake(TEXT.replace("evaluations =", "evalutions ="))
    assert "unknown key search.evalutions" in message
    assert "evaluations" in message.partition("known here")[2]


def test_an_unknown_key_inside_a_stage_is_named() -> None:
    message = _mistake(TEXT.replace("se = true", "squeeze = true", 1))
    assert "unknown key space.stages.1.squeeze" in message
    assert "expansions" in message.partition("known here")[2]


def test_an_unknown_section_is_named() -> None:
    assert "unknown key serch" in _mistake(TEXT.replace("[search]", "[serch]"))


def test_a_value_out_of_range_is_named() -> None:
    assert "search.population = -3" in _mistake(TEXT.replace("population = 40", "population = -3"))


def test_an_unknown_space_is_named_with_the_known_ones() -> None:
    message = _mistake(TEXT.replace('name = "mobilenet_v3"', 'name = "mobilenet_v9"'))
    assert "mobilenet_v9" in message
    assert "(known: " in message
    assert " mobilenet_v3," in message


@pytest.mark.parametrize("line", ['algorithm = "nsga2"', 'sampler = "sandwich"'])
def test_an_unknown_plugin_is_named_with_the_known_ones(line: str) -> None:
    key, _, name = line.partition(" = ")
    message = _mistake(TEXT.replace(line, f'{key} = "best"'))
    assert f".{key} = 'best': choose from" in message
    assert name.strip('"') in message


def test_text_that_is_not_toml_is_named() -> None:
    assert "not TOML" in _mistake(TEXT + "\n[run")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml: cannot be read"):
        read_config(tmp_path / "none.toml")


# ---- objectives, limits, devices ------------------------------------------------------------------------------------


def _with(search: str = "", device: str = "") -> str:
    return TEXT.replace("[search]", f"[search]\n{search}") + f"\n[device]\n{device}\n"


@pytest.mark.parametrize(
    ("search", "complaint"),
    [
        (
            'objectives = ["accuracy", "speed"]',
            "search.objectives: 'speed': no objective is called 'speed': choose from",
        ),
        ('objectives = ["accuracy", "latency_ms@pixel9"]', "called 'pixel9' (known: host, pi)"),
        ('limits = { "latency_ms@pixel9:p99" = 3 }', "search.limits: 'latency_ms@pixel9:p99': no device of this run"),
        ('limits = { "macs@pi" = 3 }', "the same on every device"),
        ("limits = { accuracy = 0.9 }", "no upper limit that a search can keep"),
        ("limits = { macs = inf }", "search.limits.macs = inf"),
        ("confidence = 1.0", "search.confidence = 1.0"),
        ("objectives = []", "search.objectives is empty"),
        ('objectives = ["macs", "macs"]', "holds 'macs' twice"),
    ],
)
def test_a_quantity_that_cannot_be_is_named_with_those_that_can(search: str, complaint: str) -> None:
    assert complaint in _mistake(_with(search, 'devices = ["pi"]'))


def test_no_device_may_take_the_name_of_the_fleets_front() -> None:
    assert "names the front of all devices" in _mistake(_with(device='devices = ["fleet"]'))


def test_old_keys_and_limits_are_one_list_and_the_key_goes_first() -> None:
    section = parse_config(
        _with('max_macs = 5.0\nlimits = { macs = 9, "latency_ms@pi:p99" = 16 }', 'devices = ["pi"]'), source="x"
    ).search
    assert section.uppers == {Quantity("macs"): 5, Quantity("latency_ms", "pi", 99): 16}


def test_a_percentile_that_is_named_is_measured_long_enough() -> None:
    assert parse_config(_with(), source="x").protocol().runs == 100
    assert parse_config(_with('limits = { "latency_ms:p99" = 3 }'), source="x").protocol().runs == 200
    assert parse_config(_with('limits = { "latency_ms:p90" = 3 }'), source="x").protocol().runs == 100


def test_another_device_of_the_run_becomes_the_first_and_a_foreign_one_the_only() -> None:
    config = parse_config(_with(device='devices = ["pi", "host"]'), source="x")
    assert config.device.names == ("host", "pi")
    assert config.with_device("pi").device.names == ("pi", "host")
    assert config.with_device("watch").device.names == ("watch",)
