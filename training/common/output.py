"""The output of a comparison: a picture, a CSV, and its numbers as JSON.

Files are replaced atomically, so that an interrupted program leaves the old
file or the new one.
"""

import csv
import io
import json
import pathlib

import numpy as np
from matplotlib.figure import Figure

from training.common import files
from training.common.palette import style


def write_csv(path: pathlib.Path, header: list, rows):
    """Writes a line for each row; floats have six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(
            [f"{x:.6g}" if isinstance(x, float) else x for x in row]
        )
    files.write(path, text.getvalue())


def write_json(path: pathlib.Path, numbers: dict):
    """Writes the figure's numbers, for the results page."""
    files.write(path, json.dumps(numbers, indent=1, allow_nan=False) + "\n")


def page(plots: int, columns: int | None = None, width=3.4, height=2.8):
    """A figure and its axes, in a flat list."""
    columns = min(plots, columns or plots)
    rows = -(-plots // columns)
    # Without pyplot, so that no display or backend matters.
    figure = Figure(
        figsize=(columns * width, rows * height), layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    for unused in axes.flat[plots:]:
        unused.set_axis_off()
    return figure, list(axes.flat[:plots])


def save(figure: Figure, path: pathlib.Path, dpi: int = 110):
    """Writes a PNG."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=dpi)
    files.write(path, image.getvalue())


def draw_range(axes, x, values, label: str, k: int):
    """Draws the median and the range over seeds, against x.

    Args:
        axes: axes to draw into.
        x: abscissas, [points].
        values: ordinates, [seeds, points]; gaps where they are not finite.
        label: label in the legend.
        k: see `training.common.palette.style`.
    """
    values = np.asarray(values, float)
    axes.plot(x, np.median(values, axis=0), label=label, **style(k))
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        colour = style(k)["color"]
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
