"""Each figure by its command, at small size, on real files."""

import csv
import json
import signal
import time

import numpy as np
import pytest

from problems import pictures
from tests import tiny_pictures
from tests.programs import Program, refused, succeeded
from training.figures import FIGURES, captions_beyond

slow = pytest.mark.slow
PROGRAM = "training.figures"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_pictures.prepare(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("figures")


def figure(out, name, *flags):
    """Runs a figure; returns its numbers and the lines of its CSV."""
    printed = succeeded(PROGRAM, name, f"--out={out}", *flags)
    numbers = json.loads(printed.splitlines()[-1])
    stem = FIGURES[name]
    assert (out / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / f"{stem}.json").read_text()) == numbers
    with (out / f"{stem}.csv").open(newline="") as file:
        return numbers, list(csv.DictReader(file))


@slow
def test_figure_2(out):
    numbers, rows = figure(out, "2", "--steps=50")
    assert sum(int(row["problems"]) for row in rows) >= 49
    assert numbers["problems"] == 50


@slow
def test_figure_4(out):
    numbers, rows = figure(
        out, "4", "--only=log_sum_exp", "--steps=50", "--seeds=3"
    )
    assert list(numbers["final"]) == ["log_sum_exp"]
    assert len(rows) == 3 * 5


@slow
def test_figure_5(out):
    numbers, rows = figure(out, "5", "--steps=200", "--seeds=3")
    assert len(rows) == 3 * 5 * 20
    # A rate of 1e-5 hardly changes anything for Adam in 200 steps, in which
    # the learned optimizer finds its step length from any rate.
    spread = numbers["decades_between_rates"]
    assert spread["HierarchicalRNN"] < spread["Adam"]
    own, adam = (numbers["final"][x] for x in ("HierarchicalRNN", "Adam"))
    assert np.all(np.less(own, adam))


@slow
def test_figure_7(out):
    numbers, rows = figure(out, "7", "--steps=3")
    assert len(rows) == 3 * 6
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert len(numbers["ratio_to_adam"]) == 6


@slow
def test_figure_8a_goes_on_where_it_was(out, data):
    flags = [f"--data_dir={data}", "--steps=50", "--batch=32", "--pictures=128"]
    numbers, rows = figure(out, "8a", *flags, "--seeds=1")
    assert len(numbers["final"]) == 4 and len(rows) == 4 * 3 * 3
    # All optimizers start from the same weights.
    for task in numbers["final"]:
        first = [r for r in rows if r["task"] == task and r["step"] == "0"]
        assert len(first) == 3 and len({row["loss"] for row in first}) == 1
    jobs = (out / "jobs.csv").read_text().splitlines()
    again, _ = figure(out, "8a", *flags, "--seeds=1")
    assert again == numbers
    assert (out / "jobs.csv").read_text().splitlines() == jobs
    figure(out, "8a", *flags, "--seeds=2", "--only=MNIST MLP")
    more = (out / "jobs.csv").read_text().splitlines()
    assert more[: len(jobs)] == jobs
    # Only the second seed of MNIST MLP.
    assert len(more) == len(jobs) + 3


@slow
def test_wall_clock(out, data):
    numbers, rows = figure(
        out, "wall_clock", f"--data_dir={data}", "--steps=40",
        "--pictures=32", "--batch=32", "--only=MLP",
    )  # fmt: skip
    (row,) = numbers["rows"]
    assert [row["network"], row["batch"]] == ["MNIST MLP", 32]
    assert len(rows) == 1 and rows[0]["network"] == "MNIST MLP"
    # The best Adam reaches its own last loss in the end.
    assert 0 < row["adam_steps"] <= 40 and row["adam_s"] > 0
    assert row["all_rates_s"] > row["adam_s"]
    assert (row["own_steps"] is None) == (row["time_ratio"] is None)
    text, behind = captions_beyond.wall_clock(numbers)
    assert "| MNIST MLP | 32 |" in text
    lost = row["time_ratio"] is None or row["time_ratio"] > 1
    assert len(behind) == lost


@slow
def test_profiles_of_an_interrupted_run(tmp_path):
    """It is killed while it writes finished jobs, and continued."""
    flags = ["--only=digits MLP", "--steps=20", "--seeds=1", "--pictures=200"]
    jobs = tmp_path / "jobs.csv"
    with Program(PROGRAM, "profiles", f"--out={tmp_path}", *flags) as program:
        end = time.monotonic() + 120
        while time.monotonic() < end and not (
            jobs.exists() and jobs.read_text().count("\n") >= 3
        ):
            time.sleep(0.05)
        program.signal(signal.SIGKILL)
        assert program.wait().returncode == -signal.SIGKILL
    kept = jobs.read_text().splitlines()
    assert 3 <= len(kept)
    assert not list(tmp_path.glob("profiles.*"))
    numbers, rows = figure(tmp_path, "profiles", *flags)
    assert jobs.read_text().splitlines()[: len(kept) - 1] == kept[:-1]
    count = len(numbers["best_rates"])
    assert len(rows) == 1 + 2 * count
    adam = numbers["steps_to_target"]["digits MLP"]["Adam, best"]
    assert float(adam.split()[0]) <= 20
    for scores in (numbers["score_steps"], numbers["score_seconds"]):
        assert max(scores.values()) == 1.0 and min(scores.values()) >= 0.0
    best = numbers["best_rates"]["Adam"]["digits MLP"]
    losses = {
        float(row["rate"]): float(row["final loss"])
        for row in rows if row["optimizer"].startswith("Adam,")
    }  # fmt: skip
    assert losses[best] <= losses[1e-3]


@slow
def test_figure_3(out, data):
    numbers, rows = figure(
        out, "3", f"--data_dir={data}", "--budget=0.1", "--steps=100",
        "--seeds=2", "--pictures=128", "--only=relu MLP",
    )  # fmt: skip
    assert len(rows) == 5 * 10
    for kind in ("MLP", "ConvNet"):
        assert numbers["meta_training"][kind]["iterations"] >= 1
        assert np.isfinite(numbers["beside_sgd"][kind]["best_sgd"])


@slow
def test_figure_6(out, data):
    small = f"--data_dir={data} --budget=0.1 --steps=25 --seeds=2 "
    small += "--pictures=128"
    numbers, rows = figure(out, "6", *small.split(), "--only=units")
    assert list(numbers["final"]) == ["full", "units 5/10/10"]
    assert len(rows) == 2 * 2 * 2
    assert numbers["against_full"]["full"] == "overlap"
    # Meta-trained optimizers are kept.
    again, _ = figure(out, "6", *small.split(), "--only=units")
    assert again["final"]["units 5/10/10"] == numbers["final"]["units 5/10/10"]


@slow
def test_missing_data_and_wrong_names(tmp_path):
    pytest.importorskip("tensorflow_datasets", reason="needs the extra `data`")
    for name in ("3", "6", "8a", "profiles", "wall_clock"):
        flags = [f"--data_dir={tmp_path}", f"--out={tmp_path}"]
        assert "tfds build mnist" in refused(PROGRAM, name, *flags)
    told = refused(PROGRAM, "9")
    assert "Name one figure of 2, 3, 4" in told and "'9'" in told
    told = refused(PROGRAM, "8a", "--only=VGG")
    assert "MNIST ConvNet" in told and "Received: VGG" in told
    told = refused(PROGRAM, "wall_clock", "--pictures=16", "--batch=16")
    assert "at least 32 here. Received: pictures=16" in told
    assert not (tmp_path / "jobs.csv").exists()


def test_the_real_data_are_found():
    """In the folder of tensorflow-datasets, or TFDS_DATA_DIR."""
    try:
        folder = pictures.prepared("mnist")
    except (FileNotFoundError, ImportError) as error:
        pytest.skip(str(error))
    assert (folder / "dataset_info.json").exists()
