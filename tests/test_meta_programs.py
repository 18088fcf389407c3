"""Meta-training as a user starts, stops and resumes it."""

import csv
import signal
import statistics
import time

import numpy as np
import pytest

from tests.programs import Program, refused
from training.common import checkpoints

ROWS = "--rows=log_sum_exp,quadratic_20"

pytestmark = [pytest.mark.slow, pytest.mark.required]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder for XLA's programs that no other program writes to."""
    return tmp_path_factory.mktemp("xla")


def meta_train(folder, cache, *flags):
    """The output of a program that must end without an error."""
    with started(folder, cache, *flags) as program:
        done = program.wait()
    assert done.returncode == 0, done.stderr
    return done.stdout


def started(folder, cache, *flags):
    """A program that runs."""
    return Program(
        "training.meta_train", f"--train_dir={folder}", *flags,
        HRNN_OPT_CACHE=str(cache),
    )  # fmt: skip


SMALL = (
    ROWS, "--seed=4", "--work=80", "--segment=10", "--mean_steps=10",
    "--first_mean_unrolls=2", "--evaluate_seconds=0",
)  # fmt: skip


def stop_in_the_middle(folder, cache, *flags):
    """Sends SIGTERM once some meta-iterations are done."""
    with started(folder, cache, *flags) as program:
        deadline = time.monotonic() + 300
        while not checkpoints.numbered(folder):
            assert program.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        program.signal(signal.SIGTERM)
        done = program.wait(120)
    assert done.returncode == 0, done.stderr


def compiled(cache) -> set:
    """The XLA programs that are kept."""
    return set(cache.glob("xla_compile_cache__*"))


def curve(folder) -> list[dict]:
    """The lines of a run's CSV."""
    with (folder / "meta_train.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """The folder of a run without interruption."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    printed = meta_train(folder, cache, *SMALL, "--max_iterations=150")
    assert "150 meta-iterations" in printed
    return folder


def test_stopped_and_resumed_equals_uninterrupted(whole, cache, tmp_path):
    parts, end = tmp_path / "parts", "--max_iterations=150"
    before = compiled(cache)
    assert len(before) == 2 * len(ROWS.split(","))
    stop_in_the_middle(parts, cache, *SMALL, end, "--save_seconds=0.2")
    stopped, _ = checkpoints.newest(parts)
    assert 0 < stopped["state/iteration"] < 150
    # Settings are read from the folder, so the flags may be left out.
    meta_train(parts, cache, ROWS, end, "--evaluate_seconds=0")

    (wanted, info), (found, _) = map(checkpoints.newest, (whole, parts))
    assert wanted["state/iteration"] == 150 and info["seconds"] > 0
    assert wanted.keys() == found.keys()
    assert any(name.startswith("pool/") for name in wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(value, found[name], name)
    for folder in (whole, parts):
        lines = curve(folder)
        assert [int(line["iteration"]) for line in lines] == list(range(150))
        assert {line["row"] for line in lines} == set(ROWS[7:].split(","))
    # Neither a second start nor a resumed run compiles anything again.
    assert compiled(cache) == before

    said = refused(
        "training.meta_train", f"--train_dir={parts}", ROWS, "--segment=20"
    )
    assert "--segment must be 10" in said


def test_a_new_run_goes_on_from_another(whole, cache, tmp_path):
    """It has other settings; its curve and counters cover both runs."""
    start, new = whole / "small.npz", tmp_path / "new"
    given, earlier = checkpoints.read(start)
    rates = {"meta_rate": 1e-12, "meta_rate_end": 1e-12}
    meta_train(
        new, cache, *SMALL, f"--start={start}", "--max_iterations=154",
        *(f"--{name}={rate}" for name, rate in rates.items()),
    )  # fmt: skip
    found, info = checkpoints.read(new / "small.npz")
    assert (given["state/iteration"], found["state/iteration"]) == (150, 154)
    assert found["state/inner_steps"] > given["state/inner_steps"]
    assert info["seconds"] > earlier["seconds"] > 0
    assert info["core_seconds"] > earlier["core_seconds"] > 0
    first, second = info["stages"]
    assert [first] == earlier["stages"] and first["from"] == 0
    assert second["from"] == 150
    assert second["settings"] == first["settings"] | rates
    numbers = [int(line["iteration"]) for line in curve(new)]
    assert numbers == list(range(154))
    # It starts at the given meta-parameters, and its rate keeps them there.
    np.testing.assert_allclose(
        found["state/vector"], given["state/vector"], rtol=0, atol=1e-9
    )


def test_a_start_that_is_no_checkpoint_is_named(tmp_path):
    missing = tmp_path / "nowhere.npz"
    said = refused(
        "training.meta_train", f"--train_dir={tmp_path / 'new'}", ROWS,
        f"--start={missing}",
    )  # fmt: skip
    assert f"Received: --start={missing}" in said
    assert not (tmp_path / "new").exists()


def test_unknown_rows_are_named(tmp_path):
    said = refused(
        "training.meta_train", f"--train_dir={tmp_path / 'new'}",
        "--rows=plane,plain",
    )  # fmt: skip
    assert "Received: plain\n" in said and "quadratic_20_noisy" in said
    assert not (tmp_path / "new").exists()


ENOUGH = 100
"""Number of meta-iterations."""


def held_out(folder):
    """Maps a meta-iteration to the mean over rows of the median log loss."""
    found = {}
    with (folder / "held_out.csv").open() as file:
        for iteration, _, own, *_ in csv.reader(file):
            found.setdefault(int(iteration), []).append(float(own))
    assert all(len(values) == 2 for values in found.values())
    return {n: statistics.mean(values) for n, values in found.items()}


def test_meta_training_helps_on_held_out_draws(tmp_path, cache):
    flags = (ROWS, "--seed=1", "--work=160", "--meta_rate=3e-3",
             "--averaging=0.98", "--first_mean_unrolls=3")  # fmt: skip
    meta_train(tmp_path, cache, *flags, "--max_iterations=1")
    before = held_out(tmp_path)
    assert list(before) == [1]
    meta_train(tmp_path, cache, *flags, f"--max_iterations={ENOUGH}")
    after = held_out(tmp_path)
    assert max(after) == ENOUGH
    # Log losses: the loss falls to less than a third.
    assert after[ENOUGH] < before[1] - 1.1
