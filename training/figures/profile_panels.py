"""The picture of performance profiles: one panel for each set of ratios."""

import pathlib

import numpy as np

from training.common import output, palette
from training.figures.time_to_target import LONGEST, profile


def draw(panels: list[tuple], what: str, path: pathlib.Path):
    """Writes the profiles of all optimizers, panel by panel.

    Args:
        panels: (title, label of the abscissa, ratios of each optimizer in the
            order of their styles) of each panel, see `time_to_target.ratios`.
        what: label of the ordinate.
        path: path of the PNG.
    """
    tau = np.geomspace(1.0, LONGEST, 200)
    figure, all_axes = output.page(len(panels), width=4.8, height=3.4)
    for axes, (title, label, relative) in zip(all_axes, panels, strict=True):
        for k, (name, ratios) in enumerate(relative.items()):
            axes.plot(tau, profile(ratios, tau), label=name, **palette.style(k))
        axes.set_xscale("log")
        axes.set_xticks([1, 1.5, 2, 3, 4], ["1", "1.5", "2", "3", "4"])
        axes.minorticks_off()
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(label)
        axes.set_title(title, fontsize=10)
        axes.grid(True, alpha=0.2)
    all_axes[0].set_ylabel(what)
    figure.legend(
        *all_axes[0].get_legend_handles_labels(),
        loc="outside right center",
        frameon=False,
        fontsize=8,
    )
    output.save(figure, path)
