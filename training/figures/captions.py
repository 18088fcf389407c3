"""The text below each picture of the results page, made from its numbers.

A caption is one paragraph or table in Markdown. A defeat is a line about where
the learned optimizer loses; all of them are collected on the page. Figures that
the paper does not have are in `captions_beyond`.
"""

from training.figures.ablations import VARIANTS
from training.figures.captions_beyond import (
    depth_width,
    practice_profiles,
    profiles,
    wall_clock,
)
from training.figures.comparison import OWN
from training.figures.markdown import markdown, number


def _losses(finals: dict, first: str) -> str:
    """A table of final losses by problem and optimizer, the lowest in bold."""
    names = list(next(iter(finals.values())))
    rows = []
    for problem, losses in finals.items():
        low = min(losses.values())
        cells = [
            f"**{number(losses[n])}**" if losses[n] == low
            else number(losses[n])
            for n in names
        ]  # fmt: skip
        rows.append([problem, *cells])
    return markdown([first, *names], rows)


def _behind(finals: dict, what: str) -> list[str]:
    """The problems on which another optimizer ends lower."""
    found = []
    for problem, losses in finals.items():
        winner = min(losses, key=losses.get)
        if winner != OWN:
            found.append(
                f"{what}, {problem}: {number(losses[OWN])}, {winner} "
                f"{number(losses[winner])}."
            )
    return found


def figure_2(n: dict) -> tuple[str, list]:
    """Histogram."""
    low, median, high = n["quantiles_10_50_90"]
    return (
        f"Steps of {n['problems']:,} problems with the lengths of section 4.4: "
        f"mean {n['mean']:,.0f} (expected {n['mean_by_section_4_4']:,.0f}), "
        f"median {median:,.0f}. A tenth have fewer than {low:,.0f} steps, a "
        f"tenth more than {high:,.0f}.",
        [],
    )


def figure_3(n: dict) -> tuple[str, list]:
    """LSTM optimizers."""
    checks = []
    for kind, found in n["beside_sgd"].items():
        made = n["meta_training"][kind]["iterations"]
        word = "beats" if found["beats_sgd"] else "does **not** beat"
        checks.append(
            f"The one trained on the sigmoid {kind} ({made} meta-iterations) "
            f"{word} the best SGD there after {n['horizon']} steps: "
            f"{number(found['lstm'])} against {number(found['best_sgd'])}."
        )
    return (
        "MNIST, 256 pictures of 7 x 7 pixels for the MLPs and 14 x 14 for the "
        "ConvNets. Two coordinate-wise LSTM optimizers (Andrychowicz et al., "
        f"2016) were meta-trained here for {n['budget']:g} s each. The weights "
        "`wide` have seen small networks as well, but on synthetic data only, "
        f"the weights `paper` none at all. {' '.join(checks)} The table "
        f"extends this to {n['steps']} steps and to networks of ReLUs; median "
        f"loss of {n['instances']} held-out instances:\n\n"
        + _losses(n["final"], "MNIST"),
        _behind(n["final"], f"Figure 3, {n['steps']} steps"),
    )


def figure_4(n: dict) -> tuple[str, list]:
    """The corpus."""
    return (
        "Held-out draws of three rows of the corpus, which were chosen in "
        f"advance; median loss of {n['instances']} draws after {n['steps']} "
        "steps:\n\n" + _losses(n["final"], "row"),
        _behind(n["final"], "Figure 4"),
    )


def figure_5(n: dict) -> tuple[str, list]:
    """Initial learning rates."""
    rates = [f"{rate:.0e}" for rate in n["rates"]]
    rows = [
        [name, *map(number, final), f"{n['decades_between_rates'][name]:.1f}"]
        for name, final in n["final"].items()
    ]
    finals = {
        f"rate {rate}": {name: f[k] for name, f in n["final"].items()}
        for k, rate in enumerate(rates)
    }
    return (
        f"Median loss of {n['instances']} random quadratics after {n['steps']} "
        "steps, by initial learning rate, and the number of decades between "
        "the best and the worst:\n\n"
        + markdown(["optimizer", *rates, "decades"], rows),
        _behind(finals, "Figure 5"),
    )


def figure_6(n: dict) -> tuple[str, list]:
    """Ablations."""
    rows = [
        [name, n["iterations"][name], number(sorted(values)[len(values) // 2]),
         f"{number(min(values))}-{number(max(values))}",
         "" if name == "full" else n["against_full"][name]]
        for name, values in n["final"].items()
    ]  # fmt: skip
    left = [name for name in VARIANTS if name not in n["final"]]
    left = f"\n\nNot run here: {', '.join(left)}." if left else ""
    better = [k for k, v in n["against_full"].items() if v == "better"]
    return (
        f"MNIST ConvNet, loss after {n['steps']} steps. Each variant was "
        f"meta-trained once from scratch for {n['budget']:g} s on "
        f"{', '.join(n['rows'])}, so this says little about a full "
        f"meta-training. The range is that of {n['seeds']} seeds; where it "
        "overlaps that of the full rule, no order is claimed:\n\n"
        + markdown(
            ["variant", "meta-iterations", "median", "range", "against full"],
            rows,
        )
        + left,
        [
            "Figure 6: these variants do better than the full rule at this "
            f"budget: {', '.join(better)}."
        ]
        if better
        else [],
    )


def figure_7(n: dict) -> tuple[str, list]:
    """Wall-clock time."""
    names = list(n["milliseconds"])
    first, *_, last = n["ratio_to_adam"]
    rows = [
        [batch, *(f"{n['milliseconds'][name][k]:.3g}" for name in names),
         f"{n['ratio_to_adam'][k]:.1f}"]
        for k, batch in enumerate(n["batches"])
    ]  # fmt: skip
    return (
        "Milliseconds for a gradient and an update of a ConvNet of two layers, "
        "one core:\n\n" + markdown(["batch", *names, "ratio to Adam"], rows),
        [
            f"Figure 7: a step takes {first:.1f} times as long as Adam's with "
            f"{n['batches'][0]} picture, {last:.1f} times with "
            f"{n['batches'][-1]}."
        ],
    )


def figure_8a(n: dict) -> tuple[str, list]:
    """Networks never seen."""
    return (
        f"Loss of the whole training set ({n['pictures']} pictures) after "
        f"{n['steps']} steps of {n['batch']}, median of {n['seeds']} seeds:\n\n"
        + _losses(n["final"], "never seen"),
        _behind(n["final"], "Figure 8a"),
    )


CAPTIONS = {
    "figure_2": ("Figure 2: length of meta-training's problems", figure_2),
    "figure_3": ("Figure 3: LSTM optimizers", figure_3),
    "figure_4": ("Figure 4: the corpus", figure_4),
    "figure_5": ("Figure 5: initial learning rates", figure_5),
    "figure_6": ("Figure 6: ablations", figure_6),
    "figure_7": ("Figure 7: time", figure_7),
    "figure_8a": ("Figure 8a: never seen", figure_8a),
    "profiles": ("Time to target", profiles),
    "practice_profiles": ("Time to target, practice suite", practice_profiles),
    "wall_clock": ("Where it pays, by the clock", wall_clock),
    "depth_width": ("Deeper and wider", depth_width),
}
"""Title and a function from the numbers to (caption, defeats)."""
