"""Figure 3: LSTM optimizers on their own problem, and on others.

The problems are networks on MNIST: those with sigmoids that the LSTM optimizers
were meta-trained on, the same networks with ReLUs, and ten times as many steps.
"""

import numpy as np

from hrnn_opt.keras_optimizer import LEARNING_RATE
from problems import pictures
from training.common import output, palette
from training.common.results import Results
from training.common.tables import table
from training.evaluation import candidates
from training.figures import drawn, lstm_optimizers
from training.figures.comparison import OWN
from training.figures.settings import Settings

STEPS, SEEDS, BUDGET = 1000, 8, 120.0
KINDS = ("MLP", "ConvNet")
PANELS = {
    f"{activation} {kind}": (kind, activation)
    for activation in ("sigmoid", "relu")
    for kind in KINDS
}


def run(settings: Settings, results: Results) -> dict:
    """Meta-trains, checks against SGD, draws; returns losses."""
    pictures.prepared("mnist", settings.data_dir)
    steps = drawn.check_steps(settings, STEPS)
    problems = settings.selected(PANELS)
    count, budget = settings.seeds or SEEDS, settings.budget or BUDGET
    rule, vector = candidates.load(settings.weights)
    contestants = {
        OWN: drawn.learned(OWN, rule, vector, (LEARNING_RATE,)),
        "Adam 2e-3": drawn.adam((2e-3,)),
        "RMSProp 1e-2": drawn.rmsprop((1e-2,)),
    }
    made, against = {}, {}
    for kind in KINDS:
        found, made[kind] = lstm_optimizers.trained(kind, settings, budget)
        against[kind] = lstm_optimizers.beside_sgd(
            kind, found, settings, count, results
        )
        contestants[f"LSTM ({kind})"] = drawn.learned(
            f"LSTM {kind}", lstm_optimizers.RULE, found, (1.0,)
        )
    print_sgd(made, against)
    curves = {
        (problem, name): drawn.quantiles(
            lstm_optimizers.problem(*PANELS[problem], settings),
            lstm_optimizers.label(*PANELS[problem], settings),
            who,
            steps,
            count,
            results,
        )[:, 0]
        for problem in problems
        for name, who in contestants.items()
    }
    draw(problems, list(contestants), curves, steps, made, settings)
    output.write_csv(
        settings.out / "figure_3.csv",
        ["problem", "optimizer", "step", "quartile 1", "median", "quartile 3"],
        (
            [problem, name, int(step), *map(float, values[:, n])]
            for (problem, name), values in curves.items()
            for n, step in enumerate(drawn.points(steps))
        ),
    )
    at = lstm_optimizers.HORIZON // drawn.EVERY - 1
    losses = {
        where: {
            p: {name: float(curves[p, name][1, n]) for name in contestants}
            for p in problems
        }
        for where, n in (("at_horizon", min(at, steps // drawn.EVERY - 1)),
                         ("final", -1))
    }  # fmt: skip
    print(f"\nMedian loss after {steps} steps\n")
    rows = [
        [p, *(f"{x:.3g}" for x in losses["final"][p].values())]
        for p in problems
    ]
    print(table(["MNIST", *contestants], rows))
    return {
        "steps": steps,
        "instances": count,
        "horizon": lstm_optimizers.HORIZON,
        "budget": budget,
        "meta_training": made,
        "beside_sgd": against,
        **losses,
    }


def print_sgd(made, against):
    """Prints whether each LSTM optimizer beats SGD on its own problem."""
    rows = [
        [
            kind,
            made[kind]["iterations"],
            f"{found['lstm']:.2g}",
            f"{found['best_sgd']:.2g} (rate {found['best_sgd_rate']:g})",
            "yes" if found["beats_sgd"] else "NO",
        ]
        for kind, found in against.items()
    ]
    print(
        f"\nMedian loss after {lstm_optimizers.HORIZON} steps on its own "
        "problem, held-out draws\n"
    )
    header = ["sigmoid", "meta-iterations", "LSTM", "best SGD", "beats it"]
    print(table(header, rows))


def draw(problems, names, curves, steps, made, settings):
    """One panel for each problem; a dashed line marks the horizon."""
    figure, all_axes = output.page(len(problems), columns=2, width=4.2)
    x = drawn.points(steps)
    for problem, axes in zip(problems, all_axes, strict=True):
        for k, name in enumerate(names):
            low, median, high = np.minimum(curves[problem, name], 1e6)
            axes.plot(x, median, label=name, **palette.style(k))
            colour = palette.style(k)["color"]
            axes.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
        axes.axvline(lstm_optimizers.HORIZON, color="0.5", lw=0.8, ls="--")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(top=min(20.0, axes.get_ylim()[1]))
        axes.set_title(problem.replace("relu", "ReLU"), fontsize=10)
        axes.set_xlabel("step (dashed: mean length in meta-training)")
        axes.set_ylabel("training loss (nats)")
        axes.grid(True, alpha=0.2)
    all_axes[0].legend(frameon=False, fontsize=7)
    seconds = ", ".join(
        f"{kind} {m['seconds']:g} s" for kind, m in made.items()
    )
    figure.suptitle(
        f"MNIST; LSTM optimizers meta-trained on sigmoids ({seconds})",
        fontsize=10,
    )
    output.save(figure, settings.out / "figure_3.png")
