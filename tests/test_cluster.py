"""Descriptions of clusters, and the messages about wrong ones."""

import json
import socket

import pytest

from training.distributed import cluster, launch, server
from training.distributed.cluster import ClusterError

SPEC = {
    "chief": ["a:1"],
    "ps": ["b:2"],
    "worker": ["c:3", "d:4"],
}


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


def found(spec=SPEC, job="worker", index=1):
    return cluster.resolver(json.dumps(spec), job, index)


def assert_second_worker(resolved):
    assert (resolved.task_type, resolved.task_id) == ("worker", 1)
    assert resolved.cluster_spec().as_dict() == SPEC
    assert cluster.tasks(resolved) == {
        ("ps", 0): "b:2", ("worker", 0): "c:3", ("worker", 1): "d:4",
    }  # fmt: skip


def test_from_flags(tmp_path):
    assert_second_worker(found())
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(SPEC))
    assert_second_worker(cluster.resolver(str(path), "worker", 1))


def test_from_tf_config_as_kubeflow_writes_it(monkeypatch):
    config = {
        "cluster": SPEC,
        "task": {"type": "worker", "index": 1},
        "environment": "cloud",
    }
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert_second_worker(cluster.resolver(None, None, 0))


def test_from_slurm(monkeypatch):
    values = {
        "SLURM_PROCID": 3, "SLURM_NTASKS": 4, "SLURM_STEP_NUM_TASKS": 4,
        "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_STEP_GPUS": "", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    resolved = cluster.resolver(None, None, 0)
    assert (resolved.task_type, resolved.task_id) == ("worker", 1)
    assert resolved.cluster_spec().as_dict() == {
        "chief": ["n1:8888"], "ps": ["n1:8889"],
        "worker": ["n2:8888", "n2:8889"],
    }  # fmt: skip
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(ClusterError, match="SLURM_NTASKS=2"):
        cluster.resolver(None, None, 0)


@pytest.mark.parametrize("job", cluster.JOBS)
def test_a_missing_job_is_named(job):
    partial = {name: SPEC[name] for name in SPEC if name != job}
    with pytest.raises(ClusterError, match=f"{job} is missing"):
        found(partial, "chief", 0)


@pytest.mark.parametrize(
    "job, index", [("worker", 2), ("worker", -1), ("evaluator", 0), (None, 0)]
)
def test_a_process_that_is_no_task(job, index):
    with pytest.raises(ClusterError, match=f"job {job!r}, task {index}"):
        found(job=job, index=index)


@pytest.mark.parametrize("text", ["{", '{"chief": 3}', "[1]", "no/file.json"])
def test_a_description_that_cannot_be_read(text):
    with pytest.raises(ClusterError, match="--cluster_spec must be JSON"):
        cluster.resolver(text, "chief", 0)


@pytest.mark.parametrize("text", ["{", "[]", '{"cluster": 3}'])
def test_a_tf_config_that_cannot_be_read(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ClusterError, match="Received"):
        cluster.resolver(None, None, 0)


def test_no_description_at_all():
    with pytest.raises(ClusterError, match="TF_CONFIG, by --cluster_spec"):
        cluster.resolver(None, None, 0)


def test_servers_that_are_missing_are_named():
    with socket.create_server(("localhost", 0)) as one:
        there = f"localhost:{one.getsockname()[1]}"
        (port,) = launch.free_ports(1)
        spec = {
            "chief": ["localhost:1"], "ps": [there],
            "worker": [there, f"localhost:{port}"],
        }  # fmt: skip
        with pytest.raises(ClusterError, match=f"worker 1 at localhost:{port}"):
            cluster.await_servers(found(spec, "chief", 0), 0.5)
        spec["worker"].pop()
        cluster.await_servers(found(spec, "chief", 0), 0.5)


def test_a_taken_port_is_named():
    with socket.create_server(("localhost", 0), reuse_port=True) as one:
        address = f"localhost:{one.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"{address} must be free"):
            server.check_free(address)
    server.check_free(address)


def test_flags_of_the_launched():
    given = ["--local_workers", "3", "--seed=4", "--strategy=local", "--noclip"]
    wanted = ["--seed=4", "--noclip", "--strategy=parameter_server"]
    assert launch.flags_of_tasks(given) == wanted
    assert launch.flags_of_tasks(["--local_workers=3"]) == wanted[2:]
