"""`python -m training.meta_train --train_dir=DIR`: meta-trains.

To continue a run, start it again with the same folder. Every setting of
`training.engine.config.MetaConfig` is a flag; `training.runs.folder` describes
the files in the folder. With --strategy=parameter_server, each process of a
cluster runs this program; --local_workers=N starts a cluster on this machine.
"""

import dataclasses
import pathlib
import signal
import sys

import tensorflow as tf
from absl import app, flags, logging
from tqdm import tqdm

import problems
from training.common import compilation_cache, old_names
from training.engine.compiled import keep_graphs_as_traced
from training.engine.config import MetaConfig
from training.rules.hierarchical import Hierarchical
from training.runs import folder as run_folder
from training.runs import local, loop
from training.runs.folder import RunFolder

TRAIN_DIR = flags.DEFINE_string("train_dir", None, "Folder of the run.")
MAX_SECONDS = flags.DEFINE_float(
    "max_seconds",
    None,
    "Stop after this many seconds, counted from the first update.",
)
MAX_ITERATIONS = flags.DEFINE_integer(
    "max_iterations", None, "Stop at this meta-iteration."
)
SAVE_SECONDS = flags.DEFINE_float(
    "save_seconds", 300.0, "Seconds between checkpoints."
)
EVALUATE_SECONDS = flags.DEFINE_float(
    "evaluate_seconds", 900.0, "Seconds between held-out evaluations; 0: none."
)
KEEP = flags.DEFINE_integer("keep", 2, "Number of newest checkpoints to keep.")
ROWS = flags.DEFINE_list(
    "rows", None, "Names of the rows of the set to train on; default: all."
)
START = flags.DEFINE_string(
    "start", None, "Checkpoint of another run from which to start a new run."
)
STRATEGY = flags.DEFINE_enum(
    "strategy",
    "local",
    ["local", "parameter_server"],
    "Whether to train on one machine (local), or in a cluster whose processes "
    "all run this program (parameter_server).",
)
LOCAL_WORKERS = flags.DEFINE_integer(
    "local_workers",
    0,
    "Start a cluster with this many workers on this machine; 0: none.",
    lower_bound=0,
)
CLUSTER_SPEC = flags.DEFINE_string(
    "cluster_spec",
    None,
    "JSON object that maps the jobs chief, ps and worker to lists of "
    "addresses, or a file that contains it; default: TF_CONFIG, or else "
    "Slurm's environment.",
)
JOB_NAME = flags.DEFINE_string(
    "job_name", None, "Job of this process: chief, ps or worker."
)
TASK_INDEX = flags.DEFINE_integer(
    "task_index", 0, "Index of this process in its job.", lower_bound=0
)
PATIENCE = flags.DEFINE_float(
    "patience",
    45.0,
    "Seconds to wait for missing servers of the cluster before this is an "
    "error.",
    lower_bound=0.0,
)
MAX_STALENESS = flags.DEFINE_integer(
    "max_staleness",
    None,
    "Drop updates whose staleness, counted in updates, exceeds this; default: "
    "drop none.",
    lower_bound=0,
)
CORES = flags.DEFINE_integer(
    "cores", 1, "Number of cores to use; 0 uses all.", lower_bound=0
)


def define_settings():
    """Defines a flag for every field of `MetaConfig`; defaults are None."""
    kinds = {
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        bool: flags.DEFINE_bool,
        str: flags.DEFINE_string,
    }
    for field in dataclasses.fields(MetaConfig):
        text = f"{field.metadata['help']} (default: {field.default})"
        kinds[field.type](field.name, None, text)


def refuse_old_names():
    """Makes flags of earlier versions errors that name the present ones."""
    for old, new in old_names.SETTINGS.items():
        flags.DEFINE_string(old, None, f"Renamed to --{new}.")
        flags.register_validator(
            old, lambda value: value is None, f"Use --{new} instead of --{old}."
        )


define_settings()
refuse_old_names()


def selected(rows: tuple) -> tuple:
    """The rows that --rows selects, with weights that sum to 1.

    Raises:
        app.UsageError: --rows is empty or names an unknown row.
    """
    if ROWS.value is None:
        return rows
    names = [row.name for row in rows]
    wrong = set(ROWS.value) - set(names)
    if wrong or not ROWS.value:
        raise app.UsageError(
            f"Flag --rows must be some of {', '.join(names)}. "
            f"Received: {', '.join(sorted(wrong)) or 'none'}"
        )
    kept = [row for row in rows if row.name in ROWS.value]
    total = sum(row.weight for row in kept)
    return tuple(row._replace(weight=row.weight / total) for row in kept)


def given_settings() -> dict:
    """The settings that are given as flags."""
    return {
        field.name: flags.FLAGS[field.name].value
        for field in dataclasses.fields(MetaConfig)
        if flags.FLAGS[field.name].value is not None
    }


def prepared(make, how=None) -> tuple[RunFolder, "local.Run"]:
    """The folder and the run, new or restored from its last checkpoint.

    Args:
        make: function of a rule, rows and settings that returns a run.
        how: see `RunFolder.prepare`.

    Raises:
        app.UsageError: flags or files in the folder do not fit the run.
    """
    path = pathlib.Path(TRAIN_DIR.value)
    start = pathlib.Path(START.value) if START.value else None
    try:
        config = run_folder.settings(path, given_settings())
        rows = selected(problems.meta_training_set(config.ensemble))
        folder = RunFolder(path, config, KEEP.value)
        run = make(Hierarchical(config.rule_config), rows, config)
        folder.prepare(run, start, how)
    except ValueError as error:
        raise app.UsageError(str(error)) from error
    return folder, run


def schedule() -> loop.Schedule:
    """When the run saves, evaluates and ends, according to the flags."""
    return loop.Schedule(
        MAX_SECONDS.value,
        MAX_ITERATIONS.value,
        SAVE_SECONDS.value,
        EVALUATE_SECONDS.value,
    )


def until_a_signal() -> list:
    """A list that stays empty until SIGTERM or SIGINT arrives."""
    came = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: came.append(True))
    return came


def train_here():
    """Meta-trains on this machine."""
    if CORES.value:
        tf.config.threading.set_intra_op_parallelism_threads(CORES.value)
        tf.config.threading.set_inter_op_parallelism_threads(CORES.value)
    keep_graphs_as_traced()
    folder, run = prepared(local.Run)
    stop = until_a_signal()
    for what, names in (
        ("tracing", run.trace()),
        ("compiling", run.compile(CORES.value or 2)),
    ):
        for _ in tqdm(names, total=len(run.rows), desc=what, unit="row"):
            if stop:
                return
    log = folder.log(run, MAX_SECONDS.value)

    def advance(iteration):
        before = run.inner_steps
        row, statistics = run.iterate()
        log.meta_iteration(
            iteration, row.name, run.inner_steps - before, statistics
        )
        return run.state.iteration

    loop.train(folder, run, log, schedule(), advance, lambda: bool(stop))


def train_in_cluster():
    """Runs this process's part of a cluster."""
    from training.distributed import chief, cluster, launch, server
    from training.distributed.run import AsynchronousRun

    launch.end_with_launcher()
    try:
        found = cluster.resolver(
            CLUSTER_SPEC.value, JOB_NAME.value, TASK_INDEX.value
        )
        if found.task_type != "chief":
            server.start(found, CORES.value).join()
        threads = cluster.inter_op_threads(found)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        coordinator = cluster.connect(found, PATIENCE.value)
    except cluster.ClusterError as error:
        sys.exit(f"The cluster does not work. {error}")
    workers = len(found.cluster_spec().task_indices("worker"))
    stop = until_a_signal()
    try:
        folder, run = prepared(
            lambda *args: AsynchronousRun(
                *args, coordinator, workers, MAX_STALENESS.value
            ),
            {"strategy": "parameter_server", "workers": workers},
        )
        chief.train(folder, run, found, schedule(), lambda: bool(stop))
    except chief.LOST as error:
        logging.error(
            "The parameter server is lost (%s). Start again: the run goes on "
            "at its last checkpoint.", error.message.splitlines()[0],
        )  # fmt: skip
        cluster.leave(cluster.AGAIN)
    # The servers keep running; whoever started them ends them.
    cluster.leave(0)


def main(argv):
    """Meta-trains, or runs this process's part of it."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are taken. Received: {argv[1:]}")
    if LOCAL_WORKERS.value:
        from training.distributed import launch

        folder = pathlib.Path(TRAIN_DIR.value)
        sys.exit(launch.run(LOCAL_WORKERS.value, sys.argv[1:], folder))
    elif STRATEGY.value == "parameter_server":
        train_in_cluster()
    else:
        train_here()


def run_program():
    """Entry point of the console script."""
    flags.mark_flag_as_required("train_dir")
    compilation_cache.enable()
    app.run(main)


if __name__ == "__main__":
    run_program()
