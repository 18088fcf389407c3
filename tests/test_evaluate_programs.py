"""From a run to weights and to tables, by the commands that users run."""

import json
import shutil

import numpy as np
import pytest

from hrnn_opt import HierarchicalRNN, weights
from tests.programs import refused, succeeded
from training.evaluation import candidates

pytestmark = [pytest.mark.slow, pytest.mark.required]


def program(module, *arguments):
    """Runs a program; returns what it printed."""
    return succeeded(f"training.{module}", *arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three meta-iterations, with its evaluation."""
    folder = tmp_path_factory.mktemp("run")
    program(
        "meta_train", f"--train_dir={folder / 'run'}", "--rows=log_sum_exp",
        "--max_iterations=3", "--work=40", "--segment=10", "--mean_steps=10",
    )  # fmt: skip
    return folder / "run"


def test_model_card(run, tmp_path):
    (run.parent / "table.txt").write_text("a table of results")
    printed = program(
        "model_card", f"--train_dir={run}", "--name=three", f"--out={tmp_path}",
        f"--evaluation={run.parent / 'table.txt'}",
    )  # fmt: skip
    loaded = weights.load(tmp_path / "three.npz")
    assert loaded.sha256 in printed
    assert loaded.provenance["trained"] is True
    assert loaded.provenance["meta_iterations"] == 3
    with np.load(run / "small.npz") as small:
        np.testing.assert_array_equal(loaded.vector, small["state/average"])
        assert loaded.provenance["inner_steps"] == small["state/inner_steps"]
    card = (tmp_path / "three.md").read_text()
    assert "a table of results" in card and "| meta-iterations | 3 |" in card
    assert "--ensemble=paper" not in card  # It is the default.
    assert "--work=40" in card and "from meta-iteration 0" in card
    assert (tmp_path / "three.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "three-run.npz").stat().st_size < 2e6
    HierarchicalRNN(weights=tmp_path / "three.npz")


def test_the_card_of_a_checkpoint_without_curves(run, tmp_path):
    alone, out = tmp_path / "alone", tmp_path / "out"
    alone.mkdir()
    shutil.copyfile(run / "small.npz", alone / "small.npz")
    flags = f"--train_dir={alone}", "--name=three", f"--out={out}"
    said = refused("training.model_card", *flags)
    assert "must have the run's meta_train.csv" in said and not out.exists()
    out.mkdir()
    (out / "three.png").write_bytes(b"a picture")
    program("model_card", *flags)
    assert (out / "three.png").read_bytes() == b"a picture"
    assert (out / "three.md").exists()


def test_first_step(run):
    out = run.parent / "unit" / "small.npz"
    printed = program(
        "first_step", f"--weights={run / 'small.npz'}", f"--out={out}"
    )
    found = json.loads(printed.splitlines()[-1])
    assert found["first_step_with_unit"] == pytest.approx(
        found["first_step"] * found["length_unit"], rel=1e-3
    )
    rule, _ = candidates.load(str(out))
    assert rule.config.length_unit == found["length_unit"]


def test_corpus(run):
    printed = program(
        "evaluate", "corpus", f"--weights={run / 'small.npz'}",
        "--only=log_sum_exp", "--steps=50", "--instances=4",
    )  # fmt: skip
    figures = json.loads(printed.splitlines()[-1])
    assert figures["rows"] == 1
    for name, won in figures.items():
        if name.startswith("wins_"):
            assert len(won) == 5 and set(won) <= {0, 1}


def test_networks(run):
    printed = program(
        "evaluate", "networks", f"--weights={run / 'small.npz'}", "--nobest",
        "--only=diabetes", "--steps=100", "--steps=200", "--seeds=1",
    )  # fmt: skip
    figures = json.loads(printed.splitlines()[-1])
    for steps in (100, 200):
        assert 0 < figures[f"to_adam_{steps}"] < 1e3
        # Without other rates, Adam at 2e-3 is the best.
        best = figures[f"to_best_adam_{steps}"]
        assert best == figures[f"to_adam_{steps}"]
