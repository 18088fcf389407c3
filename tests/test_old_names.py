"""Files and flags of earlier versions."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from tests.programs import refused
from training.common import checkpoints, old_names
from training.engine.config import MetaConfig
from training.runs import folder

OLD = {"foresight": 0.5, "disturbed": 0.25, "revival": 0.2, "calm": 0.02}
NEW = {
    "horizon_discount": 0.5,
    "step_length_perturbation": 0.25,
    "vanishing_step_penalty": 0.2,
    "long_step_penalty": 0.02,
}
CAMPAIGNS = pathlib.Path(__file__).parents[1] / "training" / "campaigns"


def test_old_names_are_gone_and_new_ones_are_settings():
    names = {field.name for field in dataclasses.fields(MetaConfig)}
    assert not names & set(old_names.SETTINGS)
    assert set(old_names.SETTINGS.values()) <= names


def test_a_folder_of_an_earlier_version_goes_on(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"seed": 3} | OLD))
    expected = MetaConfig(seed=3, **NEW)
    assert folder.settings(tmp_path, {"long_step_penalty": 0.02}) == expected
    with pytest.raises(ValueError, match="--long_step_penalty must be 0.02"):
        folder.settings(tmp_path, {"long_step_penalty": 0.1})


def test_a_checkpoint_of_an_earlier_version(tmp_path):
    path = tmp_path / "small.npz"
    stages = [{"from": 0, "settings": {"calm": 0.1}}, {"from": 9} | {
        "settings": OLD | {"seed": 3}
    }]  # fmt: skip
    info = {"config": OLD, "stages": stages, "seconds": 1.5}
    np.savez(
        path,
        **{"state/vector": np.ones(3), "tallies/late": np.asarray(4)},
        info=np.array(json.dumps(info)),
    )
    arrays, info = checkpoints.read(path)
    assert set(arrays) == {"state/vector", "counters/late"}
    assert arrays["counters/late"] == 4
    assert info == {
        "config": NEW,
        "seconds": 1.5,
        "stages": [
            {"from": 0, "settings": {"long_step_penalty": 0.1}},
            {"from": 9, "settings": NEW | {"seed": 3}},
        ],
    }


@pytest.mark.parametrize("name", ["lite", "paper", "wide"])
def test_runs_that_were_shipped_are_read(name):
    _, info = checkpoints.read(CAMPAIGNS / f"{name}-run.npz")
    config = MetaConfig(**info["config"])
    assert config.vanishing_step_penalty == 0.2
    assert config.horizon_discount == 1.0
    assert all(MetaConfig(**stage["settings"]) for stage in info["stages"])


def test_an_old_flag_is_refused_and_the_new_one_named(tmp_path):
    said = refused(
        "training.meta_train", f"--train_dir={tmp_path / 'new'}", "--calm=0.1"
    )
    assert "Use --long_step_penalty instead of --calm" in said
    assert not (tmp_path / "new").exists()
