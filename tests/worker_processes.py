"""Programs in separate processes, alone or as two workers."""

import json
import os
import pathlib
import socket
import subprocess

from tests.programs import QUICK, ROOT


def free_port() -> int:
    """A port that no process listens at."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def environment(**more) -> dict:
    """This process's environment, with our packages on the path."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **QUICK, "PYTHONPATH": path, **more}


def run_two(program: list, logs: pathlib.Path) -> str:
    """Runs a program as two workers of `TF_CONFIG`; both must end well.

    Args:
        program: command line of each worker.
        logs: folder for their output.

    Returns:
        The end of the output of both.
    """
    cluster = {"worker": [f"localhost:{free_port()}" for _ in range(2)]}
    files = [logs / f"worker{k}.log" for k in range(2)]
    workers = []
    try:
        for k, file in enumerate(files):
            task = {"cluster": cluster, "task": {"type": "worker", "index": k}}
            with file.open("w") as output:
                workers.append(
                    subprocess.Popen(
                        program,
                        cwd=ROOT,
                        env=environment(TF_CONFIG=json.dumps(task)),
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )
        codes = [worker.wait(timeout=900) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        said = "\n".join(file.read_text()[-3000:] for file in files)
        print(said)
    assert codes == [0, 0], said
    return said
