"""`python -m problems.gallery --out=DIR`: pictures of all problems.

`gallery.png` has every registered family: contours for those with two
parameters, the loss along random lines for all others. `sets.png` has the rows
of the meta-training sets, along random lines through their start points.
"""

import math
import pathlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import app, flags
from matplotlib.figure import Figure
from tqdm import tqdm

from problems import draws
from problems.ensemble import meta_training_set, set_names
from problems.family import Family, Problem, per_instance
from problems.registry import get, names

COLUMNS, WIDTH, HEIGHT, DPI = 8, 2.9, 2.5, 120  # of a page; inches
LINES = 4  # instances in a plot
REACH = 3.0  # largest |t| of a line
# Even, so that no point of a line is the minimum itself, where log is -inf.
POINTS = 200

# Minimisers besides the one that a family's `argmin` gives.
MORE_MINIMA = {"branin": ((-math.pi, 12.275), (3.0 * math.pi, 2.475))}


class Plane(NamedTuple):
    """A loss on a grid, and points to mark."""

    x: np.ndarray  # [points]
    y: np.ndarray  # [points]
    loss: np.ndarray  # [points of y, points of x]
    low: np.ndarray  # corner of the box that has all start points, [2]
    high: np.ndarray  # the opposite one
    minima: np.ndarray  # [minima, 2]


def losses(problem: Problem, points) -> np.ndarray:
    """Full losses [B, T] at a tuple of [B, T, *shape]: T points for each."""
    count, number = points[0].shape[:2]
    data = tf.nest.map_structure(
        lambda leaf: tf.repeat(leaf, number, axis=0), problem.data
    )
    flat = tuple(
        tf.reshape(tensor, (count * number, *tensor.shape[2:]))
        for tensor in points
    )
    loss = problem.family.full_loss(data, flat)
    return tf.reshape(loss, (count, number)).numpy()


def plane(family: Family, seed: int, points: int = 201) -> Plane:
    """The loss of an instance with two parameters, around its start points."""
    starts = family.instances(seed, 4096).start[0].numpy()
    low, high = starts.min(axis=0), starts.max(axis=0)
    margin = 0.1 * (high - low)
    x, y = np.linspace(low - margin, high + margin, points, dtype="float32").T
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape((1, -1, 2))
    problem = family.instances(seed, 1)
    loss = losses(problem, (tf.constant(grid),)).reshape((points, points))
    minima = [*problem.argmin[0].numpy(), *MORE_MINIMA.get(family.name, ())]
    return Plane(x, y, loss, low, high, np.array(minima))


def directions(start, seed) -> tuple:
    """Random directions, each entry as large as that of `start`.

    This suits problems in any variables, even where scales differ by decades.
    Entries that start at zero get the instance's root mean square.
    """
    result = []
    flat = tf.concat([tf.reshape(s, (s.shape[0], -1)) for s in start], axis=1)
    typical = tf.sqrt(tf.reduce_mean(flat**2, axis=1))
    for one, tensor in zip(draws.split(seed, len(start)), start, strict=True):
        other = per_instance(typical, tensor)
        size = tf.where(tensor == 0.0, other, tf.abs(tensor))
        result.append(size * draws.normal(one, tensor.shape))
    return tuple(result)


def lines(family: Family, seed: int, at_minimum: bool, count: int = LINES):
    """The loss along a random line through a point, for `count` instances.

    Args:
        family: a family with any number of parameters.
        seed: seed of the instances and of the lines.
        at_minimum: whether the point is the minimiser, where this is known;
            otherwise it is the start.
        count: number of instances.

    Returns:
        t [T] and losses [count, T] at point + t * direction.
    """
    drawn, sloping = draws.split(seed, 2)
    problem = family.instances(drawn, count)
    point = problem.argmin if at_minimum else None
    point = problem.start if point is None else point
    t = np.linspace(-REACH, REACH, POINTS, dtype="float32")
    moved = tuple(
        tensor[:, None]
        + tf.reshape(t, (1, -1) + (1,) * (len(tensor.shape) - 1))
        * direction[:, None]
        for tensor, direction in zip(
            point, directions(problem.start, sloping), strict=True
        )
    )
    return t, losses(problem, moved)


def set_rows() -> dict:
    """All rows of the sets, by name: the family, and its weights by set."""
    rows = {}
    for name in set_names():
        for row in meta_training_set(name):
            _, weights = rows.setdefault(row.name, (row.family, {}))
            weights[name] = row.weight
    return rows


def draw_plane(axes, shown: Plane):
    """Contours, the box of start points and the minima."""
    # From a small quantile on: a minimum of zero has infinitely many levels.
    lowest = np.quantile(shown.loss, 0.002)
    levels = np.geomspace(lowest, shown.loss.max(), 16)
    positive = np.maximum(shown.loss, lowest)
    axes.contourf(
        shown.x, shown.y, positive, levels, norm="log", cmap="viridis_r"
    )
    axes.contour(
        shown.x, shown.y, positive, levels, colors="k", linewidths=0.25
    )
    left, bottom = shown.low
    right, top = shown.high
    axes.plot(
        [left, right, right, left, left], [bottom, bottom, top, top, bottom],
        "k--", linewidth=0.8,
    )  # fmt: skip
    axes.plot(
        *shown.minima.T, "*", color="#D55E00", markeredgecolor="w",
        markersize=10,
    )  # fmt: skip
    axes.set_xlabel("$\\theta_0$")
    axes.set_ylabel("$\\theta_1$")


def draw_lines(axes, t, loss, point: str, label: str = "loss"):
    """A curve for each instance; a log axis where losses differ a lot."""
    axes.plot(t, loss.T, linewidth=0.9)
    axes.axvline(0.0, color="0.6", linewidth=0.6, zorder=0)
    if loss.max() > 20.0 * loss.min():
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter("")
    axes.set_xlim(t[0], t[-1])
    axes.set_xlabel(f"t, 0 is the {point}")
    axes.set_ylabel(label)


def title(name: str, family: Family) -> str:
    """Name, dimension and tensors."""
    tensors = len(family.shapes)
    plural = "s" if tensors > 1 else ""
    return f"{name}\n{family.dimension} in {tensors} tensor{plural}"


def _page(number: int, heading: str):
    """A figure, and its `number` axes."""
    rows = -(-number // COLUMNS)
    size = COLUMNS * WIDTH, rows * HEIGHT + 0.4
    # Without pyplot, so that no display or backend matters.
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    for unused in axes.flat[number:]:
        unused.set_axis_off()
    for used in axes.flat[:number]:
        used.tick_params(labelsize=7)
        used.xaxis.label.set_size(8)
        used.yaxis.label.set_size(8)
    figure.suptitle(heading)
    return figure, axes.flat[:number]


def _save(figure, path: pathlib.Path):
    # A page is laid out in seconds, and would be for each time it is drawn.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    figure.savefig(path, dpi=DPI)


def draw_registry(path: pathlib.Path, seed: int, bar):
    """Every registered family, on one page."""
    figure, all_axes = _page(
        len(names()),
        "All families. Contours: loss, log-spaced levels, minima (stars), box "
        f"of start points (dashed). Curves: {LINES} instances along random "
        "lines.",
    )
    for name, axes in zip(names(), all_axes, strict=True):
        family = get(name)
        if family.shapes == ((2,),):
            draw_plane(axes, plane(family, seed))
        else:
            known = family.instances(seed, 1).argmin is not None
            point = "minimum" if known else "start"
            draw_lines(axes, *lines(family, seed, at_minimum=True), point)
        axes.set_title(title(name, family), fontsize=9)
        bar.update()
    _save(figure, path)


def draw_sets(path: pathlib.Path, seed: int, bar):
    """Every row of the sets, on one page."""
    rows = set_rows()
    figure, all_axes = _page(
        len(rows),
        "Rows of the meta-training sets, with their weights: "
        f"{LINES} instances along random lines through the start.",
    )
    for (name, (family, weights)), axes in zip(
        rows.items(), all_axes, strict=True
    ):
        t, loss = lines(family, seed, at_minimum=False)
        # Scales of the losses differ by decades, so only the shapes are shown.
        loss /= loss[:, POINTS // 2, None]
        draw_lines(axes, t, loss, "start", "loss / loss at start")
        shares = ", ".join(f"{s} {100 * w:.1f} %" for s, w in weights.items())
        axes.set_title(f"{title(name, family)}; {shares}", fontsize=8)
        bar.update()
    _save(figure, path)


def main(argv):
    """Writes both pages."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are taken. Received: {argv[1:]}")
    folder = pathlib.Path(flags.FLAGS.out)
    folder.mkdir(parents=True, exist_ok=True)
    seed = flags.FLAGS.seed
    with tqdm(total=len(names()) + len(set_rows()), unit="plot") as bar:
        draw_registry(folder / "gallery.png", seed, bar)
        draw_sets(folder / "sets.png", seed, bar)
    print(f"Pictures: {folder / 'gallery.png'}, {folder / 'sets.png'}")


def run():
    """Runs the command; flags are defined here, not on import."""
    flags.DEFINE_string("out", None, "Folder for the pictures.", required=True)
    flags.DEFINE_integer("seed", 0, "Seed of instances and lines.")
    app.run(main)


if __name__ == "__main__":
    run()
