"""The practice suite's tasks: time to the loss of the best Adam, as profiles.

The suite's runs are made, or taken from the repository, by
`training.evaluation.practice`; here they are only looked at in another way. A
task's target is the loss at which Adam ends at its best of six rates for that
task: the mean of the last 100 minibatches. Each half of the suite has its own
panel, since decisions were made on one of them.
"""

import numpy as np

from training.common import output
from training.common.results import Results
from training.common.tables import table
from training.evaluation import practice as suite
from training.evaluation.practice import score
from training.evaluation.practice.contenders import ADAM, COSINE, RATES
from training.evaluation.practice.report import references
from training.evaluation.practice.runs import BLOCK, Run, check_steps
from training.evaluation.practice.suite import RIVALS
from training.figures import profile_panels
from training.figures.comparison import OWN
from training.figures.settings import Settings, SettingsError
from training.figures.time_to_target import ratios, reached_by
from training.figures.time_to_target import score as profile_score

STEPS, SEEDS = 1500, 1

DEFAULT = 1e-3
"""Adam's learning rate in Keras."""


def contestants(found, own: str, rate: float) -> list[tuple]:
    """The optimizers that are compared.

    Args:
        found: the suite's runs of each task (`Found`).
        own: the learned optimizer's name among them.
        rate: its first step length.

    Returns:
        (name, the suite's name, learning rate or None for each task's best).
    """
    listed = [(OWN, own, rate), ("Adam, best of 6 rates", ADAM, None)]
    listed += [(f"Adam {x:g}", ADAM, x) for x in (DEFAULT, single(found))]
    for name in references(found):
        label = "AdamW, cosine, best of 6" if name == COSINE else name
        listed.append((label, name, None))
    return list({one[0]: one for one in listed}.values())


def single(found) -> float:
    """The one learning rate for all tasks with which Adam's scores are best."""

    def mean(rate):
        return score.summary(
            [one.score(ADAM, rate) for one in found]
        ).geometric_mean

    return min(RATES, key=mean)


def steps_to(run: Run, target: float) -> float:
    """Steps until a mean of 100 minibatches is at most the target.

    Args:
        run: the run, with a loss for each block.
        target: the loss to reach.
    """
    means = np.convolve(run.losses, np.ones(score.LAST) / score.LAST, "valid")
    steps = BLOCK * (np.arange(len(means)) + score.LAST)
    return reached_by(steps, means, target)


def run(settings: Settings, results: Results) -> dict:
    """Draws the profiles; returns scores, times and ratios.

    Args:
        settings: `only` selects tasks. The suite has minibatches and data of
            its own.
        results: not used: runs are kept in `practice_runs.csv`, with keys as
            in `training.evaluate practice`. Those of the rivals are in the
            repository, for the figure's own number of steps.

    Raises:
        SettingsError: a number of steps that the suite does not allow.
    """
    del results
    steps = settings.steps_or(STEPS, BLOCK)
    try:
        check_steps(steps)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    kept = str(settings.out / "practice_runs.csv")
    wanted = suite.Settings(
        tasks=tuple(settings.selected(suite.registry.TASKS)),
        weights=settings.weights,
        steps=steps,
        seeds=settings.seeds or SEEDS,
        results=kept,
        rivals=kept if settings.steps else str(RIVALS),
    )
    made = suite.Suite(wanted)
    found = made.run()
    halves = {
        half: [one for one in found if one.task.half == half]
        for half in suite.HALVES
    }
    halves = {half: tasks for half, tasks in halves.items() if tasks}
    told = {
        half: look_at(tasks, contestants(found, made.own.name,
                                         made.own.rates[0]))
        for half, tasks in halves.items()
    }  # fmt: skip
    print_tables(told, wanted)
    profile_panels.draw(
        [
            (
                f"{half} half, {len(n['tasks'])} tasks",
                "tau, steps relative to the fastest",
                n["relative"],
            )
            for half, n in told.items()
        ],
        "share of tasks at the target",
        settings.out / "practice_profiles.png",
    )
    write(told, settings)
    for half in told.values():
        del half["relative"]
    return {"steps": wanted.steps, "seeds": wanted.seeds, "halves": told}


def look_at(found, listed) -> dict:
    """Times, ratios and scores of some tasks.

    Args:
        found: the suite's runs of each task.
        listed: what `contestants` returned.
    """
    times, losses = {}, {}
    for name, which, rate in listed:
        times[name], losses[name] = {}, []
        for one in found:
            best = one.runs[ADAM, one.best(ADAM)]
            own = one.runs[which, one.best(which) if rate is None else rate]
            pairs = zip(own, best, strict=True)
            found_steps = [steps_to(a, score.final_loss(b)) for a, b in pairs]
            times[name][one.task.name] = float(np.median(found_steps))
            losses[name].append(one.score(which, rate))
    relative = ratios({name: list(t.values()) for name, t in times.items()})
    whole = {name: score.summary(s) for name, s in losses.items()}
    return {
        "tasks": [one.task.name for one in found],
        "geometric_mean": {n: s.geometric_mean for n, s in whole.items()},
        "worst": {n: s.worst for n, s in whole.items()},
        "profile": {n: profile_score(r) for n, r in relative.items()},
        "ratio": {
            name: {
                one.task.name: s.ratio
                for one, s in zip(found, scores, strict=True)
            }
            for name, scores in losses.items()
        },
        "steps_to_target": {
            name: {t: x if np.isfinite(x) else None for t, x in of.items()}
            for name, of in times.items()
        },
        "relative": relative,
    }


def print_tables(told: dict, wanted):
    """Prints scores and times of each half."""
    for half, n in told.items():
        names = sorted(n["profile"], key=lambda k: -n["profile"][k])
        rows = [
            [name, f"{n['geometric_mean'][name]:.2f}",
             f"{n['worst'][name]:.2f}", f"{n['profile'][name]:.2f}",
             *(f"{x:g}" if x else "-"
               for x in n["steps_to_target"][name].values())]
            for name in names
        ]  # fmt: skip
        print(
            f"\n{half.capitalize()} half: loss after {wanted.steps} steps "
            "relative to the best Adam's, score of the profile, steps to that "
            "loss\n"
        )
        header = ["optimizer", "mean", "worst", "profile", *n["tasks"]]
        print(table(header, rows))


def write(told: dict, settings: Settings):
    """A line for each optimizer and task."""
    output.write_csv(
        settings.out / "practice_profiles.csv",
        ["half", "task", "optimizer", "loss ratio", "steps to target"],
        (
            [half, task, name, n["ratio"][name][task],
             n["steps_to_target"][name][task] or ""]
            for half, n in told.items()
            for name in n["ratio"]
            for task in n["tasks"]
        ),
    )  # fmt: skip
