"""`python -m training.evaluate SUITE --weights=NAME`: compares optimizers.

corpus: held-out draws of every row of a meta-training set, beside Adam and
    RMSProp.
networks: networks on real data that are in no such set, beside Adam.
practice: twenty networks as users have them, with persistent gradient noise.
endurance: the same networks in long runs, without rivals: do they last?

Prints tables; the last line printed is JSON.
"""

import json
import pathlib

import keras
from absl import app, flags
from tqdm import tqdm

import problems
from hrnn_opt.model.slots import STATE_DTYPES
from training.common import compilation_cache
from training.common.results import Results
from training.common.tables import table
from training.evaluation import candidates, corpus, networks, practice

WEIGHTS = flags.DEFINE_string(
    "weights",
    "pretrained",
    "Name of weights in the package, or path of a weights file or of a run's "
    "checkpoint.",
)
ENSEMBLE = flags.DEFINE_enum(
    "ensemble",
    "paper",
    problems.set_names(),
    "`corpus`: set of problems to evaluate on.",
)
STEPS = flags.DEFINE_multi_integer(
    "steps",
    None,
    "`corpus`: steps of each run (default 1000). `networks`: step after which "
    "the loss is taken; may be repeated (default 500, 2000, 10000). "
    "`practice`, `endurance`: steps of each run, a multiple of 50 (default "
    "1500 and 20000).",
)
INSTANCES = flags.DEFINE_integer(
    "instances",
    32,
    "`corpus`: number of held-out instances of each row.",
    lower_bound=1,
)
SEEDS = flags.DEFINE_integer(
    "seeds",
    None,
    "Runs of each network (`networks`, default 3) or task (`practice`, default "
    "2, and `endurance`, default 1).",
    lower_bound=1,
)
ONLY = flags.DEFINE_string(
    "only",
    None,
    "`corpus`, `networks`: only rows or networks whose names contain this.",
)
STATE_DTYPE = flags.DEFINE_enum(
    "state_dtype",
    "float32",
    STATE_DTYPES,
    "`networks`: data type of the learned optimizer's state.",
)
RESULTS = flags.DEFINE_string(
    "results",
    None,
    "CSV file to which finished runs are added and from which they are "
    "reused. `corpus`: do not reuse it after the problems have changed.",
)
BEST = flags.DEFINE_bool(
    "best", True, "`networks`: also find Adam's best learning rate."
)
TASKS = flags.DEFINE_list(
    "tasks",
    None,
    "`practice`, `endurance`: names of the tasks to run, separated by commas.",
)
HALF = flags.DEFINE_enum(
    "half",
    None,
    practice.HALVES,
    "`practice`, `endurance`: only the tasks for decisions, or only those for "
    "the final table.",
)
QUICK = flags.DEFINE_bool(
    "quick",
    False,
    "`practice`, `endurance`: only eight of the tasks for decisions.",
)
LEARNING_RATES = flags.DEFINE_list(
    "learning_rates",
    None,
    "`practice`, `endurance`: initial step lengths of the learned optimizer, "
    "separated by commas (default: the constructor's).",
)
RIVALS = flags.DEFINE_string(
    "rivals",
    None,
    "`practice`: CSV file with the rivals' finished runs (default: the "
    "package's own).",
)
REFERENCES = flags.DEFINE_bool(
    "references",
    False,
    "`practice`: also run the rivals other than Adam whose runs are not "
    "finished.",
)
OUT = flags.DEFINE_string(
    "out",
    "runs/practice",
    "`practice`, `endurance`: folder for the picture and the scores.",
)
DRAW_STEPS = flags.DEFINE_list(
    "draw_steps",
    (),
    "`practice`: instead of computing scores, draw every tensor's step "
    "lengths on these tasks, beside those of the best Adam.",
)


def selected(names) -> list:
    """The names that --only selects.

    Raises:
        app.UsageError: --only selects none.
    """
    kept = [n for n in names if ONLY.value is None or ONLY.value in n]
    if not kept:
        raise app.UsageError(
            f"Flag --only must be part of one of {list(names)}. "
            f"Received: {ONLY.value!r}"
        )
    return kept


def run_corpus() -> dict:
    """Evaluates on the rows of a set."""
    rule, vector = candidates.load(WEIGHTS.value)
    steps = (STEPS.value or [1000])[-1]
    rows = {row.name: row for row in problems.meta_training_set(ENSEMBLE.value)}
    kept, results = Results(RESULTS.value), {}
    for name in tqdm(selected(rows), unit="row"):
        row, count = rows[name], INSTANCES.value
        job = f"{ENSEMBLE.value} {name}; {count} instances; {steps} steps"
        own = kept.get(
            f"{job}; own {candidates.digest(rule, vector)}",
            lambda row=row, count=count: corpus.own(
                rule, vector, row, steps, count
            ),
        )
        rivals = kept.get(
            f"{job}; rivals",
            lambda row=row, count=count: corpus.rivals(row, steps, count),
        )
        results[name] = corpus.Result(tuple(own), *rivals)
    own = [f"own {rate:.0e}" for rate in corpus.OWN_RATES]
    header = ["row", *own, "Adam 2e-3", "RMSProp 1e-2", "best Adam",
              "best RMSProp"]  # fmt: skip
    lines = [
        [name, *(f"{x:.2f}" for x in (*result.own, *result[1:]))]
        for name, result in results.items()
    ]
    print(f"\nMedian final log loss, {steps} steps\n")
    print(table(header, lines))
    figures = {}
    print(f"\nRows won (by {corpus.MARGIN}) of {len(results)}\n")
    for rival in ("adam", "rmsprop", "best_adam", "best_rmsprop"):
        figures[f"wins_{rival}"] = corpus.wins(results, rival)
    print(
        table(
            ["against", *own],
            [[key[5:], *map(str, won)] for key, won in figures.items()],
        )
    )
    return figures | {"rows": len(results), "weights": WEIGHTS.value}


def run_networks() -> dict:
    """Evaluates on the networks."""
    rule, vector = candidates.load(WEIGHTS.value)
    milestones = sorted(STEPS.value or [500, 2000, 10000])
    makers = {
        "own": lambda: candidates.optimizer(
            rule, vector, state_dtype=STATE_DTYPE.value
        ),
        "Adam 2e-3": lambda: keras.optimizers.Adam(2e-3),
    }
    if BEST.value:
        for rate in networks.RATES:
            makers[f"Adam {rate:.0e}"] = lambda rate=rate: (
                keras.optimizers.Adam(rate)
            )
    names = selected(networks.TARGETS)
    results = Results(RESULTS.value)
    own = candidates.digest(rule, vector)
    if STATE_DTYPE.value != "float32":
        own += f" {STATE_DTYPE.value}"
    losses = {}
    jobs = [
        (n, o, s)
        for n in names
        for o in makers
        for s in range(SEEDS.value or 3)
    ]
    for name, optimizer, seed in tqdm(jobs, unit="run"):
        who = f"own {own}" if optimizer == "own" else optimizer
        losses[name, optimizer, seed] = results.get(
            f"{name}; {who}; seed {seed}; steps {milestones}",
            lambda name=name, optimizer=optimizer, seed=seed: networks.train(
                networks.TARGETS[name], makers[optimizer](), milestones, seed
            ),
        )
    return report_networks(names, list(makers), milestones, losses)


def report_networks(names, optimizers, milestones, losses) -> dict:
    """The table, and the geometric means of ratios."""

    def of(name, optimizer, k):
        return [losses[name, optimizer, s][k] for s in range(SEEDS.value or 3)]

    lines, figures = [], {}
    for k, milestone in enumerate(milestones):
        plain, best = [], []
        for name in names:
            means = {
                o: networks.ratio(of(name, o, k), [1.0] * (SEEDS.value or 3))
                for o in optimizers
            }
            rivals = [o for o in optimizers if o.startswith("Adam")]
            winner = min(rivals, key=means.get)
            plain.append(means["own"] / means["Adam 2e-3"])
            best.append(means["own"] / means[winner])
            lines.append(
                [name, milestone, f"{means['own']:.4g}",
                 f"{means['Adam 2e-3']:.4g}",
                 f"{means[winner]:.4g} ({winner})",
                 f"{plain[-1]:.2f}", f"{best[-1]:.2f}"]
            )  # fmt: skip
        figures[f"to_adam_{milestone}"] = networks.ratio(
            plain, [1.0] * len(plain)
        )
        figures[f"to_best_adam_{milestone}"] = networks.ratio(
            best, [1.0] * len(best)
        )
    print(
        table(
            ["network", "steps", "own", "Adam 2e-3", "best Adam", "ratio",
             "to best"],
            lines,
        )
    )  # fmt: skip
    return {k: round(v, 3) for k, v in figures.items()} | {
        "weights": WEIGHTS.value,
        "state_dtype": STATE_DTYPE.value,
    }


def practice_settings(**defaults) -> practice.Settings:
    """The settings of the practice suite, from the flags.

    Raises:
        app.UsageError: a flag does not fit.
    """
    given = {
        "tasks": DRAW_STEPS.value or TASKS.value,
        "rates": LEARNING_RATES.value and map(float, LEARNING_RATES.value),
        "half": HALF.value,
        "steps": STEPS.value and STEPS.value[-1],
        "seeds": SEEDS.value,
        "results": RESULTS.value,
        "rivals": RIVALS.value,
    }
    given = {
        name: tuple(value) if name in ("tasks", "rates") else value
        for name, value in given.items()
        if value is not None
    }
    try:
        return practice.Settings(
            weights=WEIGHTS.value,
            quick=QUICK.value,
            references=REFERENCES.value,
            **defaults | given,
        )
    except ValueError as error:
        raise app.UsageError(str(error)) from error


def run_practice() -> dict:
    """Runs the practice suite."""
    settings = practice_settings()
    run = practice.draw_steps if DRAW_STEPS.value else practice.run
    figures = run(settings, pathlib.Path(OUT.value))
    return figures | {"weights": WEIGHTS.value}


def run_endurance() -> dict:
    """Runs tasks of the practice suite for long."""
    settings = practice_settings(steps=20_000, seeds=1)
    try:
        practice.endurance.check_steps(settings.steps)
    except ValueError as error:
        raise app.UsageError(str(error)) from error
    figures = practice.endurance.run(settings, pathlib.Path(OUT.value))
    return figures | {"weights": WEIGHTS.value}


SUITES = {
    "corpus": run_corpus,
    "networks": run_networks,
    "practice": run_practice,
    "endurance": run_endurance,
}


def main(argv):
    """Runs one suite."""
    if len(argv) != 2 or argv[1] not in SUITES:
        raise app.UsageError(
            f"Name one suite of {', '.join(SUITES)}. Received: {argv[1:]}"
        )
    print(json.dumps(SUITES[argv[1]]()))


def run():
    """Entry point of the console script."""
    compilation_cache.enable()
    app.run(main)


if __name__ == "__main__":
    run()
