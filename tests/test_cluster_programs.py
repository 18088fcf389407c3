"""A cluster of processes on this machine, and how it handles failures."""

import csv
import json
import os
import signal
import socket
import time

import numpy as np
import pytest

from tests import programs
from training.common import checkpoints
from training.distributed import cluster, launch
from training.engine.meta_step import MetaStatistics

pytestmark = [pytest.mark.slow, pytest.mark.required]

ROWS = "log_sum_exp,quadratic_20"
SETTINGS = {
    "seed": 4, "work": 80, "segment": 10, "mean_steps": 10.0,
    "first_mean_unrolls": 2.0,
}  # fmt: skip
ONE_ROW = "--rows=log_sum_exp"
"""Where rows are not what is tested: each start traces every row."""

FLAGS = [
    "--evaluate_seconds=0", "--patience=180",
    *(f"--{name}={value}" for name, value in SETTINGS.items()),
]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder for XLA's programs, so that only the first start compiles."""
    return str(tmp_path_factory.mktemp("xla"))


class Program(programs.Program):
    """A launcher with its cluster, or one process of a cluster."""

    def __init__(self, folder, cache, *flags, **environment):
        self.folder = folder
        super().__init__(
            "training.meta_train", f"--train_dir={folder}", *FLAGS, *flags,
            PYTHONUNBUFFERED="1", HRNN_OPT_CACHE=cache, **environment,
        )  # fmt: skip

    def text(self):
        return self.so_far().said

    def result(self, seconds=300):
        """The JSON on the last line of a program that ends without an error."""
        done = self.wait(seconds)
        assert done.returncode == 0, done.said
        return json.loads(done.stdout.splitlines()[-1])

    def configurations(self):
        """Maps each child's process number to its `TF_CONFIG`."""
        found = {}
        for pid in descendants(self.pid):
            try:
                with open(f"/proc/{pid}/environ") as file:
                    values = dict(
                        x.partition("=")[::2] for x in file.read().split("\0")
                    )
            except OSError:
                continue
            if "TF_CONFIG" in values:
                found[pid] = json.loads(values["TF_CONFIG"])
        return found

    def tasks(self):
        """Maps job and index to the process's number."""
        found = self.configurations()
        tasks = {pid: config["task"] for pid, config in found.items()}
        return {(x["type"], x["index"]): pid for pid, x in tasks.items()}

    def workers(self):
        """The addresses of the workers."""
        return next(iter(self.configurations().values()))["cluster"]["worker"]

    def until(self, condition, seconds=240):
        """Waits for a condition while the program runs."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.poll() is None, self.text()
            assert time.monotonic() < end, self.text()
            time.sleep(0.05)

    def iteration(self):
        """The iteration of the newest checkpoint."""
        return max((n for n, _ in checkpoints.numbered(self.folder)), default=0)

    def until_past(self, iteration):
        """Waits for a later checkpoint."""
        self.until(lambda: self.iteration() > iteration)


def descendants(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(x) for x in file.read().split()]


def gone(numbers, seconds=20):
    end = time.monotonic() + seconds
    while any(os.path.exists(f"/proc/{n}") for n in numbers):
        assert time.monotonic() < end
        time.sleep(0.1)
    return True


def kill(program, task):
    os.kill(program.tasks()[task], signal.SIGKILL)


def lines(folder, name="meta_train.csv"):
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def test_one_worker_does_what_one_process_does(tmp_path, cache):
    with Program(
        tmp_path / "one", cache, f"--rows={ROWS}", "--local_workers=1",
        "--max_iterations=30",
    ) as program:  # fmt: skip
        result = program.result()
    assert result["updates"] >= 30 and result["workers"] == 1
    assert result["staleness_max"] == result["dropped"] == 0
    # Compiled alike: rounding adds up over the updates.
    told = programs.succeeded(
        "tests.one_process", ROWS, json.dumps(SETTINGS), 30
    )
    wanted = json.loads(told.splitlines()[-1])
    found = {int(line["iteration"]): line for line in lines(tmp_path / "one")}
    for number in range(30):
        name, values = wanted[number]
        assert found[number]["row"] == name
        np.testing.assert_allclose(
            [float(found[number][x]) for x in MetaStatistics._fields],
            values, 1e-2, 1e-3,
        )  # fmt: skip


KILLS = int(os.environ.get("SOAK_KILLS", "2"))
PAUSE = float(os.environ.get("SOAK_PAUSE", "0"))
"""For a soak test by hand: SOAK_KILLS=20 SOAK_PAUSE=30 takes ten minutes."""


def test_workers_that_are_killed(tmp_path, cache):
    """The run continues; SIGTERM ends it in order, with no process left."""
    with Program(
        tmp_path / "two", cache, ONE_ROW, "--local_workers=2",
        "--save_seconds=1",
    ) as program:  # fmt: skip
        program.until_past(0)
        processes = set(program.tasks().values())
        for k in range(KILLS):
            time.sleep(PAUSE)
            before = program.iteration()
            kill(program, ("worker", k % 2))
            program.until_past(before + 5)
            processes |= set(program.tasks().values())
        # The last line of cluster.csv counts the workers that answer.
        program.until(lambda: all(map(cluster.listens, program.workers())))
        program.signal(signal.SIGTERM)
        result = program.result(180)
        text = program.text()
    assert text.count("starting it again") >= KILLS
    assert gone(processes)
    arrays, info = checkpoints.newest(tmp_path / "two")
    assert arrays["state/updates"] == result["updates"] > 20
    (stage,) = info["stages"]
    assert (stage["strategy"], stage["workers"]) == ("parameter_server", 2)
    assert info["core_seconds"] > 0
    # A repeated update is detected. Each update has a line, except those of
    # meta-iterations that were never finished.
    iterations = [int(x["iteration"]) for x in lines(tmp_path / "two")]
    assert len(set(iterations)) == len(iterations) <= arrays["state/iteration"]
    alive = [
        float(x["workers"]) for x in lines(tmp_path / "two", "cluster.csv")
    ]
    assert max(alive) == 2


def test_a_lost_chief_or_parameter_server(tmp_path, cache):
    """The run restarts by itself, from its last checkpoint.

    Then the launcher is killed, and no process is left.
    """
    folder = tmp_path / "run"
    with Program(
        folder, cache, ONE_ROW, "--local_workers=1", "--save_seconds=1"
    ) as program:
        program.until_past(5)
        for task, name in ((("ps", 0), "ps 0"), (("chief", 0), "The chief")):
            before = program.iteration()
            kill(program, task)
            program.until_past(before + 5)
            text = program.text()
            assert f"{name} ended (-9)" in text
            assert "Going on at meta-iteration" in text
        processes = set(program.tasks().values())
        assert len(processes) == 3
        program.signal(signal.SIGKILL)
        assert gone(processes, 60)
    arrays, _ = checkpoints.newest(folder)
    assert arrays["state/iteration"] > before
    iterations = [int(x["iteration"]) for x in lines(folder)]
    assert len(set(iterations)) == len(iterations)


def chief_alone(folder, cache, spec, patience=2):
    """The exit code and the output of a chief whose cluster is broken."""
    with Program(
        folder, cache, ONE_ROW, "--strategy=parameter_server",
        "--job_name=chief", f"--cluster_spec={json.dumps(spec)}",
        f"--patience={patience}",
    ) as program:  # fmt: skip
        done = program.wait(300)
    return done.returncode, done.said


def test_a_cluster_without_servers_is_an_error(tmp_path, cache):
    chief, ps, worker = (f"localhost:{x}" for x in launch.free_ports(3))
    status, text = chief_alone(
        tmp_path, cache, {"chief": [chief], "ps": [ps], "worker": [worker]}
    )
    assert status == 1
    assert f"no answer from ps 0 at {ps}, worker 0" in text


def test_servers_that_are_none_are_an_error(tmp_path, cache):
    """Something listens at the address but does not answer."""
    (chief,) = launch.free_ports(1)
    with (
        socket.create_server(("localhost", 0)) as one,
        socket.create_server(("localhost", 0)) as two,
    ):
        ps, worker = (f"localhost:{x.getsockname()[1]}" for x in (one, two))
        spec = {"chief": [f"localhost:{chief}"], "ps": [ps], "worker": [worker]}
        status, text = chief_alone(tmp_path, cache, spec)
    assert status == cluster.AGAIN
    assert "Connecting to the cluster took more than 2 s" in text


def test_a_server_of_another_version_is_an_error(tmp_path, cache):
    """Its card is changed after it has started."""
    ports = [f"localhost:{port}" for port in launch.free_ports(3)]
    spec = {
        job: [port]
        for job, port in zip(("chief", "ps", "worker"), ports, strict=True)
    }

    def server(job):
        return Program(
            tmp_path / "unused", cache, ONE_ROW,
            "--strategy=parameter_server", f"--job_name={job}",
            f"--cluster_spec={json.dumps(spec)}",
        )  # fmt: skip

    with server("ps"), server("worker"):
        found = cluster.resolver(json.dumps(spec), "chief", 0)
        cluster.await_servers(found, 180)
        card = cluster.card_path("worker", 0, spec["worker"][0])
        card.write_text(json.dumps(cluster.versions() | {"rule": 1}))
        status, text = chief_alone(tmp_path / "run", cache, spec, 180)
    assert status == 1 and "worker 0 at" in text
    assert "'rule': 1" in text
