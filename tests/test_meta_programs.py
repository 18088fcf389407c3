"""Meta-training as a user starts, stops and resumes it."""

import csv
import os
import signal
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest

from training.common import checkpoints

ROWS = "--rows=log_sum_exp,quadratic_20"

pytestmark = [pytest.mark.slow, pytest.mark.required]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """XLA's programs, so that only the first start compiles."""
    return tmp_path_factory.mktemp("xla")


def command(folder, *more):
    return [
        sys.executable, "-m", "training.meta_train", f"--train_dir={folder}",
        *more,
    ]  # fmt: skip


def environment(cache):
    return os.environ | {"PYTHONUNBUFFERED": "1", "HRNN_OPT_CACHE": str(cache)}


def run(folder, cache, *more):
    return subprocess.run(
        command(folder, *more),
        capture_output=True,
        text=True,
        timeout=600,
        env=environment(cache),
    )


SMALL = (
    ROWS, "--seed=4", "--work=80", "--segment=10", "--mean_steps=10",
    "--first_mean_unrolls=2", "--evaluate_seconds=0",
)  # fmt: skip


def stop_in_the_middle(folder, cache, *more):
    """Sends SIGTERM once some meta-iterations are done."""
    with subprocess.Popen(
        command(folder, *more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(cache),
    ) as process:
        deadline = time.monotonic() + 300
        while not checkpoints.numbered(folder):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def test_stopped_and_resumed_equals_uninterrupted(tmp_path, cache):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    end = "--max_iterations=150"
    done = run(whole, cache, *SMALL, end)
    assert done.returncode == 0, done.stderr
    assert "150 meta-iterations" in done.stdout
    compiled = set(cache.glob("xla_compile_cache__*"))
    assert len(compiled) == 2 * len(ROWS.split(","))

    stop_in_the_middle(parts, cache, *SMALL, end, "--save_seconds=0.2")
    stopped, _ = checkpoints.newest(parts)
    assert 0 < stopped["state/iteration"] < 150
    # Settings are those of the folder; the flags may be left out.
    done = run(parts, cache, ROWS, end, "--evaluate_seconds=0")
    assert done.returncode == 0, done.stderr

    (wanted, info), (found, _) = map(checkpoints.newest, (whole, parts))
    assert wanted["state/iteration"] == 150 and info["seconds"] > 0
    assert wanted.keys() == found.keys()
    assert any(name.startswith("pool/") for name in wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(value, found[name], name)
    # Neither a second start nor one that goes on compiles anything again.
    assert set(cache.glob("xla_compile_cache__*")) == compiled
    for folder in (whole, parts):
        with (folder / "meta_train.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert [int(line["iteration"]) for line in lines] == list(range(150))
        assert {line["row"] for line in lines} == set(ROWS[7:].split(","))

    refused = run(parts, cache, ROWS, "--segment=20")
    assert refused.returncode
    assert "--segment must be 10" in refused.stdout + refused.stderr


def test_a_new_run_goes_on_from_another(tmp_path, cache):
    """With other settings; its curve and counters are those of both."""
    old, new = tmp_path / "old", tmp_path / "new"
    done = run(old, cache, *SMALL, "--max_iterations=5")
    assert done.returncode == 0, done.stderr
    given, earlier = checkpoints.read(old / "small.npz")
    done = run(
        new, cache, *SMALL, "--clip=0.5", f"--start={old / 'small.npz'}",
        "--max_iterations=9",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, info = checkpoints.read(new / "small.npz")
    assert (given["state/iteration"], found["state/iteration"]) == (5, 9)
    assert found["state/inner_steps"] > given["state/inner_steps"]
    assert info["seconds"] > earlier["seconds"] > 0
    assert info["core_seconds"] > earlier["core_seconds"] > 0
    first, second = info["stages"]
    assert [first] == earlier["stages"] and first["from"] == 0
    assert second["from"] == 5
    assert second["settings"] == first["settings"] | {"clip": 0.5}
    with (new / "meta_train.csv").open() as file:
        numbers = [int(line["iteration"]) for line in csv.DictReader(file)]
    assert numbers == list(range(9))
    # The first meta-iteration starts at the given meta-parameters.
    again = tmp_path / "again"
    done = run(
        again, cache, *SMALL, "--meta_rate=1e-12", "--meta_rate_end=1e-12",
        f"--start={old / 'small.npz'}", "--max_iterations=6",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, _ = checkpoints.read(again / "small.npz")
    np.testing.assert_allclose(
        found["state/vector"], given["state/vector"], rtol=0, atol=1e-9
    )


def test_a_start_that_is_no_checkpoint_is_named(tmp_path, cache):
    missing = tmp_path / "nowhere.npz"
    done = run(tmp_path / "new", cache, ROWS, f"--start={missing}")
    message = done.stdout + done.stderr
    assert done.returncode and f"Received: --start={missing}" in message
    assert not (tmp_path / "new").exists()


def test_unknown_rows_are_named(tmp_path, cache):
    done = run(tmp_path / "new", cache, "--rows=plane,plain")
    message = done.stdout + done.stderr
    assert done.returncode and "Received: plain\n" in message
    assert "quadratic_20_noisy" in message
    assert not (tmp_path / "new").exists()


def held_out(folder):
    """Meta-iteration to the mean over rows of the median log loss."""
    found = {}
    with (folder / "held_out.csv").open() as file:
        for iteration, _, own, *_ in csv.reader(file):
            found.setdefault(int(iteration), []).append(float(own))
    assert all(len(values) == 2 for values in found.values())
    return {n: statistics.mean(values) for n, values in found.items()}


def test_a_minute_of_meta_training_helps_on_held_out_draws(tmp_path, cache):
    flags = (ROWS, "--seed=1", "--work=160", "--meta_rate=3e-3",
             "--averaging=0.98", "--first_mean_unrolls=3")  # fmt: skip
    done = run(tmp_path, cache, *flags, "--max_iterations=1")
    assert done.returncode == 0, done.stderr
    before = held_out(tmp_path)
    assert list(before) == [1]
    done = run(tmp_path, cache, *flags, "--max_seconds=60")
    assert done.returncode == 0, done.stderr
    after = held_out(tmp_path)
    last = max(after)
    assert last > 20
    # Log losses: to less than a third.
    assert after[last] < before[1] - 1.1
