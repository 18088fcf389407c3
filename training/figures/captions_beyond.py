"""Captions of the figures that the paper does not have: see `captions`."""

from training.figures.comparison import OWN
from training.figures.markdown import markdown, number


def profiles(n: dict) -> tuple[str, list]:
    """Time to target."""
    names = sorted(n["score_steps"], key=n["score_steps"].get, reverse=True)
    rows = [
        [name, f"{n['score_steps'][name]:.2f}",
         f"{n['score_seconds'][name]:.2f}"]
        for name in names
    ]  # fmt: skip
    tasks = n["steps_to_target"]
    columns = list(next(iter(tasks.values())))
    steps = [
        [task, number(n["targets"][task]), *found.values()]
        for task, found in tasks.items()
    ]
    behind = []
    for task, found in tasks.items():
        medians = {
            name: float(cell.split()[0]) for name, cell in found.items()
            if cell[0] != "-"
        }  # fmt: skip
        fastest = min(medians, key=medians.get)
        if OWN not in medians:
            behind.append(
                f"Profiles, {task}: the target is not reached in {n['steps']} "
                f"steps; {fastest} takes {medians[fastest]:g}."
            )
        elif medians[OWN] > medians[fastest]:
            behind.append(
                f"Profiles, {task}: {medians[OWN]:g} steps to the target, "
                f"{fastest} {medians[fastest]:g}."
            )
    place = 1 + sum(
        s > n["score_seconds"][OWN] for s in n["score_seconds"].values()
    )
    behind.append(
        f"Profiles: ranked by wall-clock time it is number {place} of "
        f"{len(names)}."
    )
    return (
        f"Time to the final loss of the best tuned Adam ({n['steps']} steps, "
        f"{len(tasks)} tasks, {n['seeds']} seeds). The rivals run at the best "
        "rate of a grid of six, found with seed 0, and at Keras's default. The "
        "score is the mean height of the profile between 1 and 4. Times were "
        "taken on a machine shared with other work, so steps are the more "
        "reliable numbers.\n\n"
        + markdown(["optimizer", "score, steps", "score, time"], rows)
        + "\n\nSteps to the target, median (range) of seeds; - means never:\n\n"
        + markdown(["task", "target", *columns], steps),
        behind,
    )


def wall_clock(n: dict) -> tuple[str, list]:
    """Where it pays, by the clock."""

    def cell(x, form=".2g"):
        return "-" if x is None else f"{x:{form}}"

    rows, behind = [], []
    for r in n["rows"]:
        ratio = r["time_ratio"]
        rows.append(
            [r["network"], r["batch"], r["best_adam"].split()[1],
             cell(r["own_steps"], "g"), cell(r["adam_steps"], "g"),
             cell(r["own_step_ms"], ".3g"), cell(r["adam_step_ms"], ".3g"),
             cell(ratio),
             cell(None if ratio is None else r["own_s"] / r["all_rates_s"])]
        )  # fmt: skip
        where = f"{r['network']}, minibatches of {r['batch']}"
        if ratio is None:
            behind.append(
                f"By the clock, {where}: the best Adam's loss is not reached "
                f"in {r['steps']} steps."
            )
        elif ratio > 1:
            behind.append(
                f"By the clock, {where}: the way to the best Adam's loss takes "
                f"{number(ratio)} times as long."
            )
    return (
        "Time to the loss at which the best of three Adam rates "
        f"({', '.join(f'{rate:g}' for rate in n['rates'])}) ends; "
        f"{n['pictures']:,} pictures, one core. An update costs the same for "
        "all networks, a gradient does not. The last column compares with the "
        "time of all three Adam runs, which whoever does not know the rate has "
        "to make:\n\n"
        + markdown(
            ["network", "minibatch", "best rate", "steps", "Adam's",
             "ms a step", "Adam's", "time to Adam's", "to all three"],
            rows,
        ),
        behind,
    )  # fmt: skip


def depth_width(n: dict) -> tuple[str, list]:
    """Deeper and wider residual networks."""
    rows = [
        [r["network"], f"{r['parameters']:,}", f"{r['loss']:.3f}",
         f"{r['adam_loss']:.3f} ({r['best_adam']:g})", f"{r['ratio']:.2f}",
         f"{r['accuracy']:.1%}", f"{r['adam_accuracy']:.1%}"]
        for r in n["rows"]
    ]  # fmt: skip
    behind = [
        f"{r['network']}, {n['steps']} steps: {number(r['ratio'])} times the "
        "best Adam's training loss."
        for r in n["rows"]
        if r["ratio"] > 1
    ]
    growth = ""
    if n["growth"] is not None:
        growth = (
            " The largest ratio is "
            f"{number(n['growth'])} times that of ResNet-20 x1."
            if n["growth"] > 1
            else " No ratio is larger than that of ResNet-20 x1."
        )
    return (
        "ResNets v2 with batch normalization on CIFAR-10 (x4: four times "
        "as many channels), minibatches of "
        f"{n['batch']} of 20,000 pictures, {n['steps']} steps, {n['seeds']} "
        "seed(s). Loss of the last 100 minibatches; Adam at the best of "
        f"{len(n['rates'])} rates ({', '.join(f'{r:g}' for r in n['rates'])})."
        f"{growth} Accuracy on 2,048 held-out pictures:\n\n"
        + markdown(
            ["network", "parameters", "loss", "Adam's (rate)", "ratio",
             "accuracy", "Adam's"],
            rows,
        ),
        behind,
    )  # fmt: skip


def practice_profiles(n: dict) -> tuple[str, list]:
    """The practice suite."""
    parts, behind = [], []
    for half, found in n["halves"].items():
        means, worst = found["geometric_mean"], found["worst"]
        names = sorted(means, key=means.get)
        rows = [
            [name, f"{means[name]:.2f}", f"{worst[name]:.2f}",
             f"{found['profile'][name]:.2f}"]
            for name in names
        ]  # fmt: skip
        parts.append(
            f"{half.capitalize()} half, {len(found['tasks'])} tasks:\n\n"
            + markdown(["optimizer", "mean", "worst", "profile"], rows)
        )
        behind += [
            f"Practice suite, {task}: {ratio:.2f} times the best Adam's loss."
            for task, ratio in found["ratio"][OWN].items()
            if ratio > 1
        ]
    return (
        f"Tasks of the [practice suite](../evaluation/practice/README.md), "
        f"{n['steps']} steps, {n['seeds']} seed(s). Loss relative to that of "
        "Adam at the best of six rates for the task (geometric mean, and worst "
        "task), and the score of the profile: how soon that loss is reached, "
        "the mean height of the curve between 1 and 4. A best rate is one for "
        "each task; the cosine ends at zero and knows the number of steps; a "
        "single rate of Adam is Keras's default, or the best one for all "
        "tasks of the suite; the other rivals have Keras's default rates."
        "\n\n" + "\n\n".join(parts),
        behind,
    )
