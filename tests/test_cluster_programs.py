"""A cluster of processes on this machine, and what is done to it."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import problems
from training.common import checkpoints
from training.distributed import cluster, launch
from training.distributed.run import AsynchronousRun
from training.engine.config import MetaConfig
from training.engine.meta_step import MetaStatistics
from training.rules.hierarchical import Hierarchical

pytestmark = [pytest.mark.slow, pytest.mark.required]

ROWS = "log_sum_exp,quadratic_20"
SETTINGS = {
    "seed": 4, "work": 80, "segment": 10, "mean_steps": 10.0,
    "first_mean_unrolls": 2.0,
}  # fmt: skip
FLAGS = [
    f"--rows={ROWS}", "--evaluate_seconds=0",
    *(f"--{name}={value}" for name, value in SETTINGS.items()),
]  # fmt: skip


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """XLA's programs are kept, so that only the first start compiles."""
    folder = tmp_path_factory.mktemp("xla")
    return os.environ | {
        "PYTHONUNBUFFERED": "1",
        "HRNN_OPT_CACHE": str(folder),
    }


def command(folder, *more):
    return [
        sys.executable, "-m", "training.meta_train", f"--train_dir={folder}",
        *FLAGS, *more,
    ]  # fmt: skip


class Program:
    """A launcher with its cluster, which ends with the test."""

    def __init__(self, folder, environment, *more):
        self.folder = folder
        self.out, self.log = (folder.with_suffix(x) for x in (".out", ".log"))
        with self.out.open("w") as out, self.log.open("w") as log:
            self.process = subprocess.Popen(
                command(folder, *more), env=environment, stdout=out, stderr=log
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def text(self):
        return self.log.read_text() + self.out.read_text()

    def wait(self, seconds=300):
        """The JSON on the last line."""
        assert self.process.wait(seconds) == 0, self.text()
        return json.loads(self.out.read_text().splitlines()[-1])

    def tasks(self):
        """Job and index to the process's number, from the environments."""
        found = {}
        for line in descendants(self.process.pid):
            try:
                with open(f"/proc/{line}/environ") as file:
                    values = dict(
                        x.partition("=")[::2] for x in file.read().split("\0")
                    )
            except OSError:
                continue
            if "TF_CONFIG" in values:
                task = json.loads(values["TF_CONFIG"])["task"]
                found[task["type"], task["index"]] = line
        return found

    def iteration(self):
        """Of the newest checkpoint."""
        return max((n for n, _ in checkpoints.numbered(self.folder)), default=0)

    def until_past(self, iteration, seconds=240):
        end = time.monotonic() + seconds
        while self.iteration() <= iteration:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < end, self.text()
            time.sleep(0.1)


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


def test_one_worker_does_what_one_process_does(tmp_path, environment):
    with Program(
        tmp_path / "one", environment, "--local_workers=1",
        "--max_iterations=30",
    ) as program:  # fmt: skip
        result = program.wait()
    assert result["updates"] >= 30 and result["workers"] == 1
    assert result["staleness_max"] == result["dropped"] == 0
    rows = [
        row for row in problems.meta_training_set("paper")
        if row.name in ROWS.split(",")
    ]  # fmt: skip
    total = sum(row.weight for row in rows)
    rows = tuple(row._replace(weight=row.weight / total) for row in rows)
    here = AsynchronousRun(Hierarchical(), rows, MetaConfig(**SETTINGS))
    here.start()
    wanted = {}
    while len(wanted) < 30:
        row, unrolls = here.results(120.0)
        for k, number in enumerate(unrolls.outcome.iteration):
            values = [x[k] for x in unrolls.statistics]
            wanted[int(number)] = row.name, values
    list(here.finish())
    found = {int(line["iteration"]): line for line in lines(tmp_path / "one")}
    for number in range(30):
        name, values = wanted[number]
        assert found[number]["row"] == name
        np.testing.assert_allclose(
            [float(found[number][x]) for x in MetaStatistics._fields],
            values, 1e-2, 1e-3,
        )  # fmt: skip


KILLS = int(os.environ.get("SOAK_KILLS", "4"))
PAUSE = float(os.environ.get("SOAK_PAUSE", "0"))
"""For a soak by hand: SOAK_KILLS=20 SOAK_PAUSE=30 takes ten minutes."""


def test_workers_that_are_killed(tmp_path, environment):
    """Again and again; the run goes on, and nothing is left of it."""
    with Program(
        tmp_path / "two", environment, "--local_workers=2",
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
        time.sleep(12.0)  # A line of cluster.csv.
        program.process.send_signal(signal.SIGTERM)
        result = program.wait(60)
    assert program.text().count("starting it again") >= KILLS
    print(result)
    assert gone(processes)
    arrays, info = checkpoints.newest(tmp_path / "two")
    assert arrays["state/updates"] == result["updates"] > 20
    (stage,) = info["stages"]
    assert (stage["strategy"], stage["workers"]) == ("parameter_server", 2)
    assert info["core_seconds"] > 0
    # An update that was made twice is known; each has a line, but those of
    # meta-iterations that were never finished.
    iterations = [int(x["iteration"]) for x in lines(tmp_path / "two")]
    assert len(set(iterations)) == len(iterations) <= arrays["state/iteration"]
    alive = [
        float(x["workers"]) for x in lines(tmp_path / "two", "cluster.csv")
    ]
    assert max(alive) == 2


@pytest.mark.parametrize("task", [("ps", 0), ("chief", 0)])
def test_a_lost_chief_or_parameter_server(tmp_path, environment, task):
    """The run is started again by itself, at its last checkpoint."""
    with Program(
        tmp_path / "run", environment, "--local_workers=1",
        "--save_seconds=1",
    ) as program:  # fmt: skip
        program.until_past(5)
        before = program.iteration()
        kill(program, task)
        program.until_past(before + 5)
        text = program.text()
        name = {"ps": "ps 0", "chief": "The chief"}[task[0]]
        assert f"{name} ended (-9)" in text
        assert "Going on at meta-iteration" in text
        processes = set(program.tasks().values())
        # SIGTERM ends it in order: a checkpoint, nothing left.
        program.process.send_signal(signal.SIGTERM)
        result = program.wait(60)
    assert gone(processes)
    arrays, _ = checkpoints.newest(tmp_path / "run")
    assert arrays["state/updates"] == result["updates"] > before
    iterations = [int(x["iteration"]) for x in lines(tmp_path / "run")]
    assert len(set(iterations)) == len(iterations)


def test_a_launcher_that_is_killed_leaves_nobody(tmp_path, environment):
    with Program(
        tmp_path / "run", environment, "--local_workers=1"
    ) as program:  # fmt: skip
        end = time.monotonic() + 60
        while len(program.tasks()) < 3:
            assert time.monotonic() < end
            time.sleep(0.1)
        processes = list(program.tasks().values())
        time.sleep(3.0)  # Until they listen to their standard input.
        program.process.kill()
    assert gone(processes, 60)


def chief_alone(tmp_path, environment, servers):
    spec = {"chief": [f"localhost:{launch.free_ports(1)[0]}"], **servers}
    start = time.monotonic()
    done = subprocess.run(
        command(
            tmp_path / "run", "--strategy=parameter_server", "--job_name=chief",
            f"--cluster_spec={json.dumps(spec)}",
        ),
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert time.monotonic() - start < 90
    return done.returncode, done.stdout + done.stderr


def test_a_cluster_without_servers_is_an_error(tmp_path, environment):
    ps, worker = launch.free_ports(2)
    servers = {"ps": [f"localhost:{ps}"], "worker": [f"localhost:{worker}"]}
    status, text = chief_alone(tmp_path, environment, servers)
    assert status == 1
    assert f"no answer from ps 0 at localhost:{ps}, worker 0" in text


def test_servers_that_are_none_are_an_error(tmp_path, environment):
    """Something listens, and says nothing."""
    with (
        socket.create_server(("localhost", 0)) as one,
        socket.create_server(("localhost", 0)) as two,
    ):
        ps, worker = (f"localhost:{x.getsockname()[1]}" for x in (one, two))
        status, text = chief_alone(
            tmp_path, environment, {"ps": [ps], "worker": [worker]}
        )
    assert status != 0 and "Connecting to the cluster" in text


def test_a_server_of_another_version_is_an_error(tmp_path, environment):
    """Its card is changed after its start."""
    ports = launch.free_ports(3)
    spec = {
        job: [f"localhost:{port}"]
        for job, port in zip(("chief", "ps", "worker"), ports, strict=True)
    }
    flags = [*command("unused")[3:], "--strategy=parameter_server"]
    servers = [
        launch.Task(job, 0, spec, flags, tmp_path / f"{job}.log")
        for job in ("ps", "worker")
    ]
    try:
        for task in servers:
            task.start()
        found = cluster.resolver(json.dumps(spec), "chief", 0)
        cluster.await_servers(found, 60)
        card = cluster.card_path("worker", 0, spec["worker"][0])
        card.write_text(json.dumps(cluster.versions() | {"rule": 1}))
        done = subprocess.run(
            command(
                tmp_path / "run", "--strategy=parameter_server",
                "--job_name=chief", f"--cluster_spec={json.dumps(spec)}",
            ),
            env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    finally:
        for task in servers:
            task.end()
    text = done.stdout + done.stderr
    assert done.returncode == 1 and "worker 0 at" in text
    assert "'rule': 1" in text
