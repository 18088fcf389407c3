"""`python -m training.benchmark SUITE [--flags]`; JSON on the last line.

update: time and memory of one update, compared with Keras's Adam, also with
state in bfloat16, and where its time goes, on the backend that KERAS_BACKEND
names; the other suites need TensorFlow.
cores: an update on one core and on all of them.
problems: time to draw problems and to compute their gradients.
estimate: the forecasts of `hrnn_opt.estimate` compared with measurements.
eigenbases: what seeing gradients in their eigenbases costs.
embeddings: time of a step of a large embedding, compared with Adam's.
trials: first steps of many models in one process, and the memory they leave
in use.
telemetry: what `hrnn_opt.callbacks.Telemetry` costs.
meta: inner steps per second of whole meta-gradients, and compile times.
compiling: time to compile a set of problems, at the first and second start.
asynchronous: the speed-up from more workers in meta-training, the limit of a
parameter server, and the effect of stale gradients on learning.
"""

import json

from absl import app, flags

# Only for `update`.
PARAMS = flags.DEFINE_integer(
    "params", 1_000_000, "Number of parameters, in one tensor.", lower_bound=1
)
MODEL = flags.DEFINE_string(
    "model",
    None,
    "Also measure the first step of this keras.applications model, such as "
    "ResNet50V2.",
)
SCALING = flags.DEFINE_bool(
    "scaling", True,
    "Also print time and bytes against the numbers of parameters, tensors and "
    "units.",
)  # fmt: skip

# For `problems`; `meta` uses the last one, too.
INSTANCES = flags.DEFINE_integer(
    "instances", 64, "Number of instances of each problem.", lower_bound=1
)
ONLY = flags.DEFINE_string(
    "only",
    None,
    "Measure only problems, rows, models or cases whose names contain this; "
    "`asynchronous`: one of its parts: scaling, ceiling, late or curve.",
)
# For `trials`.
TRIALS = flags.DEFINE_integer(
    "trials", 40, "Number of models of each kind and optimizer.", lower_bound=5
)
# For `asynchronous`.
OUT = flags.DEFINE_string(
    "out", "runs/asynchronous", "Folder for runs and pictures."
)
ITERATIONS = flags.DEFINE_integer(
    "iterations",
    4000,
    "Meta-iterations of each run that measures learning.",
    lower_bound=400,
)
# For all suites.
SECONDS = flags.DEFINE_float(
    "seconds",
    4.0,
    "Seconds of measurement for each figure of `update` and `meta`. Each of "
    "the hundred figures of `problems` takes a twentieth of this, each "
    "program of `asynchronous` 25 times as long.",
    lower_bound=0.1,
)
ENSEMBLE = flags.DEFINE_enum(
    "ensemble",
    "paper",
    ["paper", "wide"],
    "Set of problems that `meta`, `compiling` and `asynchronous` measure.",
)
THREADS = flags.DEFINE_integer(
    "threads",
    None,
    "Number of cores to use; 0 uses all. Default: 1, but all for `cores`, "
    "for `compiling` and for `asynchronous`, whose processes share them.",
    lower_bound=0,
)


def _update() -> dict:
    from training.benchmark import parts, update

    result = update.run(PARAMS.value, SECONDS.value)
    result |= parts.run(SECONDS.value / 4)
    result |= update.states(PARAMS.value, SECONDS.value)
    if SCALING.value:
        update.print_scaling(PARAMS.value, SECONDS.value / 4)
    if MODEL.value:
        result |= update.first_step(MODEL.value)
    return result


def _cores() -> dict:
    from training.benchmark import cores

    try:
        return cores.run(SECONDS.value, ONLY.value)
    except ValueError as error:
        raise app.UsageError(str(error)) from error


def _problems() -> dict:
    from training.benchmark import problems

    return problems.run(INSTANCES.value, SECONDS.value / 20, ONLY.value)


def _meta() -> dict:
    from training.benchmark import meta

    return meta.run(SECONDS.value, ENSEMBLE.value, ONLY.value)


def _compiling() -> dict:
    from training.benchmark import compiling

    return compiling.run(ENSEMBLE.value, ONLY.value)


def _asynchronous() -> dict:
    from training.benchmark import asynchronous

    return asynchronous.run(
        25 * SECONDS.value,
        ENSEMBLE.value,
        ITERATIONS.value,
        OUT.value,
        ONLY.value,
    )


def _estimate() -> dict:
    from training.benchmark import estimates

    return estimates.run(MODEL.value, SECONDS.value / 4, ONLY.value)


def _eigenbases() -> dict:
    from training.benchmark import eigenbases

    return eigenbases.run(SECONDS.value, ONLY.value)


def _embeddings() -> dict:
    from training.benchmark import embeddings

    return embeddings.run(SECONDS.value)


def _trials() -> dict:
    from training.benchmark import trials

    return trials.run(TRIALS.value, ONLY.value)


def _telemetry() -> dict:
    from training.benchmark import telemetry_cost

    return telemetry_cost.run(SECONDS.value, ONLY.value)


# Name to a function that prints tables and returns figures. Each imports its
# own module, so that a wrong flag is reported without starting TensorFlow.
SUITES = {
    "update": _update,
    "cores": _cores,
    "problems": _problems,
    "meta": _meta,
    "compiling": _compiling,
    "asynchronous": _asynchronous,
    "estimate": _estimate,
    "eigenbases": _eigenbases,
    "embeddings": _embeddings,
    "trials": _trials,
    "telemetry": _telemetry,
}


def main(argv):
    """Runs one suite."""
    if len(argv) != 2 or argv[1] not in SUITES:
        raise app.UsageError(
            f"Name one suite of {', '.join(SUITES)}. Received: {argv[1:]}"
        )
    from training.benchmark.steps import use_cores

    threads = THREADS.value
    if threads is None:
        threads = 0 if argv[1] in ("asynchronous", "compiling", "cores") else 1
    use_cores(threads)
    print(json.dumps(SUITES[argv[1]]()))


def run():
    """Entry point of the console script."""
    app.run(main)


if __name__ == "__main__":
    run()
