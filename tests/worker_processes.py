"""Programs in separate processes, alone or as two workers."""

import contextlib
import json
import socket

from tests.programs import Program


def free_port() -> int:
    """A port that no process listens at."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def run_two(module: str, *arguments) -> str:
    """Runs a program as two workers of `TF_CONFIG`; both must end well.

    Args:
        module: name of the program, as for `python -m`.
        arguments: arguments of each worker's command line.

    Returns:
        The end of the output of both.
    """
    cluster = {"worker": [f"localhost:{free_port()}" for _ in range(2)]}
    with contextlib.ExitStack() as stack:
        workers = []
        for k in range(2):
            task = {"cluster": cluster, "task": {"type": "worker", "index": k}}
            worker = Program(module, *arguments, TF_CONFIG=json.dumps(task))
            workers.append(stack.enter_context(worker))
        done = [worker.wait(900) for worker in workers]
    said = "\n".join(one.said[-3000:] for one in done)
    assert [one.returncode for one in done] == [0, 0], said
    return said
