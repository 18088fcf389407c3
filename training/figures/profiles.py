"""Time to the loss that a tuned Adam ends with, compared with its rivals.

Every rival runs at its default learning rate and at the best rate of its grid,
which is the one with the lowest final loss for seed 0; the learned optimizer
runs as it is. A task's target is the median final loss of Adam at its best
rate.
"""

import numpy as np

from training.common import output
from training.common.results import Results
from training.common.tables import table
from training.evaluation import rivals
from training.figures import profile_panels
from training.figures.comparison import OWN, Comparison, check_data, final
from training.figures.settings import Settings
from training.figures.tasks import PROFILED
from training.figures.time_to_target import ratios, reached, score

STEPS, EVERY, SEEDS = 300, 10, 3


def tune(comparison: Comparison, tasks, known) -> dict:
    """Best learning rate of every (rival, task), with seed 0."""
    jobs = [
        (task, f"{name} {rate:g}", lambda r=rival, x=rate: r.make(x), 0)
        for task in tasks
        for name, rival in known.items()
        for rate in rival.grid
    ]
    found = comparison.curves(jobs)
    return {
        (name, task): rivals.best(
            {
                rate: float(found[task, f"{name} {rate:g}"][0].losses[-1])
                for rate in rival.grid
            }
        )
        for name, rival in known.items()
        for task in tasks
    }


def entries(known, best, tasks) -> list:
    """(name, rival, rate of each task); the learned optimizer comes first."""
    found = [(OWN, None, dict.fromkeys(tasks))]
    for name, rival in known.items():
        found.append(
            (f"{name}, best", rival, {t: best[name, t] for t in tasks})
        )
    for name, rival in known.items():
        default = dict.fromkeys(tasks, rival.default)
        found.append((f"{name}, default", rival, default))
    return found


def run(settings: Settings, results: Results) -> dict:
    """Draws the profiles; returns scores, targets and times."""
    tasks = settings.selected(PROFILED)
    check_data(tasks, settings)
    steps, seeds = settings.steps_or(STEPS, EVERY), settings.seeds or SEEDS
    comparison = Comparison(settings, results, steps, EVERY)
    known = rivals.available()
    best = tune(comparison, tasks, known)
    print_grids(known, best, tasks)

    def job(task, rival, rate, seed):
        if rival is None:
            return task, OWN, comparison.own, seed
        return task, f"{rival.name} {rate:g}", lambda: rival.make(rate), seed

    contestants = entries(known, best, tasks)
    jobs = {
        (name, task): [job(task, rival, rates[task], k) for k in range(seeds)]
        for task in tasks
        for name, rival, rates in contestants
    }
    # The same run may serve as default and as best: it is made only once.
    unique = {(t, who, k): (t, who, m, k) for js in jobs.values()
              for t, who, m, k in js}  # fmt: skip
    comparison.curves(unique.values())
    runs = {
        place: [comparison.curve(*one) for one in found]
        for place, found in jobs.items()
    }
    targets = {t: float(np.median(final(runs["Adam, best", t]))) for t in tasks}
    times = {
        place: np.array([reached(curve, targets[place[1]]) for curve in found])
        for place, found in runs.items()
    }  # [seeds, 2]
    names = [name for name, _, _ in contestants]
    relative = [
        ratios(
            {
                name: [np.median(times[name, t][:, k]) for t in tasks]
                for name in names
            }
        )
        for k in (0, 1)
    ]
    scores = {name: [score(r[name]) for r in relative] for name in names}
    report(names, tasks, times, scores, targets, steps)
    shown = (OWN, *(f"{rival}, best" for rival in known))
    profile_panels.draw(
        [
            (
                f"by {what}",
                f"tau, {what} relative to the fastest",
                {name: found[name] for name in shown},
            )
            for found, what in zip(
                relative, ("steps", "wall-clock time"), strict=True
            )
        ],
        f"share of {len(tasks)} tasks at the target",
        settings.out / "profiles.png",
    )
    rates_of = {(n, t): rates[t] for n, _, rates in contestants for t in tasks}
    output.write_csv(
        settings.out / "profiles.csv",
        ["optimizer", "task", "rate", "seed", "steps to target",
         "seconds to target", "final loss", "target"],
        (
            [name, task, rates_of[name, task] or "", seed,
             *map(float, times[name, task][seed]),
             float(runs[name, task][seed].losses[-1]), targets[task]]
            for name in names for task in tasks for seed in range(seeds)
        ),
    )  # fmt: skip
    return {
        "steps": steps,
        "seeds": seeds,
        "batch": settings.batch,
        "pictures": settings.pictures,
        "targets": targets,
        "score_steps": {name: s[0] for name, s in scores.items()},
        "score_seconds": {name: s[1] for name, s in scores.items()},
        "steps_to_target": {
            task: {
                name: cell(times[name, task][:, 0])
                for name in (OWN, *(f"{rival}, best" for rival in known))
            }
            for task in tasks
        },
        "best_rates": {
            name: {t: best[name, t] for t in tasks} for name in known
        },
    }


def print_grids(known, best, tasks):
    """Prints grids and winners; an asterisk marks a winner at a grid's edge."""
    rows = [
        [
            name,
            " ".join(f"{rate:g}" for rate in rival.grid),
            *(
                f"{best[name, t]:g}"
                + "*" * rivals.at_edge(best[name, t], rival)
                for t in tasks
            ),
        ]
        for name, rival in known.items()
    ]
    print("\nLearning rates: grid, and the best on each task (*: edge)\n")
    print(table(["rival", "grid", *tasks], rows))


def cell(values) -> str:
    """Median and range over seeds; a dash means never."""
    median, low, high = np.median(values), np.min(values), np.max(values)
    if not np.isfinite(median):
        return "-" if not np.isfinite(low) else f"- ({low:g}-)"
    high = f"{high:g}" if np.isfinite(high) else ""
    return f"{median:g} ({low:g}-{high})"


def report(names, tasks, times, scores, targets, steps):
    """Prints one table: scores, and steps to the target on each task."""
    rows = [
        [
            name,
            *(f"{value:.2f}" for value in scores[name]),
            *(cell(times[name, task][:, 0]) for task in tasks),
        ]
        for name in sorted(names, key=lambda name: -scores[name][0])
    ]
    rows.append(["target", "", "", *(f"{targets[t]:.3g}" for t in tasks)])
    print(
        f"\nSteps of at most {steps} to the final loss of the best Adam: "
        "median (range) of the seeds\n"
    )
    print(table(["optimizer", "score steps", "score time", *tasks], rows))
