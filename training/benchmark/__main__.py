"""`python -m training.benchmark SUITE [--flags]`; JSON on the last line.

update: time and memory of one update, beside Keras's Adam.
"""

import json

from absl import app, flags

PARAMS = flags.DEFINE_integer(
    "params", 1_000_000, "Parameters, in one tensor.", lower_bound=1
)
MODEL = flags.DEFINE_string(
    "model",
    None,
    "Also measure the first step of this keras.applications model, such as "
    "ResNet50V2.",
)
SECONDS = flags.DEFINE_float(
    "seconds", 4.0, "Measuring time of each figure.", lower_bound=0.1
)
THREADS = flags.DEFINE_integer(
    "threads", 1, "Cores to use; 0 uses all.", lower_bound=0
)
SCALING = flags.DEFINE_bool(
    "scaling", True, "Also print time and bytes against parameters, tensors "
    "and units.",
)  # fmt: skip

SUITES = ("update",)


def main(argv):
    """Runs one suite."""
    if len(argv) != 2 or argv[1] not in SUITES:
        raise app.UsageError(
            f"Name one suite of {', '.join(SUITES)}. Received: {argv[1:]}"
        )
    # Imported late: a wrong flag should not take TensorFlow's start-up time.
    from training.benchmark import update

    update.use_cores(THREADS.value)
    result = update.run(PARAMS.value, SECONDS.value)
    if SCALING.value:
        update.print_scaling(SECONDS.value / 4)
    if MODEL.value:
        result |= update.first_step(MODEL.value)
    print(json.dumps(result))


def run():
    """Entry point of the console script."""
    app.run(main)


if __name__ == "__main__":
    run()
