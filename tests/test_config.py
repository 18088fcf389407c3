"""What a configuration refuses, and what it counts."""

import dataclasses
import json
import math
import re

import pytest

from hrnn_opt import RuleConfig
from hrnn_opt.rule.config import WITHOUT_LENGTH, WITHOUT_TENSOR_RNN

FIELDS = dataclasses.fields(RuleConfig)
SIZES = [field.name for field in FIELDS if field.type is int]
SWITCHES = [field.name for field in FIELDS if field.type is bool]
NUMBERS = {field.name for field in FIELDS if field.type is float}

NOTHING = dict.fromkeys(SWITCHES, False)
NO_NUMBERS = ("0", "1", None, True, math.nan)


def test_fields_are_sizes_switches_and_numbers():
    assert len(SIZES) == 4
    assert len(SWITCHES) == 12
    assert len(NUMBERS) == 10
    assert len(FIELDS) == 26


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -1, 2.0, "2", None, True])
def test_wrong_size_is_refused(name, value):
    text = (
        f"Argument `{name}` must be an integer of at least 1. "
        f"Received: {name}={value!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        RuleConfig(**{name: value})


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", [0, 1, "True", None])
def test_wrong_switch_is_refused(name, value):
    text = (
        f"Argument `{name}` must be True or False. Received: {name}={value!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        RuleConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "interval", "value"),
    [
        *(("negligible", "[0, 1)", v) for v in (-1e-5, 1.0, 2, *NO_NUMBERS)),
        *(
            (name, "[0, inf)", v)
            for name in (
                "tensor_spread",
                "tensor_growth",
                "tensor_decay",
                "step_spread",
                "wide_inputs",
                "basis_length",
            )
            for v in (-1e-5, float("inf"), *NO_NUMBERS)
        ),
        *(
            ("catch_up", "[1, inf), or 0", v)
            for v in (-1.0, 0.5, float("inf"), *NO_NUMBERS)
        ),
        *(
            ("eigenbasis", "[2, inf), or 0", v)
            for v in (-1.0, 1.0, float("inf"), *NO_NUMBERS)
        ),
        *(("length_unit", "(0, 1]", v) for v in (0, -0.1, 1.01, *NO_NUMBERS)),
    ],
)
def test_wrong_share_is_refused(name, interval, value):
    text = (
        f"Argument `{name}` must be a number in {interval}. "
        f"Received: {name}={value!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        RuleConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "needs", "fields"),
    [
        *(
            (
                name,
                "tensor_rnn=True",
                WITHOUT_TENSOR_RNN | {name: True, "tensor_step": False},
            )
            for name in ("global_rnn", "alignment", "age")
        ),
        (
            "tensor_step",
            "tensor_rnn=True",
            WITHOUT_TENSOR_RNN | {"tensor_step": True},
        ),
        (
            "tensor_step",
            "direction_length=True",
            WITHOUT_LENGTH | {"tensor_step": True},
        ),
        (
            "relative_learning_rate",
            "direction_length=True",
            WITHOUT_LENGTH | {"relative_learning_rate": True},
        ),
        ("relative_log_magnitudes", "timescales >= 2", {"timescales": 1}),
        (
            "tensor_spread",
            "relative_learning_rate=True",
            {"relative_learning_rate": False, "tensor_spread": 1.0},
        ),
        (
            "tensor_growth",
            "relative_learning_rate=True",
            {"relative_learning_rate": False, "tensor_growth": 1.0},
        ),
        (
            "tensor_decay",
            "tensor_growth > 0",
            {"tensor_growth": 0.0, "tensor_decay": 0.2},
        ),
        (
            "step_spread",
            "direction_length=True",
            WITHOUT_LENGTH | {"step_spread": 1.0},
        ),
        (
            "basis_length",
            "eigenbasis > 0",
            {"eigenbasis": 0.0, "tensor_growth": 1.0, "basis_length": 1.0},
        ),
        (
            "basis_length",
            "tensor_growth > 0",
            {
                "attention": False,
                "eigenbasis": 9.0,
                "tensor_growth": 0.0,
                "basis_length": 1.0,
            },
        ),
        ("catch_up", "lazy=True", {"lazy": False, "catch_up": 2.0}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_senseless_combination_is_refused(name, needs, fields):
    text = f"Argument `{name}` needs {needs} "
    other = needs.split()[0].split("=")[0]
    value = fields[other]
    received = rf"Received: RuleConfig\(.*\b{other}={value}\b"
    with pytest.raises(ValueError, match=re.escape(text) + ".*" + received):
        RuleConfig(**fields)
    RuleConfig(**fields | {name: type(fields.get(name, False))()})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"param_units": 5, "attention": False},
        NOTHING,
        {"negligible": 1e-5},
        {"tensor_spread": 2.5, "step_spread": 0.5},
        {"tensor_growth": 0.1, "tensor_decay": 0.2, "catch_up": 300},
        {"length_unit": 0.05, "wide_inputs": 256},
    ],
    ids=[
        "default",
        "some",
        "nothing",
        "negligible",
        "spread",
        "growth",
        "unit",
    ],
)
def test_round_trip_by_json(fields):
    config = RuleConfig(**fields)
    stored = json.loads(json.dumps(config.to_dict()))
    # Files that are older than the shares do not contain them.
    assert set(stored) - NUMBERS == set(SIZES + SWITCHES)
    assert set(stored) & NUMBERS == set(fields) & NUMBERS
    assert RuleConfig.from_dict(stored) == config


def test_missing_fields_are_defaults():
    assert RuleConfig.from_dict({}) == RuleConfig()


def test_unknown_fields_are_refused():
    fields = RuleConfig().to_dict() | {"momentum": 0.9, "colour": "red"}
    with pytest.raises(ValueError, match=r"unknown: \['colour', 'momentum'\]"):
        RuleConfig.from_dict(fields)


def test_stored_fields_are_checked():
    with pytest.raises(ValueError, match="Received: timescales=0"):
        RuleConfig.from_dict({"timescales": 0})


def test_config_is_frozen_and_can_be_a_key():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RuleConfig().timescales = 3
    assert len({RuleConfig(), RuleConfig(), RuleConfig(timescales=3)}) == 2


@pytest.mark.parametrize(
    ("fields", "inputs", "directions", "state_rows"),
    [
        ({}, 9, 2, 19),
        ({"timescales": 2}, 5, 2, 15),
        ({"param_units": 5}, 9, 2, 14),
        ({"tensor_units": 3, "global_units": 3}, 9, 2, 19),
        ({"attention": False}, 9, 1, 19),
        ({"relative_log_magnitudes": False}, 5, 2, 19),
        ({"relative_learning_rate": False}, 8, 2, 18),
        (NOTHING, 4, 1, 18),
    ],
    ids=str,
)
def test_counts(fields, inputs, directions, state_rows):
    config = RuleConfig(**fields)
    assert config.inputs == inputs
    assert config.directions == directions
    assert config.state_rows == state_rows


def test_default_needs_twenty_floats_a_parameter():
    offset = 1
    assert RuleConfig().state_rows + offset == 20
