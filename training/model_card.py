"""`python -m training.model_card --train_dir=DIR --name=NAME --out=FOLDER`.

Turns a run into the files that are shipped: `NAME.npz`, weights with their
provenance; `NAME.png`, the meta-loss; `NAME_step_lengths.png`; `NAME.md`, the
model card; and, in `--run_out`, `NAME-run.npz`, the small checkpoint from which
the run can be continued elsewhere.

A folder that holds nothing but `small.npz`, such as one of `training.adjust`,
has no curves: the pictures in `--out` then stay as they are.
"""

import csv
import json
import pathlib
import shutil

import matplotlib
import numpy as np
from absl import app, flags

from hrnn_opt import weights
from hrnn_opt.rule.config import RULE_VERSION
from training.common import checkpoints, stages
from training.rules.hierarchical import RuleConfig

TRAIN_DIR = flags.DEFINE_string("train_dir", None, "Folder of the run.")
NAME = flags.DEFINE_string("name", None, "Name of the weights.")
OUT = flags.DEFINE_string("out", None, "Folder for the files.")
RUN_OUT = flags.DEFINE_string(
    "run_out", None, "Folder for the small checkpoint; default: that of --out."
)
EVALUATION = flags.DEFINE_multi_string(
    "evaluation",
    [],
    "Text files with the output of `python -m training.evaluate`.",
)
NOTES = flags.DEFINE_multi_string(
    "notes", [], "Markdown files to append to the card."
)


def provenance(arrays: dict, info: dict) -> dict:
    """How the meta-parameters were trained."""
    config = info["config"]
    return {
        "trained": True,
        "ensemble": config["ensemble"],
        "seed": config["seed"],
        "meta_iterations": int(arrays["state/iteration"]),
        "inner_steps": int(arrays["state/inner_steps"]),
        "seconds": round(info["seconds"]),
        "core_seconds": round(info["core_seconds"]),
        "stages": info["stages"],
        "config": config,
    }


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Running medians of blocks of `window` values."""
    whole = len(values) // window * window
    return np.median(np.reshape(values[:whole], (-1, window)), axis=1)


def plot(folder: pathlib.Path, path: pathlib.Path):
    """Meta-loss of every row, and held-out results beside the rivals."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = {}
    with (folder / "meta_train.csv").open() as file:
        for line in csv.DictReader(file):
            curves.setdefault(line["row"], []).append(
                (int(line["iteration"]), float(line["meta_loss"]))
            )
    held = _held_out(folder / "held_out.csv")
    figure, axes = pyplot.subplots(
        1, 1 + bool(held), squeeze=False, layout="constrained",
        figsize=(9 + 5 * bool(held), 5.5),
    )  # fmt: skip
    left = axes[0, 0]
    colours = dict(
        zip(
            sorted(curves),
            pyplot.get_cmap("turbo")(np.linspace(0, 1, len(curves))),
            strict=True,
        )
    )
    for row, colour in colours.items():
        points = np.array(curves[row])
        window = max(1, len(points) // 12)
        left.plot(
            smooth(points[:, 0], window), smooth(points[:, 1], window),
            color=colour, linewidth=1, alpha=0.7, label=row,
        )  # fmt: skip
    everything = np.array(
        sorted(p for points in curves.values() for p in points)
    )
    window = max(1, len(everything) // 40)
    left.plot(
        smooth(everything[:, 0], window), smooth(everything[:, 1], window),
        color="black", linewidth=2, label="all rows",
    )  # fmt: skip
    left.set_xlabel("meta-iteration")
    left.set_ylabel("meta-loss (Equation 14), running median")
    left.legend(
        fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1),
        ncols=1 + len(curves) // 30,
    )  # fmt: skip
    left.grid(alpha=0.2)
    if held:
        right = axes[0, 1]
        for row, points in held.items():
            right.plot(*np.array(points).T, color=colours[row], linewidth=1)
        right.axhline(0, color="black", linewidth=1)
        right.set_xlabel("meta-iteration")
        right.set_ylabel("held out: log loss less that of Adam 2e-3")
        right.grid(alpha=0.2)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def plot_step_lengths(folder: pathlib.Path, path: pathlib.Path):
    """Log step lengths of every row: quantiles over instances, in panels.

    Steps that vanish, or grow without bound, show here first. Runs that did
    not record quantiles are drawn with their means only.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = ("step_length_low", "step_length", "step_length_high")
    rows = {}
    with (folder / "meta_train.csv").open() as file:
        for line in csv.DictReader(file):
            mean = line["step_length"]
            rows.setdefault(line["row"], []).append(
                [int(line["iteration"])]
                + [float(line.get(name) or mean) for name in names]
            )
    columns = 6
    figure, axes = pyplot.subplots(
        -(-len(rows) // columns), columns, squeeze=False, sharey=True,
        layout="constrained", figsize=(14, 1.9 * -(-len(rows) // columns)),
    )  # fmt: skip
    for panel in axes.flat[len(rows) :]:
        panel.set_axis_off()
    pairs = zip(axes.flat, sorted(rows.items()), strict=False)
    for panel, (row, points) in pairs:
        points = np.array(points)
        window = max(1, len(points) // 25)
        at, low, mean, high = (smooth(x, window) for x in points.T)
        panel.fill_between(at, low, high, alpha=0.3, linewidth=0)
        panel.plot(at, mean, linewidth=1)
        panel.axhline(0, color="black", linewidth=0.5)
        panel.set_title(row, fontsize=7)
        panel.tick_params(labelsize=6)
    figure.supxlabel("meta-iteration", fontsize=8)
    figure.supylabel("log step length, relative to the first", fontsize=8)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _held_out(path: pathlib.Path) -> dict:
    """Row to (meta-iteration, log loss minus Adam's); {} without the file."""
    held = {}
    if not path.exists():
        return held
    with path.open() as file:
        for iteration, row, own, adam, _ in csv.reader(file):
            held.setdefault(row, []).append(
                (int(iteration), float(own) - float(adam))
            )
    return held


def card(
    name: str, facts: dict, rule: RuleConfig, evaluations, notes=()
) -> str:
    """The model card.

    Args:
        name: name of the weights.
        facts: `provenance` of the weights.
        rule: config of their rule.
        evaluations: texts that are quoted verbatim.
        notes: Markdown texts for the end of the card.
    """
    lines = [
        f"# Weights `{name}`",
        "",
        f"Meta-trained on the set `{facts['ensemble']}` "
        "(`problems/ensemble.py`).",
        "",
        "| | |",
        "| --- | --- |",
        f"| meta-iterations | {facts['meta_iterations']:,} |",
        f"| inner steps | {facts['inner_steps']:,} |",
        f"| wall time | {facts['seconds'] / 3600:.2f} h |",
        f"| computing time | {facts['core_seconds'] / 3600:.2f} core-hours |",
        f"| seed | {facts['seed']} |",
        f"| rule version | {RULE_VERSION} |",
        "",
        "Commands, one after another:",
        "",
        "```sh",
        *stages.commands(facts["stages"]),
        "```",
        "",
        "The shipped vector is the running average of the meta-parameters.",
        "",
        f"![meta-loss]({name}.png)",
        "",
        f"![step lengths]({name}_step_lengths.png)",
        "",
        "Rule:",
        "",
        "```json",
        json.dumps(rule.to_dict(), indent=1),
        "```",
        "",
        "Settings of the run:",
        "",
        "```json",
        json.dumps(facts["config"], indent=1),
        "```",
    ]
    for text in evaluations:
        lines += ["", "```", text.strip(), "```"]
    for text in notes:
        lines += ["", text.strip()]
    return "\n".join(lines) + "\n"


def main(argv):
    """Writes the files."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are taken. Received: {argv[1:]}")
    folder, out = pathlib.Path(TRAIN_DIR.value), pathlib.Path(OUT.value)
    name = NAME.value
    if (
        not (folder / "meta_train.csv").exists()
        and not (out / f"{name}.png").exists()
    ):
        raise app.UsageError(
            "The folder of --train_dir must have the run's meta_train.csv, or "
            f"that of --out the pictures of {name!r}. Received: "
            f"--train_dir={folder} --out={out}"
        )
    arrays, info = checkpoints.read(folder / "small.npz")
    facts = provenance(arrays, info)
    rule = RuleConfig.from_dict(info["rule_config"])
    evaluations = [pathlib.Path(p).read_text() for p in EVALUATION.value]
    notes = [pathlib.Path(p).read_text() for p in NOTES.value]
    out.mkdir(parents=True, exist_ok=True)
    digest = weights.save(
        out / f"{name}.npz", rule, arrays["state/average"], facts
    )
    if (folder / "meta_train.csv").exists():
        plot(folder, out / f"{name}.png")
        plot_step_lengths(folder, out / f"{name}_step_lengths.png")
    (out / f"{name}.md").write_text(card(name, facts, rule, evaluations, notes))
    run_out = pathlib.Path(RUN_OUT.value or out)
    run_out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "small.npz", run_out / f"{name}-run.npz")
    print(f"{out / name}.npz, sha256 {digest}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["train_dir", "name", "out"])
    app.run(main)
