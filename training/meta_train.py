"""`python -m training.meta_train --train_dir=DIR`: meta-trains on one machine.

Run it again with the same folder to go on. All settings of
`training.config.MetaConfig` are flags. In the folder: `config.json`,
`checkpoint-N.npz`, `small.npz` (all but the pool, under 2 MB: enough to go on
elsewhere), `meta_train.csv`, `held_out.csv`, `events` for TensorBoard.
"""

import training.kept_compilations  # noqa: F401, I001 (before TensorFlow)

import csv
import dataclasses
import json
import pathlib
import signal

import tensorflow as tf
from absl import app, flags, logging
from tqdm import tqdm

import problems
from hrnn_opt.config import RULE_VERSION
from training import checkpoints
from training.config import MetaConfig
from training.held_out import RIVALS, HeldOut
from training.local import Run
from training.rules import Hierarchical
from training.tables import table
from training.telemetry import Telemetry

TRAIN_DIR = flags.DEFINE_string("train_dir", None, "Folder of the run.")
MAX_SECONDS = flags.DEFINE_float(
    "max_seconds", None, "Stop after so long, counted from the first update."
)
MAX_ITERATIONS = flags.DEFINE_integer(
    "max_iterations", None, "Stop at this meta-iteration."
)
SAVE_SECONDS = flags.DEFINE_float(
    "save_seconds", 300.0, "Time between checkpoints."
)
EVALUATE_SECONDS = flags.DEFINE_float(
    "evaluate_seconds", 900.0, "Time between held-out evaluations; 0: none."
)
KEEP = flags.DEFINE_integer("keep", 2, "Newest checkpoints kept.")
ROWS = flags.DEFINE_list(
    "rows", None, "Only these rows of the set, by name; default: all."
)
START = flags.DEFINE_string(
    "start", None, "A checkpoint of another run to start a new run from."
)
CORES = flags.DEFINE_integer("cores", 1, "To use; 0 uses all.", lower_bound=0)


def define_settings():
    """A flag for every field of `MetaConfig`; None is the default."""
    kinds = {
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        bool: flags.DEFINE_bool,
        str: flags.DEFINE_string,
    }
    for field in dataclasses.fields(MetaConfig):
        text = f"{field.metadata['help']} (default: {field.default})"
        kinds[field.type](field.name, None, text)


define_settings()


def settings(folder: pathlib.Path) -> MetaConfig:
    """The run's settings: those stored in the folder, else the flags'.

    Raises:
        app.UsageError: a flag differs from the stored setting.
    """
    given = {
        field.name: flags.FLAGS[field.name].value
        for field in dataclasses.fields(MetaConfig)
        if flags.FLAGS[field.name].value is not None
    }
    path = folder / "config.json"
    if not path.exists():
        return MetaConfig(**given)
    stored = MetaConfig.from_json(path.read_text())
    for name, value in given.items():
        if getattr(stored, name) != value:
            raise app.UsageError(
                f"Flag --{name} must be {getattr(stored, name)!r}, as in "
                f"{path}, or left out. Received: --{name}={value!r}"
            )
    return stored


def selected(rows: tuple) -> tuple:
    """Those that --rows leaves, with weights that sum to 1.

    Raises:
        app.UsageError: no such row.
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


def started_from(path: pathlib.Path):
    """The checkpoint of another run, and its CSV if it lies beside it.

    Raises:
        app.UsageError: there is no such file, or it is damaged.
    """
    try:
        found = checkpoints.read(path)
    except (OSError, ValueError) as error:
        raise app.UsageError(
            f"Flag --start must be a whole checkpoint ({error}). "
            f"Received: --start={path}"
        ) from error
    logging.info("Starting from %s.", path)
    curve = path.with_name("meta_train.csv")
    return found, curve.read_text() if curve.exists() else None


def prepare(folder: pathlib.Path) -> tuple[Run, dict]:
    """The run, new or where it stopped, and what is known of it so far."""
    config = settings(folder)
    rows = selected(problems.meta_training_set(config.ensemble))
    run, info = Run(Hierarchical(), rows, config), {}
    found, curve = checkpoints.newest(folder), None
    if found is None and START.value:
        found, curve = started_from(pathlib.Path(START.value))
    if found is not None:
        arrays, info = found
        if info["rule_version"] != RULE_VERSION:
            raise app.UsageError(
                f"The checkpoint must be of rule version {RULE_VERSION}. "
                f"Received: version {info['rule_version']}"
            )
        run.restore(arrays)
        logging.info("Going on at meta-iteration %d.", run.state.iteration)
    folder.mkdir(parents=True, exist_ok=True)
    if curve is not None:
        (folder / "meta_train.csv").write_text(curve)
    (folder / "config.json").write_text(config.to_json() + "\n")
    stages, settings_now = info.get("stages", []), config.changed()
    if not stages or stages[-1]["settings"] != settings_now:
        start = {
            "from": run.state.iteration,
            "rule_version": RULE_VERSION,
            "settings": settings_now,
        }
        stages = [*stages, start]
    return run, {
        "rule_version": RULE_VERSION,
        "rule_config": dataclasses.asdict(run.rule.config),
        "config": json.loads(config.to_json()),
        "stages": stages,
        "seconds": info.get("seconds", 0.0),
        "core_seconds": info.get("core_seconds", 0.0),
    }


def save(folder: pathlib.Path, run: Run, info: dict, telemetry: Telemetry):
    """The checkpoint with the pool, and the small one."""
    telemetry.flush()
    info = info | {
        "seconds": telemetry.seconds,
        "core_seconds": telemetry.core_seconds,
    }
    checkpoints.save(
        folder, run.state.iteration, run.arrays(), info, KEEP.value
    )
    checkpoints.write(folder / "small.npz", run.arrays(pool=False), info)


def evaluate(folder: pathlib.Path, run: Run, held_out: HeldOut, telemetry):
    """Held-out draws, under the averaged meta-parameters."""
    results = held_out(run.state.average)
    telemetry.held_out(run.state.iteration, results)
    with (folder / "held_out.csv").open("a", newline="") as file:
        writer = csv.writer(file)
        for name, values in results.items():
            writer.writerow([run.state.iteration, name, *values])
    names = [name for name, _, _ in RIVALS]
    rows = [
        [name, *(f"{value:.2f}" for value in values)]
        for name, values in results.items()
    ]
    wins = [
        sum(own <= rival[k] - 0.1 for own, *rival in results.values())
        for k in range(len(names))
    ]
    rows.append(["ahead of", "", *(f"{n} of {len(results)}" for n in wins)])
    tqdm.write(
        f"\nHeld out, meta-iteration {run.state.iteration}: median log loss "
        f"after {held_out.steps} steps\n\n"
        + table(["row", "own", *names], rows) + "\n"
    )  # fmt: skip


def main(argv):
    """Meta-trains until the time is up or a signal comes."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are taken. Received: {argv[1:]}")
    if CORES.value:
        tf.config.threading.set_intra_op_parallelism_threads(CORES.value)
        tf.config.threading.set_inter_op_parallelism_threads(CORES.value)
    folder = pathlib.Path(TRAIN_DIR.value)
    run, info = prepare(folder)
    stop = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.append(True))

    workers = CORES.value or 2
    names = run.compile(workers)
    for _ in tqdm(names, total=len(run.rows), desc="compiling", unit="row"):
        if stop:
            return
    held_out = None
    if EVALUATE_SECONDS.value:
        held_out = HeldOut(run.rule, run.rows, run.config)
    telemetry = Telemetry(
        folder, run.state.iteration, info["seconds"], MAX_SECONDS.value,
        info["core_seconds"],
    )  # fmt: skip
    saved = evaluated = telemetry.elapsed
    while not stop:
        if MAX_SECONDS.value and telemetry.elapsed >= MAX_SECONDS.value:
            break
        if MAX_ITERATIONS.value and run.state.iteration >= MAX_ITERATIONS.value:
            break
        iteration, before = run.state.iteration, run.inner_steps
        row, statistics = run.iterate()
        telemetry.meta_iteration(
            iteration, row.name, run.inner_steps - before, statistics
        )
        now = telemetry.elapsed
        if now - saved >= SAVE_SECONDS.value:
            save(folder, run, info, telemetry)
            saved = now
        if held_out and now - evaluated >= EVALUATE_SECONDS.value:
            evaluate(folder, run, held_out, telemetry)
            evaluated = telemetry.elapsed
    save(folder, run, info, telemetry)
    if held_out and not stop:
        evaluate(folder, run, held_out, telemetry)
    telemetry.close()
    print(
        f"\n{run.state.iteration:,} meta-iterations, {run.inner_steps:,} inner "
        f"steps, {telemetry.seconds:,.0f} s: {folder}"
    )


def run_program():
    """Entry point of the console script."""
    flags.mark_flag_as_required("train_dir")
    app.run(main)


if __name__ == "__main__":
    run_program()
