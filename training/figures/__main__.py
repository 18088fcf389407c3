"""`python -m training.figures FIGURE [--flags]`; JSON on the last line.

2: histogram of the number of steps of a problem in meta-training.
3: two LSTM optimizers, meta-trained here, on their own problem and on others.
4: problems of the corpus, compared with Adam and RMSProp.
5: five initial learning rates on random quadratics.
6: ablations: features off, one by one, each variant meta-trained here.
7: time of a gradient and update against the size of the minibatch.
8a: four problems never seen before: MNIST, Fashion-MNIST, CIFAR-10.
profiles: time to the loss of a tuned Adam, compared with all rivals.
practice_profiles: the same on the tasks of the practice suite, from its runs.
wall_clock: the same by the clock, against the size of the minibatch.
depth_width: ResNets of 20, 56 and 110 layers, once and four times as wide.

Each writes figure_N.png, .csv and .json to --out. Finished jobs are kept there,
too (`jobs.csv`), so the same command continues, also with more seeds.
"""

import importlib
import json
import pathlib

from absl import app, flags, logging

from training.common import compilation_cache, output
from training.common.results import Results
from training.figures import FIGURES
from training.figures.settings import Settings, SettingsError

OUT = flags.DEFINE_string("out", "runs/figures", "Folder for the results.")
WEIGHTS = flags.DEFINE_string(
    "weights",
    "pretrained",
    "Name of weights in the package, or path of a weights file or of a run's "
    "checkpoint.",
)
STEPS = flags.DEFINE_integer(
    "steps",
    None,
    "Steps of each run; figure 2: number of problems; figure 7: number of "
    "repeats. Default: the figure's own.",
)
SEEDS = flags.DEFINE_integer(
    "seeds",
    None,
    "Runs of each optimizer; figures 4, 5: number of instances. Default: the "
    "figure's own.",
)
BATCH = flags.DEFINE_integer("batch", 64, "Size of the minibatches.")
PICTURES = flags.DEFINE_integer(
    "pictures", 2048, "Training pictures of each data set."
)
DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Folder in which tensorflow-datasets keeps its data; default: the "
    "library's own.",
)
BUDGET = flags.DEFINE_float(
    "budget", None, "Figures 3, 6: seconds of meta-training of each optimizer."
)
ONLY = flags.DEFINE_list(
    "only", [], "Only tasks, rows or variants whose names contain one of these."
)


def main(argv):
    """Draws one figure."""
    if len(argv) != 2 or argv[1] not in FIGURES:
        raise app.UsageError(
            f"Name one figure of {', '.join(FIGURES)}. Received: {argv[1:]}"
        )
    # tensorflow-datasets logs every data set that it opens.
    logging.set_verbosity(logging.WARNING)
    name = FIGURES[argv[1]]
    module = importlib.import_module(f"training.figures.{name}")
    try:
        settings = Settings(
            out=pathlib.Path(OUT.value),
            weights=WEIGHTS.value,
            steps=STEPS.value,
            seeds=SEEDS.value,
            batch=BATCH.value,
            pictures=PICTURES.value,
            data_dir=DATA_DIR.value,
            budget=BUDGET.value,
            only=tuple(ONLY.value),
        )
        results = Results(settings.out / "jobs.csv")
        numbers = module.run(settings, results)
    except (SettingsError, FileNotFoundError, ImportError) as error:
        raise app.UsageError(str(error)) from error
    output.write_json(settings.out / f"{name}.json", numbers)
    print(f"\n{settings.out / name}.png\n")
    print(json.dumps(numbers))


def run():
    """Entry point of the console script."""
    compilation_cache.enable()
    app.run(main)


if __name__ == "__main__":
    run()
