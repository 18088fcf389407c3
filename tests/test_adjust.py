"""`training.adjust`: a few meta-parameters of a run, changed by hand."""

import json

import numpy as np
import pytest

from hrnn_opt.rule import meta_parameters
from hrnn_opt.rule.config import RuleConfig
from tests.programs import refused, succeeded
from training.common import checkpoints, stages
from training.engine.config import MetaConfig
from training.evaluation.adjustment import VECTORS, adjust
from training.evaluation.length_unit import with_unit
from training.rules.hierarchical import Hierarchical

CONFIG = RuleConfig(attention=False)
STAGE = {"from": 0, "rule_version": 3, "settings": {"clip": 2.0}}
CHANGES = {"step_bias": 0.25}, {"step_bias": 2.0, "signal_kernel": 0.5}


def checkpoint():
    vector = Hierarchical(CONFIG).initial_meta(0) + np.float32(0.01)
    arrays = {
        "state/vector": vector,
        "state/average": vector + np.float32(0.5),
        "state/iteration": np.asarray(7),
        "state/other": np.arange(3.0),
    }
    info = {
        "rule_config": CONFIG.to_dict(),
        "config": json.loads(MetaConfig().to_json()),
        "stages": [STAGE],
    }
    return arrays, info


def by_name(vector):
    found, start = {}, 0
    for name, shape in meta_parameters.shapes(CONFIG).items():
        stop = start + int(np.prod(shape))
        found[name] = vector[start:stop]
        start = stop
    return found


def test_only_what_is_named_changes():
    given, info = checkpoint()
    arrays, changed = adjust(given, info, *CHANGES)
    for vector in VECTORS:
        assert arrays[vector].dtype == np.float32
        before, after = by_name(given[vector]), by_name(arrays[vector])
        for name, value in before.items():
            if name == "step_bias":
                value = 2 * value + 0.25
            elif name == "signal_kernel":
                value = value / 2
            np.testing.assert_allclose(after[name], value, 1e-6, err_msg=name)
    assert arrays["state/other"] is given["state/other"]
    assert info["stages"] == [STAGE]
    told = {"add": CHANGES[0], "multiply": CHANGES[1]}
    assert changed["stages"] == [STAGE, STAGE | {"from": 7, "adjusted": told}]


def test_a_number_of_the_rule():
    arrays, changed = adjust(*checkpoint(), {}, {}, {"tensor_spread": 0.5})
    for vector in VECTORS:
        np.testing.assert_array_equal(arrays[vector], checkpoint()[0][vector])
    assert RuleConfig.from_dict(changed["rule_config"]).tensor_spread == 0.5
    assert changed["config"]["tensor_spread"] == 0.5
    stage = changed["stages"][-1]
    assert stage["settings"] == {"clip": 2.0, "tensor_spread": 0.5}
    assert stages.commands(changed["stages"])[-1].endswith(
        "--rule=tensor_spread=0.5"
    )
    for rule, words in (
        ({"lazy": 1.0}, "Received: rule='lazy'"),
        ({"tensor_spread": -1.0}, "must be a number in"),
    ):
        with pytest.raises(ValueError, match=words):
            adjust(*checkpoint(), {}, {}, rule)


def test_the_card_tells_of_it_and_of_what_follows():
    arrays, info = adjust(*checkpoint(), *CHANGES)
    first, second, third = stages.commands(with_unit(arrays, info)["stages"])
    assert "training.meta_train" in first and "training.meta_train" in third
    assert second == (
        "python -m training.adjust --weights=small.npz --out=small.npz "
        "--add=step_bias=0.25 --multiply=step_bias=2.0 "
        "--multiply=signal_kernel=0.5"
    )
    assert "--length_unit=" in third


def test_a_changed_checkpoint_is_written_and_read(tmp_path):
    source, out = tmp_path / "small.npz", tmp_path / "new" / "adjusted.npz"
    checkpoints.write(source, *checkpoint())
    said = succeeded(
        "training.adjust", f"--weights={source}", f"--out={out}",
        "--add=step_bias=0.25", "--multiply=step_bias=2",
        "--multiply=signal_kernel=0.5", "--rule=tensor_spread=0.5",
    )  # fmt: skip
    assert json.loads(said) == {
        "add": CHANGES[0],
        "multiply": CHANGES[1],
        "rule": {"tensor_spread": 0.5},
    }
    wanted, info = adjust(*checkpoint(), *CHANGES, {"tensor_spread": 0.5})
    arrays, found = checkpoints.read(out)
    assert found["stages"] == info["stages"]
    for name, value in wanted.items():
        np.testing.assert_array_equal(arrays[name], value)


def test_what_is_wrong_is_named(tmp_path):
    given = checkpoint()
    for add, multiply, argument in (
        ({"step_bais": 1.0}, {}, "add='step_bais'"),
        ({}, {"kernel": 1.0}, "multiply='kernel'"),
    ):
        with pytest.raises(ValueError, match=f"Received: {argument}"):
            adjust(*given, add, multiply)
    source, out = tmp_path / "small.npz", tmp_path / "adjusted.npz"
    checkpoints.write(source, *given)
    for add, words in (
        ("step_bais=1", "The nearest are ['step_bias'"),
        ("step_bias", "Received: --add=step_bias\n"),
        ("step_bias=x", "Received: --add=step_bias=x"),
        ("step_bias=nan", "Received: --add=step_bias=nan"),
    ):
        said = refused(
            "training.adjust", f"--weights={source}", f"--out={out}",
            f"--add={add}",
        )  # fmt: skip
        assert words in said and not out.exists()
