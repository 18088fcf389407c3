"""The examples for Kubernetes and Slurm, as far as one machine can test."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest
import yaml

from tests.programs import QUICK
from training.common import checkpoints
from training.distributed import cluster, launch
from training.engine.config import MetaConfig

FOLDER = pathlib.Path(__file__).parents[1] / "training/distributed/deploy"


def test_kubernetes_has_what_the_operator_asks_for():
    job = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())
    assert job["apiVersion"] == "kubeflow.org/v1" and job["kind"] == "TFJob"
    assert job["metadata"]["name"]
    spec = job["spec"]
    assert spec["runPolicy"]["cleanPodPolicy"] in ("Running", "All", "None")
    replicas = spec["tfReplicaSpecs"]
    # In TF_CONFIG the operator writes their names in lower case.
    assert sorted(name.lower() for name in replicas) == sorted(cluster.JOBS)
    volumes = set()
    for replica in replicas.values():
        assert replica["replicas"] >= 1
        # The chief and the server are restarted, too.
        assert replica["restartPolicy"] == "OnFailure"
        pod = replica["template"]["spec"]
        (container,) = pod["containers"]
        # The operator looks for this name.
        assert container["name"] == "tensorflow" and container["image"]
        assert_program(container["command"])
        mounted = {x["name"] for x in container.get("volumeMounts", [])}
        assert mounted == {x["name"] for x in pod.get("volumes", [])}
        volumes |= mounted
    assert volumes


def assert_program(command):
    """Checks that the flags are those of the program."""
    assert command[:3] == ["python", "-m", "training.meta_train"]
    # Importing the program would define its flags in this process.
    source = (FOLDER.parents[1] / "meta_train.py").read_text()
    settings = {field.name for field in dataclasses.fields(MetaConfig)}
    for flag in command[3:]:
        name, _, value = flag.removeprefix("--").partition("=")
        assert value and (name in settings or f'"{name}"' in source)
    assert "--strategy=parameter_server" in command


SRUN = """#!/usr/bin/env bash
# Starts the tasks on this machine, and ends them as --wait asks.
while [[ $1 == -* ]]; do shift; done
export SLURM_NTASKS=3 SLURM_STEP_NUM_TASKS=3 SLURM_STEP_NODELIST=localhost
export SLURM_STEP_TASKS_PER_NODE=3
pids=()
for k in 0 1 2; do
  SLURM_PROCID=$k setsid "$@" &
  pids+=($!)
done
wait "${pids[0]}"
status=$?
kill -9 -- "-${pids[1]}" "-${pids[2]}"
exit "$status"
"""


@pytest.mark.slow
@pytest.mark.required
def test_slurm_runs(tmp_path):
    """With an `srun` that starts the tasks on this machine."""
    srun = tmp_path / "srun"
    srun.write_text(SRUN)
    srun.chmod(0o755)
    if not all(not cluster.listens(f"localhost:{8888 + k}") for k in range(3)):
        pytest.skip("Slurm's ports are in use on this machine.")
    folder = tmp_path / "run"
    python = pathlib.Path(sys.executable).parent
    done = subprocess.run(
        [
            "bash", str(FOLDER / "slurm.sh"), f"--train_dir={folder}",
            "--rows=log_sum_exp", "--work=40", "--segment=10",
            "--mean_steps=10", "--evaluate_seconds=0", "--max_seconds=5",
        ],
        env=os.environ
        | QUICK
        | {"PATH": f"{tmp_path}:{python}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"workers": 1' in done.stdout
    assert checkpoints.newest(folder)[0]["state/updates"] > 0


def test_free_ports_are_different():
    ports = launch.free_ports(20)
    assert len(set(ports)) == 20
    assert not any(cluster.listens(f"localhost:{port}") for port in ports)
