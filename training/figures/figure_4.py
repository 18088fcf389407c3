"""Figure 4: problems from the meta-training corpus, held-out draws."""

import problems
from hrnn_opt.keras_optimizer import LEARNING_RATE
from training.common import output, palette
from training.common.results import Results
from training.common.tables import table
from training.evaluation import candidates
from training.figures import drawn
from training.figures.comparison import OWN
from training.figures.settings import Settings

ROWS = ("plane", "softmax", "min_max")
"""Rows of sections 4.1.1, 4.1.3 and 4.1.4; fixed before anything was run."""

ADAM_RATE, RMSPROP_RATE = 2e-3, 1e-2
STEPS, SEEDS = 500, 32


def run(settings: Settings, results: Results) -> dict:
    """Draws the figure; returns final losses relative to the first ones."""
    steps = drawn.check_steps(settings, STEPS)
    count = settings.seeds or SEEDS
    rows = {row.name: row for row in problems.meta_training_set("paper")}
    names = settings.selected(rows) if settings.only else list(ROWS)
    rule, vector = candidates.load(settings.weights)
    contestants = {
        OWN: drawn.learned(OWN, rule, vector, (LEARNING_RATE,)),
        "Adam 2e-3": drawn.adam((ADAM_RATE,)),
        "RMSProp 1e-2": drawn.rmsprop((RMSPROP_RATE,)),
    }
    curves = {
        (name, label): drawn.quantiles(
            rows[name].family, name, who, steps, count, results
        )[:, 0]
        for name in names
        for label, who in contestants.items()
    }
    x = drawn.points(steps)
    figure, all_axes = output.page(len(names), columns=3)
    for name, axes in zip(names, all_axes, strict=True):
        for k, label in enumerate(contestants):
            low, median, high = curves[name, label]
            axes.plot(x, median, label=label, **palette.style(k))
            colour = palette.style(k)["color"]
            axes.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
        axes.set_yscale("log")
        axes.set_title(name)
        axes.set_xlabel("step")
        axes.grid(True, alpha=0.2)
    all_axes[0].set_ylabel("loss")
    all_axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"Held-out draws of the corpus: median and quartiles of {count}",
        fontsize=10,
    )
    output.save(figure, settings.out / "figure_4.png")
    output.write_csv(
        settings.out / "figure_4.csv",
        ["row", "optimizer", "step", "quartile 1", "median", "quartile 3"],
        (
            [name, label, int(step), *map(float, values[:, n])]
            for (name, label), values in curves.items()
            for n, step in enumerate(x)
        ),
    )
    finals = {
        name: {o: float(curves[name, o][1, -1]) for o in contestants}
        for name in names
    }
    print(f"\nMedian loss after {steps} steps\n")
    print(
        table(
            ["row", *contestants],
            [[n, *(f"{f:.2e}" for f in v.values())] for n, v in finals.items()],
        )
    )
    return {"steps": steps, "instances": count, "final": finals}
