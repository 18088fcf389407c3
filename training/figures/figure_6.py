"""Figure 6: what each feature of the rule contributes, on an MNIST ConvNet.

Every variant is meta-trained from scratch with the same small budget on the
same few problems. Where the ranges over seeds overlap, no order is claimed.
"""

import functools

import numpy as np

from training.common import output, palette
from training.common.results import Results
from training.common.tables import table
from training.evaluation import candidates
from training.figures import ablations
from training.figures.budgeted import meta_train
from training.figures.comparison import Comparison, check_data, final
from training.figures.settings import Settings

TASK = "MNIST ConvNet"
STEPS, EVERY, SEEDS, BUDGET = 300, 25, 3, 30.0
RATE = 1e-3
"""The initial learning rate of all variants."""

CEILING = 10.0
"""Larger losses, and those that are not finite, count as this."""


def verdict(own, full) -> str:
    """How the losses of a variant compare with those of the full rule."""
    if max(own) < min(full):
        return "better"
    return "worse" if min(own) > max(full) else "overlap"


def _optimizer(rule, vector):
    return candidates.optimizer(rule, vector, learning_rate=RATE)


def run(settings: Settings, results: Results) -> dict:
    """Meta-trains every variant, draws; returns final losses."""
    chosen = settings.selected(ablations.VARIANTS)
    names = list(dict.fromkeys([ablations.FULL, *chosen]))
    check_data([TASK], settings)
    steps, seeds = settings.steps_or(STEPS, EVERY), settings.seeds or SEEDS
    budget = settings.budget or BUDGET
    comparison = Comparison(settings, results, steps, EVERY)
    rows = ablations.rows()
    curves, made = {}, {}
    for name in names:
        rule, config = ablations.VARIANTS[name].make()
        file = f"ablation_{name.replace(' ', '_').replace('/', '_')}.npz"
        vector, made[name] = meta_train(
            rule, rows, config, budget, settings.out / file, name
        )
        who = f"ablation {name} {candidates.digest(rule, vector)}"
        found = comparison.curves(
            (TASK, who, functools.partial(_optimizer, rule, vector), k)
            for k in range(seeds)
        )
        curves[name] = found[TASK, who]
    finals = {
        name: np.minimum(final(runs), CEILING) for name, runs in curves.items()
    }
    verdicts = {
        name: verdict(values, finals[ablations.FULL])
        for name, values in finals.items()
    }
    draw(finals, verdicts, budget, steps, settings)
    output.write_csv(
        settings.out / "figure_6.csv",
        ["variant", "meta-iterations", "seed", "step", "loss"],
        (
            [name, made[name]["iterations"], k, int(step), float(loss)]
            for name, runs in curves.items()
            for k, curve in enumerate(runs)
            for step, loss in zip(curve.steps, curve.losses, strict=True)
        ),
    )
    lines = [
        [
            name,
            made[name]["iterations"],
            f"{np.median(values):.3g}",
            f"{values.min():.3g}-{values.max():.3g}",
            "" if name == ablations.FULL else verdicts[name],
        ]
        for name, values in finals.items()
    ]
    print(
        f"\n{TASK}, training loss after {steps} steps; each meta-trained for "
        f"{budget:g} s on {', '.join(ablations.ROWS)}\n"
    )
    header = ["variant", "meta-iterations", "median", f"range of {seeds} seeds",
              "against full"]  # fmt: skip
    print(table(header, lines))
    return {
        "steps": steps,
        "seeds": seeds,
        "budget": budget,
        "rows": list(ablations.ROWS),
        "iterations": {name: made[name]["iterations"] for name in names},
        "final": {n: [float(x) for x in v] for n, v in finals.items()},
        "against_full": verdicts,
    }


def draw(finals, verdicts, budget, steps, settings):
    """Ranges over seeds; that of the full rule is a band."""
    figure, (axes,) = output.page(1, width=6.0, height=4.2)
    full = finals[ablations.FULL]
    axes.axvspan(full.min(), full.max(), color="0.9", zorder=0)
    colours = {"better": 2, "worse": 0, "overlap": 6}
    for row, (name, values) in enumerate(finals.items()):
        k = 1 if name == ablations.FULL else colours[verdicts[name]]
        colour = palette.style(k)["color"]
        axes.hlines(row, values.min(), values.max(), color=colour, lw=2)
        axes.plot(np.median(values), row, "o", color=colour, ms=5)
    axes.set_yticks(range(len(finals)), list(finals))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"training loss after {steps} steps (nats)")
    axes.set_title(
        f"{TASK}; meta-trained once for {budget:g} s on "
        f"{len(ablations.ROWS)} families.\nMedian and range of seeds; black "
        "overlaps the full rule: not ranked",
        fontsize=8,
    )
    axes.grid(True, axis="x", alpha=0.2)
    output.save(figure, settings.out / "figure_6.png")
