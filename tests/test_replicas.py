"""Several replicas, in processes of their own."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from tests import replica_worker
from tests.twins import weights_file
from training import replicas

ROOT = pathlib.Path(__file__).parent.parent


def environment(**more):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **more}


def run_cases(marker, file="replica_cases"):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", marker,
         "-p", "no:cacheprovider", f"tests/{file}.py"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_under_two_mirrored_replicas():
    run_cases("not slow")


def test_the_guard_under_two_mirrored_replicas():
    run_cases("not slow", "replica_guard_cases")


@pytest.mark.slow
def test_whole_runs_under_two_mirrored_replicas():
    run_cases("slow")


@pytest.mark.slow
def test_two_workers_end_as_one_device(tmp_path):
    weights = weights_file(tmp_path)
    addresses = [f"localhost:{replica_worker.free_port()}" for _ in range(2)]
    cluster = {"cluster": {"worker": addresses}}
    tasks = [
        json.dumps({**cluster, "task": {"type": "worker", "index": k}})
        for k in range(2)
    ]
    logs = [tmp_path / f"worker{k}.log" for k in range(2)]
    program = [sys.executable, "-m", "tests.replica_worker"]
    program += [str(tmp_path / "two.npz"), str(weights)]
    workers = []
    try:
        for task, log in zip(tasks, logs, strict=True):
            with log.open("w") as output:
                workers.append(
                    subprocess.Popen(
                        program,
                        cwd=ROOT,
                        env=environment(TF_CONFIG=task),
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )
        codes = [worker.wait(timeout=900) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        said = "\n".join(log.read_text()[-3000:] for log in logs)
        print(said)
    assert codes == [0, 0], said
    assert "CollectiveAllReduceStrategy 2" in said
    one = replica_worker.run(replicas.make_strategy("one_device"), weights)
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
