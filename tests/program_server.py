"""Starts programs for the tests without importing TensorFlow for each.

`python -m tests.program_server` imports TensorFlow and its companions once,
which takes some 8 seconds of processor time. Each program then runs in a fork
of this process as `python -m` would run it, with its own arguments,
environment, output files and exit. Nothing of this project is imported before
the fork, so a program imports its own modules itself. `tests/programs.py` is
the client; each request and each answer is a line of JSON.
"""

import importlib
import importlib.util
import json
import os
import runpy
import signal
import sys
import time

COMPANIONS = (
    "tensorflow",
    "keras",
    "matplotlib.pyplot",
    "sklearn.datasets",
    "tensorflow_datasets",
    "absl.app",
    "tqdm",
)


def serve() -> dict | None:
    """Answers requests until the standard input ends.

    Returns:
        In a forked process, the program that it is to run; None at the end.
    """
    running = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "module" in request:
            pid = os.fork()
            if not pid:
                return request
            running[pid] = None
            answer = pid
        else:
            answer = ended(running, request["pid"])
        print(json.dumps(answer), flush=True)
    for pid, code in running.items():
        if code is None and ended(running, pid) is None:
            os.kill(pid, signal.SIGKILL)
    return None


def ended(running: dict, pid: int) -> int | None:
    """A program's exit code, negative for a signal; None while it runs."""
    if running[pid] is None:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            running[pid] = os.waitstatus_to_exitcode(status)
    return running[pid]


def become(program: dict):
    """Turns this process into a program, and runs it."""
    for name, descriptor, flags in (
        (os.devnull, 0, os.O_RDONLY),
        (program["stdout"], 1, os.O_WRONLY | os.O_APPEND),
        (program["stderr"], 2, os.O_WRONLY | os.O_APPEND),
    ):
        file = os.open(name, flags)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(program["environment"])
    time.tzset()
    sys.argv[1:] = program["arguments"]
    runpy.run_module(program["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in COMPANIONS:
        # Some of them are optional packages.
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    print(json.dumps("ready"), flush=True)
    given = serve()
    if given:
        become(given)
