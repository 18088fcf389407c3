"""`python -m training.evaluate_imagenet` on a tiny ImageNet made here."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from tests import imagenet_data
from tests.worker_processes import environment, run_two
from training.imagenet import files, source

STEPS = 6


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return imagenet_data.prepare(tmp_path_factory.mktemp("data"))


def command(data_dir, out, *more):
    return [
        sys.executable, "-m", "training.evaluate_imagenet",
        "--model=mobilenet_quarter", "--image_size=32", "--batch_size=4",
        f"--data_dir={data_dir}", f"--out={out}", f"--steps={STEPS}", *more,
    ]  # fmt: skip


def program(*arguments, fails=False, **more):
    """What it printed; of one that fails, what it said."""
    done = subprocess.run(
        command(*arguments),
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return done.stdout + (done.stderr if fails else "")


def ending(out):
    """All variables of the newest checkpoint, by name."""
    path = tf.train.latest_checkpoint(str(out / "checkpoints"))
    reader = tf.train.load_checkpoint(path)
    names = sorted(reader.get_variable_to_shape_map())
    return {
        name: reader.get_tensor(name)
        for name in names
        if name.endswith("VARIABLE_VALUE") and "save_counter" not in name
    }


def losses(out, name="train"):
    return [float(row["loss"]) for row in files.read_curve(out / f"{name}.csv")]


def same(one, other):
    """Two runs ended alike, to the last bit."""
    assert losses(one) == losses(other)
    wanted, found = ending(one), ending(other)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory):
    """A run of the learned optimizer without interruption."""
    out = tmp_path_factory.mktemp("whole")
    printed = program(data_dir, out, "--validate_every=4", "--save_every=2")
    figures = json.loads(printed.splitlines()[-1])
    return out, figures


@pytest.mark.slow
def test_a_run_leaves_what_it_should(whole):
    out, figures = whole
    assert figures["steps"] == STEPS and figures["replicas"] == 1
    assert len(losses(out)) == STEPS and np.isfinite(losses(out)).all()
    assert figures["last_loss"] == losses(out)[-1]
    validation = files.read_curve(out / "validation.csv")
    assert [row["step"] for row in validation] == ["4"]
    assert list((out / "events").glob("events.out.tfevents*"))
    assert json.loads((out / "figures.json").read_text()) == figures
    assert figures["peak_megabytes"] > 0
    kept = sorted(p.name for p in (out / "checkpoints").glob("*.index"))
    assert kept == ["ckpt-4.index", "ckpt-6.index"]


@pytest.mark.slow
def test_a_run_in_two_parts_ends_as_a_whole_one(whole, data_dir, tmp_path):
    # In the middle of an epoch of six steps, and of the order of its pictures;
    # validation in between swaps theta and phi.
    program(data_dir, tmp_path, "--steps=4", "--validate_every=4")
    assert len(losses(tmp_path)) == 4
    program(data_dir, tmp_path, "--validate_every=4")
    same(whole[0], tmp_path)
    # A run that is at its end already takes no step and changes nothing.
    before = (tmp_path / "train.csv").read_text()
    program(data_dir, tmp_path)
    assert (tmp_path / "train.csv").read_text() == before
    said = program(data_dir, tmp_path, "--seed=1", fails=True)
    assert "`seed` must be 0, as in" in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_stopped_goes_on_exactly(data_dir, tmp_path, number):
    adam = ["--optimizer=adam", "--steps=400", "--save_every=20"]
    out = tmp_path / "stopped"
    running = subprocess.Popen(
        command(data_dir, out, *adam),
        env=environment(),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 300
        while time.monotonic() < end:
            if len(files.read_curve(out / "train.csv")) >= 30:
                break
            time.sleep(0.02)
        running.send_signal(number)
        code = running.wait(timeout=60)
    finally:
        running.kill()
        running.wait()
    assert code == (0 if number == signal.SIGTERM else -number)
    taken = len(losses(out))
    assert 30 <= taken < 400
    steps = [int(row["step"]) for row in files.read_curve(out / "train.csv")]
    assert steps == list(range(1, taken + 1))
    more = [*adam[:1], "--steps=420", adam[2]]
    program(data_dir, out, *more)
    program(data_dir, tmp_path / "whole", *more)
    same(tmp_path / "whole", out)


@pytest.mark.slow
def test_half_precision_trains(data_dir, tmp_path):
    program(data_dir, tmp_path, "--precision=mixed_float16", "--steps=2")
    program(data_dir, tmp_path, "--precision=mixed_float16", "--steps=3")
    assert np.isfinite(losses(tmp_path)).all() and len(losses(tmp_path)) == 3


@pytest.mark.slow
def test_two_workers_train_and_one_goes_on(data_dir, tmp_path):
    out = tmp_path / "run"
    run_two(command(data_dir, out, "--steps=3", "--validate_every=2"), tmp_path)
    figures = json.loads((out / "figures.json").read_text())
    assert figures["replicas"] == 2 and figures["steps"] == 3
    assert len(losses(out)) == 3 and np.isfinite(losses(out)).all()
    assert len(losses(out, "validation")) == 1
    # The one who is not the chief writes nothing there.
    assert len(list((out / "events").iterdir())) == 1
    before = ending(out)
    program(data_dir, out, "--steps=4", "--strategy=one_device")
    after = ending(out)
    assert len(losses(out)) == 4 and np.isfinite(losses(out)).all()
    assert {k: v.shape for k, v in before.items()} == {
        k: v.shape for k, v in after.items()
    }


@pytest.mark.slow
def test_bad_input_is_named(data_dir, tmp_path):
    for flag, words in (
        ("--model=vgg16", "inception_v3"),
        ("--optimizer=adagrad", "rmsprop_inception"),
        ("--train_split=tset", "one of train, validation"),
        (f"--data_dir={tmp_path}", "tfds build imagenet2012"),
        ("--strategy=multi_worker", "TF_CONFIG"),
        ("--image_size=8", "at least 32"),
    ):
        said = program(data_dir, tmp_path / "run", flag, fails=True)
        assert words in said, said[-2000:]
        assert "Traceback" not in said
    assert not (tmp_path / "run" / "train.csv").exists()


@pytest.mark.slow
def test_dry_run_needs_no_data(tmp_path):
    told = program(
        tmp_path, tmp_path / "run", "--dry_run", "--optimizer=adam",
        "--steps=1000",
    )  # fmt: skip
    assert "1,000 steps: " in told and "epoch of 320,291 steps" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_data_of_this_machine(tmp_path):
    """ImageNet itself, or the miniature, where it is prepared."""
    try:
        source.find()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    folder = source.default_folder()
    program(folder, tmp_path, "--image_size=64", "--train_split=train[:64]")
    assert np.isfinite(losses(tmp_path)).all()
