"""Programs of this project as a user runs them, each in its own process.

They are forked from `tests/program_server.py`, which has imported TensorFlow.
"""

import atexit
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent

QUICK = {
    "XLA_FLAGS": " ".join(
        (
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
            "--xla_backend_extra_options="
            "xla_cpu_disable_new_fusion_emitters=true",
        )
    )
}
"""Lets XLA compile in less than half of the time, to programs that are slower.
`.ci/run` runs the tests that compare with the reference without it, too."""


class Done(NamedTuple):
    """A program that has ended."""

    returncode: int  # negative for the signal that ended it
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """Everything that it wrote."""
        return self.stdout + self.stderr


class Program:
    """A program that was started; leaving its context kills it.

    Args:
        module: name of the program, as for `python -m`.
        arguments: arguments of the command line.
        environment: variables besides those of this process.
    """

    def __init__(self, module: str, *arguments, **environment):
        self._folder = tempfile.TemporaryDirectory()
        paths = [pathlib.Path(self._folder.name, x) for x in ("out", "err")]
        for path in paths:
            path.touch()
        self._out, self._err = paths
        self.pid = _ask(
            module=module,
            arguments=[str(argument) for argument in arguments],
            environment=os.environ | QUICK | environment,
            stdout=str(self._out),
            stderr=str(self._err),
        )

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return _ask(pid=self.pid)

    def signal(self, number: int):
        """Sends it a signal if it is still running."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, seconds: float = 600) -> Done:
        """Waits until it ends.

        Raises:
            AssertionError: it has not ended in time.
        """
        end = time.monotonic() + seconds
        while self.poll() is None:
            assert time.monotonic() < end, self.so_far()
            time.sleep(0.02)
        return self.so_far()

    def so_far(self) -> Done:
        """Its output so far, and its exit code if it has ended."""
        return Done(self.poll(), self._out.read_text(), self._err.read_text())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.signal(9)
        self.wait()
        self._folder.cleanup()


def run(module: str, *arguments, seconds: float = 600, **environment) -> Done:
    """Runs a program to its end; see `Program`."""
    with Program(module, *arguments, **environment) as program:
        return program.wait(seconds)


def succeeded(
    module: str, *arguments, seconds: float = 600, **environment
) -> str:
    """The output of a program that must end without an error."""
    done = run(module, *arguments, seconds=seconds, **environment)
    # A crash tells its stack first, an exception last.
    text = done.stderr
    text = text if len(text) < 9000 else f"{text[:5000]}\n...\n{text[-4000:]}"
    assert done.returncode == 0, text
    return done.stdout


def refused(module: str, *arguments, **environment) -> str:
    """The output of a program that must end with an error."""
    done = run(module, *arguments, **environment)
    assert done.returncode > 0, done.said[-3000:]
    return done.said


def _ask(**request):
    """Sends a request; returns the server's answer."""
    server = _server()
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


@functools.cache
def _server():
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.program_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # One thread, since a fork copies no others.
        env=os.environ | QUICK | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert json.loads(server.stdout.readline()) == "ready"

    def end():
        server.stdin.close()
        server.wait()

    atexit.register(end)
    return server
