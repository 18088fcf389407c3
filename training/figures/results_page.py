"""`python -m training.figures.results_page --out=runs/figures`: the results.

Copies the pictures and numbers in --out to `training/results`, and writes the
marked section of `training/figures/README.md` from everything there.
"""

import json
import os
import pathlib
import shutil

from absl import app, flags

from training.common.files import write
from training.figures.captions import CAPTIONS
from training.figures.figure_8b_page import caption as caption_8b

ROOT = pathlib.Path(__file__).resolve().parents[2]
BEGIN = "<!-- results: begin (python -m training.figures.results_page) -->"
END = "<!-- results: end -->"

PAPER = ("figure_3", "figure_8a")
"""Figures that are also made with `weights="paper"`, in a folder `paper`."""

BEYOND = (
    "- After thousands of steps and on data with persistent noise: see the "
    "[model card](../../hrnn_opt/weights/wide.md)."
)
"""What runs as short as these cannot show."""


def take_over(out: pathlib.Path, kept: pathlib.Path) -> list[str]:
    """Copies finished figures; of each either both files or none.

    Returns:
        Names of the figures that were copied.
    """
    pairs = [(name, "json") for name in CAPTIONS] + [("figure_8b", "csv")]
    taken = _copied(out, kept, pairs)
    paper = [(name, "json") for name in PAPER]
    found = _copied(out / "paper", kept / "paper", paper)
    return taken + [f"paper/{name}" for name in found]


def _copied(out, kept, pairs) -> list[str]:
    taken = []
    for name, kind in pairs:
        files = [out / f"{name}.png", out / f"{name}.{kind}"]
        if all(file.exists() for file in files):
            kept.mkdir(parents=True, exist_ok=True)
            for file in files:
                shutil.copyfile(file, kept / file.name)
            taken.append(name)
    return taken


def section(kept: pathlib.Path, folder: pathlib.Path) -> str:
    """The section's text, without the marks.

    Args:
        kept: folder of pictures and numbers.
        folder: folder of the page; links to the pictures are relative to it.
    """
    parts, defeats, missing = [], [], []
    entries = [
        (name, title, kept / f"{name}.json", None)
        for name, (title, _) in CAPTIONS.items()
    ]
    entries.insert(
        list(CAPTIONS).index("profiles"),
        (
            "figure_8b",
            "Figure 8b: ImageNet",
            kept / "figure_8b.csv",
            caption_8b,
        ),
    )
    for name in PAPER:
        title = f"{CAPTIONS[name][0]}, with the weights `paper`"
        path = kept / "paper" / f"{name}.json"
        after = [entry[0] for entry in entries].index(name) + 1
        entries.insert(after, (f"paper/{name}", title, path, None))
    for name, title, path, of_file in entries:
        if not path.exists():
            missing.append(title)
            continue
        if of_file:
            caption, behind = of_file(path)
        else:
            numbers = json.loads(path.read_text())
            caption, behind = CAPTIONS[path.stem][1](numbers)
        if name.startswith("paper/"):
            behind = [f"With the weights `paper`: {line}" for line in behind]
        picture = pathlib.Path(
            os.path.relpath(kept / f"{name}.png", folder)
        ).as_posix()
        shown = title.replace("`", "")
        parts.append(f"### {title}\n\n![{shown}]({picture})\n\n{caption}")
        defeats += behind
    losses = (
        "\n".join(f"- {line}" for line in defeats)
        or "- In none of these figures."
    )
    parts.append(f"### Where the learned optimizer loses\n\n{losses}\n{BEYOND}")
    if missing:
        parts.append(f"Not available yet: {'; '.join(missing)}.")
    return "\n\n".join(parts)


def replaced(page: str, text: str) -> str:
    """The page with new text between the marks.

    Raises:
        ValueError: each mark must be there once, and in order.
    """
    begin, end = page.find(BEGIN), page.find(END)
    if page.count(BEGIN) != 1 or page.count(END) != 1 or end < begin:
        raise ValueError(
            f"Argument `page` must have the lines {BEGIN!r} and {END!r}, in "
            f"this order. Received: {page.count(BEGIN)} and "
            f"{page.count(END)} of them"
        )
    return f"{page[: begin + len(BEGIN)]}\n\n{text}\n\n{page[end:]}"


def rebuild(out: pathlib.Path, root: pathlib.Path) -> list[str]:
    """Copies new figures, and writes the page.

    Args:
        out: folder in which the figures were made.
        root: root folder of the checkout.

    Returns:
        Names of the figures that were copied.
    """
    kept = root / "training" / "results"
    page = root / "training" / "figures" / "README.md"
    taken = take_over(out, kept)
    write(page, replaced(page.read_text(), section(kept, page.parent)))
    return taken


def main(argv):
    """Rebuilds the page."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are taken. Received: {argv[1:]}")
    try:
        taken = rebuild(
            pathlib.Path(flags.FLAGS.out), pathlib.Path(flags.FLAGS.root)
        )
    except (ValueError, FileNotFoundError) as error:
        raise app.UsageError(str(error)) from error
    print(json.dumps({"taken": taken}))


def run():
    """Runs the command; defining flags here keeps imports free of them."""
    flags.DEFINE_string("out", "runs/figures", "Folder of the figures.")
    flags.DEFINE_string("root", str(ROOT), "Root of the checkout.")
    app.run(main)


if __name__ == "__main__":
    run()
