"""Several replicas, in separate processes."""

import json

import pytest
import tensorflow as tf

from tests import programs, replica_worker
from tests.reference_pair import weights_file
from tests.worker_processes import run_two
from training import replicas


def run_cases(marker):
    """Runs the cases in a process, as devices must be divided at its start.

    One case connects to a cluster, after which a variable outside a strategy
    has no device, so the cases of the guard come first.
    """
    programs.succeeded(
        "pytest", "-q", "-m", marker, "-n0", "-p", "no:cacheprovider",
        "tests/replica_guard_cases.py", "tests/replica_cases.py", seconds=1800,
    )  # fmt: skip


@pytest.mark.slow
def test_under_two_mirrored_replicas():
    run_cases("not slow")


@pytest.mark.slow
def test_whole_runs_under_two_mirrored_replicas():
    run_cases("slow")


@pytest.mark.slow
def test_two_workers_end_as_one_device(tmp_path):
    weights = weights_file(tmp_path)
    said = run_two("tests.replica_worker", tmp_path / "two.npz", weights)
    assert "CollectiveAllReduceStrategy 2" in said
    said = programs.succeeded(
        "tests.replica_worker", tmp_path / "one.npz", weights
    )
    assert "OneDeviceStrategy 1" in said
    one = replica_worker.load(tmp_path / "one.npz")
    assert one["guarded"][-1] == 1  # The guard went back once.
    replica_worker.check(one, replica_worker.load(tmp_path / "two.npz"))


def test_a_strategy_has_a_known_name():
    with pytest.raises(ValueError, match="Received: name='tpu'"):
        replicas.make_strategy("tpu")


def test_several_workers_need_their_addresses(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="Received: TF_CONFIG=None"):
        replicas.make_strategy("multi_worker")


def test_replicas_are_counted_without_waiting_for_machines(monkeypatch):
    task = {"cluster": {"worker": ["a:1", "b:1", "c:1"]}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    each = max(len(tf.config.list_logical_devices("GPU")), 1)
    assert replicas.count("auto") == replicas.count("multi_worker") == 3 * each
    assert replicas.count("one_device") == 1
    monkeypatch.delenv("TF_CONFIG")
    assert replicas.count("auto") == each
    with pytest.raises(ValueError, match="Received: TF_CONFIG=None"):
        replicas.count("multi_worker")


def test_one_device_is_the_chief():
    strategy = replicas.make_strategy("one_device")
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    assert replicas.is_chief(strategy)


def test_a_batch_must_have_examples():
    strategy = replicas.make_strategy("one_device")
    with pytest.raises(ValueError, match="Received: batch_size=0"):
        replicas.distribute(strategy, tf.data.Dataset.range(3), 0)
