"""Figure 5: five initial learning rates for each optimizer on a quadratic."""

import numpy as np

from problems.convex import Quadratic
from training.common import output, palette
from training.common.results import Results
from training.common.tables import table
from training.evaluation import candidates
from training.figures import drawn
from training.figures.comparison import OWN
from training.figures.settings import Settings

RATES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""The learned optimizer was meta-trained with initial rates up to 1e-2."""

STEPS, SEEDS = 500, 16
FAMILY = Quadratic(20)


def run(settings: Settings, results: Results) -> dict:
    """Draws the figure; returns final losses at each rate."""
    steps = drawn.check_steps(settings, STEPS)
    count = settings.seeds or SEEDS
    rule, vector = candidates.load(settings.weights)
    contestants = [
        drawn.learned(OWN, rule, vector, RATES),
        drawn.adam(RATES),
        drawn.rmsprop(RATES),
    ]
    curves = {
        who.name: drawn.quantiles(
            FAMILY, "quadratic 20", who, steps, count, results
        )
        for who in contestants
    }
    x = drawn.points(steps)
    figure, all_axes = output.page(len(curves))
    low = min(np.min(values[1]) for values in curves.values())
    for (name, values), axes in zip(curves.items(), all_axes, strict=True):
        for k, rate in enumerate(RATES):
            label = f"{rate:.0e}"
            axes.plot(x, values[1, k], label=label, **palette.style(k))
            axes.fill_between(
                x, values[0, k], values[2, k], alpha=0.12, linewidth=0,
                color=palette.style(k)["color"],
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_ylim(max(low / 3, 1e-16), 1e3)
        axes.set_title(name)
        axes.set_xlabel("step")
        axes.grid(True, alpha=0.2)
    all_axes[0].set_ylabel("loss")
    all_axes[-1].legend(title="initial rate", frameon=False, fontsize=8)
    figure.suptitle(
        f"Random quadratics of 20 parameters: median and quartiles of {count}",
        fontsize=10,
    )
    output.save(figure, settings.out / "figure_5.png")
    output.write_csv(
        settings.out / "figure_5.csv",
        ["optimizer", "rate", "step", "quartile 1", "median", "quartile 3"],
        (
            [name, rate, int(step), *map(float, values[:, k, n])]
            for name, values in curves.items()
            for k, rate in enumerate(RATES)
            for n, step in enumerate(x)
        ),
    )
    finals = {n: [float(f) for f in v[1, :, -1]] for n, v in curves.items()}
    print(f"\nMedian loss after {steps} steps, by initial learning rate\n")
    print(
        table(
            ["optimizer", *(f"{rate:.0e}" for rate in RATES)],
            [[n, *(f"{f:.2e}" for f in final)] for n, final in finals.items()],
        )
    )
    # How many decades of loss depend on the choice of the rate.
    spread = {
        name: float(np.ptp(np.log10(np.maximum(final, 1e-30))))
        for name, final in finals.items()
    }
    return {
        "steps": steps,
        "instances": count,
        "rates": list(RATES),
        "final": finals,
        "decades_between_rates": spread,
    }
