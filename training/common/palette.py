"""Colours and line styles of curves, the same in all pictures."""

COLOURS = (
    "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
    "#000000", "#999933",
)  # fmt: skip
"""Okabe and Ito's palette, safe for the colour-blind, and one more colour."""

LINES = (
    "-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)),
)  # fmt: skip
"""Matplotlib's line styles, for readers who cannot see colours."""


def style(k: int) -> dict:
    """Colour and line of the k-th curve; the learned optimizer is the first."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "linestyle": LINES[k % len(LINES)],
    }
