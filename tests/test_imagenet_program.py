"""`python -m training.evaluate_imagenet` on a tiny ImageNet made here."""

import json
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

from tests import imagenet_data, programs
from tests.worker_processes import run_two
from training.imagenet import files, source

PROGRAM, STEPS = "training.evaluate_imagenet", 6
# The scale of the loss, too, must be kept.
HALF = "--precision=mixed_float16"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return imagenet_data.prepare(tmp_path_factory.mktemp("data"))


def flags(data_dir, out, *more):
    return [
        "--model=mobilenet_quarter", "--image_size=32", "--batch_size=4",
        f"--data_dir={data_dir}", f"--out={out}", f"--steps={STEPS}", *more,
    ]  # fmt: skip


def program(*arguments):
    """The output of a program."""
    return programs.succeeded(PROGRAM, *flags(*arguments))


def refused(*arguments):
    """The error message of a program that must fail."""
    return programs.refused(PROGRAM, *flags(*arguments))


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
    """Checks that two runs ended alike, to the last bit."""
    assert losses(one) == losses(other)
    wanted, found = ending(one), ending(other)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory):
    """A run of the learned optimizer without interruption."""
    out = tmp_path_factory.mktemp("whole")
    printed = program(
        data_dir, out, HALF, "--validate_every=4", "--save_every=2"
    )
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
    # the validation in between swaps theta and phi.
    program(data_dir, tmp_path, HALF, "--steps=4", "--validate_every=4")
    assert len(losses(tmp_path)) == 4
    program(data_dir, tmp_path, HALF, "--validate_every=4")
    same(whole[0], tmp_path)


def stop(number, arguments, out, after: int) -> int:
    """Sends a signal after some steps; returns the number of steps taken."""
    with programs.Program(PROGRAM, *arguments) as running:
        end = time.monotonic() + 300
        while len(files.read_curve(out / "train.csv")) < after:
            assert running.poll() is None, running.so_far().stderr[-3000:]
            assert time.monotonic() < end
            time.sleep(0.02)
        running.signal(number)
        done = running.wait(60)
    assert done.returncode == (0 if number == signal.SIGTERM else -number)
    steps = [int(row["step"]) for row in files.read_curve(out / "train.csv")]
    assert steps == list(range(1, len(steps) + 1))
    return len(steps)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_exactly(data_dir, tmp_path):
    """Killed, continued, ended by SIGTERM, and continued again."""
    out, whole = tmp_path / "stopped", tmp_path / "whole"
    adam = ["--optimizer=adam", "--save_every=20"]
    long = flags(data_dir, out, *adam, "--steps=1000")
    killed = stop(signal.SIGKILL, long, out, 30)
    ended = stop(signal.SIGTERM, long, out, killed + 10)
    assert 30 <= killed < ended < 1000
    last = f"--steps={ended + 10}"
    program(data_dir, out, *adam, last)
    program(data_dir, whole, *adam, last)
    same(whole, out)
    # A finished run takes no step and changes nothing.
    before = (out / "train.csv").read_text()
    program(data_dir, out, *adam, last)
    assert (out / "train.csv").read_text() == before
    said = refused(data_dir, out, *adam, last, "--seed=1")
    assert "`seed` must be 0, as in" in said


@pytest.mark.slow
def test_two_workers_train_and_one_goes_on(data_dir, tmp_path):
    out = tmp_path / "run"
    given = flags(data_dir, out, "--steps=3", "--validate_every=2")
    run_two(PROGRAM, *given)
    figures = json.loads((out / "figures.json").read_text())
    assert figures["replicas"] == 2 and figures["steps"] == 3
    assert len(losses(out)) == 3 and np.isfinite(losses(out)).all()
    assert len(losses(out, "validation")) == 1
    # The process that is not the chief writes nothing there.
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
        said = refused(data_dir, tmp_path / "run", flag)
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
