"""`python -m training.evaluate_imagenet --model=NAME --optimizer=NAME`.

Trains an ImageNet classifier from scratch (Figure 8b), on one device, several
devices, or several machines that run this program with a `TF_CONFIG` each. When
run again with the same folder, it continues where it stopped. The last line
printed is JSON.
"""

import contextlib
import dataclasses
import json
import pathlib
import signal

import keras
import tensorflow as tf
from absl import app, flags, logging

from training import replicas
from training.common import compilation_cache
from training.common.files import write
from training.common.memory import Peak
from training.imagenet import (
    files,
    forecast,
    models,
    objective,
    optimizers,
    pipeline,
    source,
)
from training.imagenet.run import Run
from training.imagenet.settings import Settings

MODEL = flags.DEFINE_enum(
    "model", "inception_v3", list(models.MODELS), "Architecture."
)
OPTIMIZER = flags.DEFINE_enum(
    "optimizer", "hrnn", list(optimizers.OPTIMIZERS), "Optimizer."
)
LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", None, "Learning rate; default: the optimizer's own.",
    lower_bound=0.0,
)  # fmt: skip
DATA_DIR = flags.DEFINE_string(
    "data_dir", None,
    "Data folder of tensorflow-datasets (default: $TFDS_DATA_DIR, or else the "
    "library's own).",
)  # fmt: skip
OUT = flags.DEFINE_string("out", None, "Folder of the run.")
STEPS = flags.DEFINE_integer(
    "steps", 100, "Total number of steps of the run.", lower_bound=1
)
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 299, "Width and height of the pictures."
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "Global batch size, over all replicas.", lower_bound=1
)
PRECISION = flags.DEFINE_enum(
    "precision", "float32", models.PRECISIONS, "Precision of the model."
)
STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    replicas.STRATEGIES,
    "Distribution over devices; see `training.replicas`.",
)
SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the weights, the order of the pictures and the crops.",
    lower_bound=0, upper_bound=2**31,
)  # fmt: skip
TRAIN_SPLIT = flags.DEFINE_string(
    "train_split",
    "train",
    "Pictures to train on: 'train' for all, or a part, as in 'train[:64]'.",
)
BUFFER = flags.DEFINE_integer(
    "shuffle_buffer",
    4096,
    "Size of the shuffle buffer, in pictures.",
    lower_bound=1,
)
LOG_EVERY = flags.DEFINE_integer(
    "log_every", 1, "Steps per line of the curve.", lower_bound=1
)
SAVE_EVERY = flags.DEFINE_integer(
    "save_every", 1000, "Steps between checkpoints.", lower_bound=1
)
VALIDATE_EVERY = flags.DEFINE_integer(
    "validate_every", 0, "Steps between validations; 0 for none.", lower_bound=0
)
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Only report parameters, memory and time; train nothing."
)


@contextlib.contextmanager
def misuse():
    """Reports invalid flags or missing data without a traceback."""
    try:
        yield
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        raise app.UsageError(str(error)) from error


def find_data():
    """The builder and its number of pictures; a forecast works without data."""
    try:
        builder = source.find(DATA_DIR.value)
    except (FileNotFoundError, ModuleNotFoundError):
        if DRY_RUN.value:
            return None, source.EXAMPLES
        raise
    return builder, source.count(builder, TRAIN_SPLIT.value)


def settings(examples: int) -> Settings:
    """Settings, from the flags."""
    return Settings(
        model=MODEL.value,
        optimizer=OPTIMIZER.value,
        learning_rate=LEARNING_RATE.value,
        image_size=IMAGE_SIZE.value,
        batch_size=BATCH_SIZE.value,
        precision=PRECISION.value,
        seed=SEED.value,
        shuffle_buffer=BUFFER.value,
        train_split=TRAIN_SPLIT.value,
        examples=examples,
    )


def make_model(chosen: Settings):
    """The model and the optimizer, in the scope of a strategy."""
    keras.utils.set_random_seed(chosen.seed)
    model = models.make(chosen.model, chosen.image_size, chosen.precision)
    optimizer = optimizers.make(
        chosen.optimizer,
        chosen.steps_per_epoch,
        chosen.learning_rate,
        scale_loss=chosen.precision == "mixed_float16",
    )
    return model, optimizer


def make_run(folder, chosen: Settings, builder, strategy) -> Run:
    """The run, new or resumed where it stopped."""
    with strategy.scope():
        model, optimizer = make_model(chosen)
        metrics = objective.metrics()
    loop = replicas.Loop(strategy, model, optimizer, objective.loss, metrics)

    def records(split):
        return lambda machines, machine: source.Records(
            builder, split, machines, machine, chosen.shuffle_buffer
        )

    size, batch_size = chosen.image_size, chosen.batch_size

    def batches(step):
        own = records(chosen.train_split)
        return pipeline.training_batches(
            strategy, own, size, batch_size, chosen.seed, step
        )

    validation = None
    if VALIDATE_EVERY.value:
        validation = pipeline.validation_batches(
            strategy, records("validation"), size, batch_size
        )
    return Run(folder, loop, batches, validation)


def train(folder: pathlib.Path, chosen: Settings, builder, strategy) -> dict:
    """Trains; returns figures of the run."""
    with Peak() as peak:
        run = make_run(folder, chosen, builder, strategy)
        if replicas.is_chief(strategy):
            chosen.write(folder / "settings.json")
        stop = []
        # If one machine stopped, the others would wait for it.
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop.append(True))
        run.train(
            STEPS.value, LOG_EVERY.value, SAVE_EVERY.value,
            VALIDATE_EVERY.value, lambda: bool(stop),
        )  # fmt: skip
    curve = files.read_curve(folder / "train.csv")
    losses = [float(row["loss"]) for row in curve]
    return dataclasses.asdict(chosen) | {
        "steps": run.step,
        "replicas": strategy.num_replicas_in_sync,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "step_seconds": round(run.step_seconds, 4),
        "peak_megabytes": round(peak.megabytes, 1),
    }


def main(argv):
    """Finds the data, then trains or forecasts."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are taken. Received: {argv[1:]}")
    if not flags.FLAGS["verbosity"].present:
        # tensorflow-datasets logs every data set that it builds.
        logging.set_verbosity(logging.WARNING)
    if OUT.value is None and not DRY_RUN.value:
        raise app.UsageError("Flag --out must name the folder of the run.")
    with misuse():
        builder, examples = find_data()
        chosen = settings(examples)
        models.check(chosen.model, chosen.image_size, chosen.precision)
    if DRY_RUN.value:
        model, optimizer = make_model(chosen)
        with misuse():
            count = replicas.count(STRATEGY.value)
        print(forecast.report(chosen, model, optimizer, STEPS.value, count))
        return
    folder = pathlib.Path(OUT.value)
    with misuse():
        chosen.check(folder / "settings.json")
        strategy = replicas.make_strategy(STRATEGY.value)
        replicas.check_batch_size(strategy, chosen.batch_size)
    figures = train(folder, chosen, builder, strategy)
    if replicas.is_chief(strategy):
        write(folder / "figures.json", json.dumps(figures) + "\n")
        print(json.dumps(figures))


def run():
    """Entry point of the console script."""
    compilation_cache.enable()
    app.run(main)


if __name__ == "__main__":
    run()
