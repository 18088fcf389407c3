"""The tasks of a cluster, and checks that all of them are there."""

import contextlib
import json
import os
import pathlib
import socket
import sys
import tempfile
import threading
import time

import tensorflow as tf
from absl import logging

from hrnn_opt.rule.config import RULE_VERSION
from hrnn_opt.version import __version__

JOBS = ("chief", "ps", "worker")

AGAIN = 75
"""Exit status of a chief that should be started again (EX_TEMPFAIL)."""


class ClusterError(Exception):
    """The cluster cannot work as described, or as found."""


def resolver(cluster_spec: str | None, job_name: str | None, task_index: int):
    """The cluster, and this process's place in it.

    They come from the arguments, else from `TF_CONFIG`, else from Slurm's
    environment, where the first two tasks are the chief and the parameter
    server.

    Args:
        cluster_spec: JSON of job name to addresses, or the path of such a file.
        job_name: job of this process.
        task_index: number of this process in its job.

    Raises:
        ClusterError: there is no description, or it is incomplete.
    """
    if cluster_spec:
        found = _given(cluster_spec, job_name, task_index)
    elif os.environ.get("TF_CONFIG"):
        try:
            found = tf.distribute.cluster_resolver.TFConfigClusterResolver()
            found.cluster_spec()
        except (ValueError, TypeError, AttributeError) as error:
            raise ClusterError(
                "TF_CONFIG must be JSON with `cluster` and `task` "
                f"({error}). Received: {os.environ['TF_CONFIG']!r}"
            ) from error
    elif "SLURM_PROCID" in os.environ:
        found = _of_slurm()
    else:
        raise ClusterError(
            "A cluster must be described by TF_CONFIG, by --cluster_spec, "
            "--job_name and --task_index, by Slurm (srun), or made by "
            "--local_workers. Received: none of them"
        )
    check(found)
    return found


def _given(cluster_spec, job_name, task_index):
    path = pathlib.Path(cluster_spec)
    text = cluster_spec
    if not text.lstrip().startswith("{"):
        try:
            text = path.read_text()
        except OSError as error:
            raise ClusterError(
                "Flag --cluster_spec must be JSON or the path of a readable "
                f"file ({error}). Received: {cluster_spec!r}"
            ) from error
    try:
        spec = tf.train.ClusterSpec(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ClusterError(
            "Flag --cluster_spec must be JSON of job names to lists of "
            f"addresses ({error}). Received: {cluster_spec!r}"
        ) from error
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec, task_type=job_name, task_id=task_index, rpc_layer="grpc"
    )


def _of_slurm():
    tasks = int(os.environ.get("SLURM_NTASKS", "0"))
    if tasks < 3:
        raise ClusterError(
            "Slurm must start 3 tasks at least: chief, parameter server, "
            f"worker. Received: SLURM_NTASKS={tasks}"
        )
    # The resolver places no more tasks on a node than it has GPUs, and hands
    # those out itself; here that is left to srun (--gpus-per-task).
    found = tf.distribute.cluster_resolver.SlurmClusterResolver(
        {"chief": 1, "ps": 1, "worker": tasks - 2},
        gpus_per_node=tasks,
        gpus_per_task=1,
        auto_set_gpu=False,
    )
    found.task_type, found.task_id = found.get_task_info()
    return found


def check(found):
    """Checks that every job has a task, and this process is one of them.

    Raises:
        ClusterError: a job has none, or this process is not one of them.
    """
    jobs = found.cluster_spec().as_dict()
    missing = [job for job in JOBS if not jobs.get(job)]
    if missing:
        raise ClusterError(
            f"A cluster must have {', '.join(JOBS)}; {', '.join(missing)} is "
            f"missing. Received: {jobs}"
        )
    job, index = found.task_type, found.task_id
    if job not in JOBS or index is None or not 0 <= index < len(jobs[job]):
        raise ClusterError(
            f"A process must be one of the cluster's tasks ({jobs}). "
            f"Received: job {job!r}, task {index!r}"
        )


def tasks(found) -> dict:
    """(job, index) to address, of the servers: all but the chief."""
    spec = found.cluster_spec()
    return {
        (job, index): spec.task_address(job, index)
        for job in ("ps", "worker")
        for index in spec.task_indices(job)
    }


def listens(address: str, seconds: float = 1.0) -> bool:
    """Whether a server answers at "host:port"."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), seconds).close()
    except OSError:
        return False
    return True


def await_servers(found, seconds: float):
    """Waits until all servers listen.

    Raises:
        ClusterError: some do not listen within `seconds`.
    """
    end, missing = time.monotonic() + seconds, tasks(found)
    while True:
        missing = {
            task: address
            for task, address in missing.items()
            if not listens(address)
        }
        if not missing:
            return
        if time.monotonic() > end:
            raise ClusterError(
                f"Every server must listen within {seconds:.0f} s. Received: "
                "no answer from "
                + ", ".join(f"{j} {k} at {a}" for (j, k), a in missing.items())
            )
        time.sleep(0.2)


def card_path(job: str, index: int, address: str) -> pathlib.Path:
    """The file on a server's own machine in which it states its versions.

    The chief reads it through TensorFlow, on the server's device.
    """
    port = address.rpartition(":")[2]
    folder = pathlib.Path(tempfile.gettempdir()) / "hrnn_opt"
    return folder / f"{job}-{index}-{port}.json"


def versions() -> dict:
    """The versions that all processes of a cluster must share."""
    return {
        "hrnn_opt": __version__,
        "rule": RULE_VERSION,
        "tensorflow": tf.__version__,
    }


def check_versions(found):
    """Checks that all servers run the same versions as this process.

    Raises:
        ClusterError: one runs another version, or another program.
    """
    wanted = versions()
    for (job, index), address in tasks(found).items():
        with tf.device(f"/job:{job}/task:{index}/device:CPU:0"):
            try:
                text = tf.io.read_file(str(card_path(job, index, address)))
                received = json.loads(text.numpy())
            except (tf.errors.NotFoundError, ValueError):
                received = "a server that is none of this program"
        if received != wanted:
            raise ClusterError(
                f"{job} {index} at {address} must run {wanted}. "
                f"Received: {received}"
            )


@contextlib.contextmanager
def deadline(seconds: float, what: str):
    """Ends the process if what is inside takes longer.

    TensorFlow waits for ever for a server that accepts connections but does not
    respond, inside calls that nothing else can end.
    """

    def give_up():
        logging.error("%s took more than %.0f s.", what, seconds)
        logging.flush()
        sys.stderr.flush()
        os._exit(AGAIN)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def connect(
    found, patience: float
) -> tf.distribute.coordinator.ClusterCoordinator:
    """The chief's connection to all servers.

    Args:
        found: the cluster's resolver.
        patience: seconds after which a server that is missing, or does not
            answer, is an error.

    Raises:
        ClusterError: a server is missing, or runs other versions.
    """
    # Calls to a dead worker fail instead of waiting for it.
    os.environ["GRPC_FAIL_FAST"] = "use_caller"
    await_servers(found, patience)
    with deadline(patience, "Connecting to the cluster"):
        strategy = tf.distribute.ParameterServerStrategy(found)
        coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        check_versions(found)
    return coordinator


def inter_op_threads(found) -> int:
    """More threads than workers: with fewer, on few cores, a cluster hangs."""
    return len(found.cluster_spec().task_indices("worker")) + 4


def leave(status: int):
    """Ends the process at once.

    At a normal exit TensorFlow waits for work that is under way on workers,
    for minutes, or for ever if the server is lost.
    """
    logging.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
