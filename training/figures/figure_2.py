"""Figure 2: the number of steps a problem is trained for in meta-training."""

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from problems import draws
from training.common import output, palette
from training.common.results import Results
from training.engine import lengths
from training.engine.config import MetaConfig
from training.figures.settings import Settings

PAPER = MetaConfig(segment=50, mean_steps=200.0, mean_unrolls=50.0)
"""Section 4.4: 1 + Exp(50) unrolls of 50 + Exp(200) steps."""

PROBLEMS = 2000


def totals(config: MetaConfig, count: int, seed: int) -> np.ndarray:
    """Total steps of `count` problems over all their unrolls.

    The lengths are drawn as the engine draws them: unrolls of whole segments.
    """
    first, second = draws.split(seed, 2)
    numbers = lengths.unrolls(first, count, config.mean_unrolls, config).numpy()

    @tf.function
    def unrolls(number):
        return tf.map_fn(
            lambda n: lengths.segments(draws.fold(second, n), config),
            number,
            fn_output_signature=tf.int32,
        )

    bounds = np.concatenate([[0], np.cumsum(numbers)])
    drawn, chunk = [], 10_000
    for start in tqdm(range(0, bounds[-1], chunk), unit="chunk"):
        stop = min(start + chunk, bounds[-1])
        drawn.append(unrolls(tf.range(start, stop)).numpy())
    running = np.concatenate([[0], np.cumsum(np.concatenate(drawn))])
    return config.segment * (running[bounds[1:]] - running[bounds[:-1]])


def run(settings: Settings, results: Results) -> dict:
    """Draws the histogram; returns its mean and quantiles."""
    count = settings.steps or PROBLEMS
    key = f"figure 2; {count} problems"
    steps = np.array(results.get(key, lambda: totals(PAPER, count, seed=0)))
    expected = (1 + PAPER.mean_unrolls) * (PAPER.segment + PAPER.mean_steps)
    edges = np.linspace(0, 80_000, 41)
    numbers, _ = np.histogram(steps, edges)
    figure, (axes,) = output.page(1, width=5.0, height=3.2)
    axes.stairs(
        numbers, edges / 1e3, fill=True, color=palette.style(1)["color"]
    )
    axes.axvline(expected / 1e3, color="k", linestyle="--", linewidth=1)
    axes.annotate(
        f"mean by section 4.4: {expected:,.0f}", (expected, numbers.max()),
        xytext=(6, -4), textcoords="offset points", fontsize=8, va="top",
    )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("thousand steps of a problem, all unrolls together")
    axes.set_ylabel(f"problems of {count:,}")
    beyond = int(np.sum(steps > edges[-1]))
    axes.set_title(f"1 + Exp(50) unrolls of 50 + Exp(200) steps ({beyond} "
                   "problems beyond)", fontsize=9)  # fmt: skip
    output.save(figure, settings.out / "figure_2.png")
    output.write_csv(
        settings.out / "figure_2.csv",
        ["from", "to", "problems"],
        zip(edges[:-1].astype(int), edges[1:].astype(int), numbers,
            strict=True),
    )  # fmt: skip
    low, median, high = np.quantile(steps, (0.1, 0.5, 0.9))
    return {
        "problems": count,
        "mean": float(steps.mean()),
        "mean_by_section_4_4": expected,
        "quantiles_10_50_90": [float(low), float(median), float(high)],
        "longest": float(steps.max()),
    }
