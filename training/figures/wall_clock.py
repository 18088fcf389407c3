"""Where the learned optimizer pays, by the clock.

Time to the loss at which the best of three Adam rates ends, for networks whose
gradient costs little or much for each parameter, against the minibatch's size.
An update costs the same for all of them, a gradient does not.
"""

import dataclasses

import keras
import numpy as np

from training.common import output, palette
from training.common.results import Results
from training.common.tables import table
from training.figures.comparison import OWN, Comparison, check_data
from training.figures.settings import Settings, SettingsError
from training.figures.time_to_target import reached

NETWORKS = ("MNIST MLP", "MNIST GRU", "MNIST ConvNet")
STEPS = {32: 1000, 256: 500, 2048: 200}  # by the size of the minibatch
RATES = (1e-3, 3e-3, 1e-2)
POINTS = 20  # of a curve, after its start
PICTURES = 4  # times `Settings.pictures`


def run(settings: Settings, results: Results) -> dict:
    """Draws the figure; returns times to the target.

    `Settings.steps` replaces the steps of all minibatches; those larger than
    `Settings.pictures` are left out. Steps and seconds are medians over seeds,
    None where most runs do not reach the target.

    Raises:
        SettingsError: too few pictures for the smallest minibatch.
    """
    if settings.pictures < min(STEPS):
        raise SettingsError(
            f"Argument `pictures` must be at least {min(STEPS)} here. "
            f"Received: pictures={settings.pictures}"
        )
    networks = settings.selected(NETWORKS)
    check_data(networks, settings)
    pictures, rows = PICTURES * settings.pictures, []
    for network in networks:
        for batch, steps in STEPS.items():
            if batch > settings.pictures:
                continue
            own = dataclasses.replace(settings, batch=batch, pictures=pictures)
            steps = settings.steps_or(steps, POINTS)
            comparison = Comparison(own, results, steps, steps // POINTS)
            rows.append(_compare(comparison, network, settings.seeds or 1))
    _draw(rows, networks, settings)
    output.write_csv(
        settings.out / "wall_clock.csv",
        list(rows[0]),
        ([_cell(x) for x in row.values()] for row in rows),
    )
    print("\nTime to the final loss of the best of three Adam rates\n")
    header = list(rows[0])
    print(table(header, [[_cell(x) for x in row.values()] for row in rows]))
    return {"pictures": pictures, "rates": RATES, "rows": rows}


def _compare(comparison: Comparison, network: str, seeds: int) -> dict:
    """A line of the table."""
    makers = {
        f"Adam {rate:g}": (lambda rate=rate: keras.optimizers.Adam(rate))
        for rate in RATES
    }
    found = comparison.curves(
        (network, who, make, seed)
        for who, make in {OWN: comparison.own, **makers}.items()
        for seed in range(seeds)
    )
    curves = {who: found[network, who] for who in (OWN, *makers)}
    best = min(makers, key=lambda who: _final(curves[who]))
    target = _final(curves[best])

    def median(who, what: int):
        to_target = [reached(curve, target)[what] for curve in curves[who]]
        middle = float(np.median(to_target))
        return middle if np.isfinite(middle) else None

    def each_step(who):
        seconds = [c.seconds[-1] / c.steps[-1] for c in curves[who]]
        return 1e3 * float(np.median(seconds))

    own_s, adam_s = median(OWN, 1), median(best, 1)
    return {
        "network": network,
        "batch": comparison.settings.batch,
        "steps": comparison.steps,
        "best_adam": best,
        "target": target,
        "own_steps": median(OWN, 0),
        "adam_steps": median(best, 0),
        "own_step_ms": each_step(OWN),
        "adam_step_ms": each_step(best),
        "own_s": own_s,
        "adam_s": adam_s,
        "time_ratio": own_s / adam_s if own_s and adam_s else None,
        # Whoever does not know the rate has to run all of them.
        "all_rates_s": sum(
            float(np.median([c.seconds[-1] for c in curves[who]]))
            for who in makers
        ),
    }


def _final(curves) -> float:
    """Median of the last losses; infinite if that is not a number."""
    last = float(np.median([curve.losses[-1] for curve in curves]))
    return last if np.isfinite(last) else np.inf


def _cell(x):
    if x is None:
        return "-"
    return f"{x:.3g}" if isinstance(x, float) else x


def _draw(rows: list[dict], networks: list, settings: Settings):
    figure, (axes,) = output.page(1, width=5.0, height=3.4)
    for k, network in enumerate(networks):
        own = [r for r in rows if r["network"] == network and r["time_ratio"]]
        axes.plot(
            [row["batch"] for row in own],
            [row["time_ratio"] for row in own],
            marker="o",
            ms=4,
            label=network,
            **palette.style(k),
        )
        # Crosses at the top, side by side.
        never = [
            row["batch"] * 1.15 ** (k - 1)
            for row in rows
            if row["network"] == network and not row["time_ratio"]
        ]
        axes.plot(
            never,
            [0.96] * len(never),
            "x",
            color=palette.style(k)["color"],
            transform=axes.get_xaxis_transform(),
        )
    axes.axhline(1, color="0.5", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(STEPS) / 1.5, max(STEPS) * 1.5)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(list(STEPS), [str(batch) for batch in STEPS])
    axes.set_xlabel("pictures in a minibatch")
    axes.set_ylabel("time to the target / best Adam's")
    axes.set_title(
        "Time to Adam's loss (CPU); crosses: never reached", fontsize=10
    )
    axes.grid(True, alpha=0.2)
    axes.legend(frameon=False)
    output.save(figure, settings.out / "wall_clock.png")
