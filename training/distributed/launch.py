"""A whole cluster on this machine: `--local_workers=N`."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

from absl import logging

from training.common import checkpoints
from training.distributed.cluster import AGAIN

ENVIRONMENT = "HRNN_OPT_LAUNCHED"
"""Set in processes whose standard input ends when their launcher does."""

HASTY = 10.0
"""Seconds; a process that ends sooner was not able to start."""

ATTEMPTS = 3
"""Hasty ends in a row after which a process is given up."""


class Task:
    """A process of the cluster, started again when it dies.

    Args:
        job: job of the cluster.
        index: number of the process in its job.
        spec: the cluster, job to addresses.
        flags: flags of the program.
        log: file for its output; None for the output of this process.
    """

    def __init__(self, job, index, spec, flags, log: pathlib.Path | None):
        self.name = f"{job} {index}"
        self._command = [sys.executable, "-m", "training.meta_train", *flags]
        self._environment = os.environ | {
            ENVIRONMENT: "1",
            "TF_CONFIG": json.dumps(
                {"cluster": spec, "task": {"type": job, "index": index}}
            ),
        }
        self.log, self.starts, self._hasty = log, 0, 0
        self.process = None

    def start(self):
        """Starts the process."""
        self.starts += 1
        self._begun = time.monotonic()
        output = self.log.open("a") if self.log else None
        try:
            self.process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )
        finally:
            if output:
                output.close()

    def given_up(self) -> bool:
        """Whether it keeps failing to start; to be called once for each end."""
        hasty = time.monotonic() - self._begun < HASTY
        self._hasty = self._hasty + 1 if hasty else 0
        return self._hasty >= ATTEMPTS

    def end(self):
        """Kills the process if it is running."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def end_with_launcher():
    """Ends this process when its launcher has ended, for whatever reason."""
    if ENVIRONMENT not in os.environ:
        return

    def wait():
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def free_ports(count: int) -> list[int]:
    """Free ports of this machine."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def flags_of_tasks(argv: list[str]) -> list[str]:
    """The flags for the launcher's processes, from its own."""
    kept, skip = [], False
    for flag in argv:
        if skip:
            skip = False
        elif flag.lstrip("-").partition("=")[0] in (
            "local_workers",
            "strategy",
        ):
            skip = "=" not in flag
        else:
            kept.append(flag)
    return [*kept, "--strategy=parameter_server"]


def cluster_here(
    workers: int, flags: list[str], logs: pathlib.Path
) -> tuple[dict, list[Task]]:
    """A cluster's addresses on this machine, and its servers, not started.

    Args:
        workers: number of workers.
        flags: flags of `training.meta_train`.
        logs: folder that servers log to.
    """
    ports = [f"localhost:{port}" for port in free_ports(workers + 2)]
    spec = {"chief": ports[:1], "ps": ports[1:2], "worker": ports[2:]}
    logs.mkdir(parents=True, exist_ok=True)
    return spec, [
        Task(job, index, spec, flags, logs / f"{job}-{index}.log")
        for job in ("ps", "worker")
        for index in range(len(spec[job]))
    ]


def run(workers: int, argv: list[str], folder: pathlib.Path) -> int:
    """Runs chief, parameter server and workers until the chief is done.

    A process that dies is started again: a worker without loss, the chief and
    the parameter server from the last checkpoint.

    Args:
        workers: number of workers.
        argv: flags of the program, with those of the launcher.
        folder: folder of the run; servers log to `logs` in it.

    Returns:
        The chief's exit status.
    """
    flags = flags_of_tasks(argv)
    spec, servers = cluster_here(workers, flags, folder / "logs")
    chief = Task("chief", 0, spec, flags, None)
    stop = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.append(True))
    try:
        for task in (*servers, chief):
            task.start()
        return _watch(chief, servers, stop, folder)
    finally:
        for task in (chief, *servers):
            task.end()


def _watch(chief: Task, servers: list[Task], stop: list, folder) -> int:
    """Watches the processes until the chief is done or one is given up."""
    told, reached = False, -1
    while True:
        time.sleep(0.1)
        if stop and not told:
            chief.process.send_signal(signal.SIGTERM)
            told = True
        status = chief.process.poll()
        if status is not None:
            if told or (status >= 0 and status != AGAIN):
                return max(status, 0)
            # Only a new checkpoint counts as progress.
            newest = max((n for n, _ in checkpoints.numbered(folder)),
                         default=0)  # fmt: skip
            if newest == reached and chief.given_up():
                logging.error("The chief ended too often (%d).", status)
                return status if status > 0 else 1
            reached = newest
            logging.warning("The chief ended (%d); starting it again.", status)
            chief.start()
        for task in servers:
            status = task.process.poll()
            if status is None:
                continue
            if task.given_up():
                logging.error(
                    "%s ended %d times at its start (%d). Its last words:\n%s",
                    task.name, ATTEMPTS, status,
                    "\n".join(task.log.read_text().splitlines()[-5:]),
                )  # fmt: skip
                return 1
            logging.warning(
                "%s ended (%d); starting it again.", task.name, status
            )
            task.start()
