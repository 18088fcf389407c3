"""`python -m training.api_page --out=DIR`: the programming interface as HTML.

pdoc makes pages of the docstrings of `hrnn_opt`, `problems` and
`training.replicas`, without network; `DIR/index.html` is the first one. What
pdoc warns of, and links that lead nowhere, are errors.
"""

import html.parser
import os
import pathlib
import warnings

from absl import app, flags

MODULES = (
    "hrnn_opt",
    "problems",
    "!problems.gallery",  # A program.
    "training.replicas",
)
"""What users import, in pdoc's notation."""


def build(out: pathlib.Path) -> list[str]:
    """Writes the pages.

    Args:
        out: folder of the pages.

    Returns:
        What pdoc warned of, one line each.

    Raises:
        ModuleNotFoundError: pdoc is not installed.
    """
    import pdoc
    import pdoc.render

    pdoc.render.configure(docformat="google", show_source=False)
    out.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc(*MODULES, output_directory=out)
    home = os.path.dirname(pdoc.__file__)
    return [str(w.message) for w in caught if w.filename.startswith(home)]


class _Page(html.parser.HTMLParser):
    """Anchors of a page, and where its links lead."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value)
            elif name == "href" and tag == "a":
                self.links.append(value)


def broken_links(out: pathlib.Path) -> list[str]:
    """Links between the pages of a folder that lead nowhere.

    Args:
        out: folder of the pages.

    Returns:
        "PAGE: LINK", one a link.
    """
    pages = {
        path.resolve(): _Page(path.read_text())
        for path in sorted(out.rglob("*.html"))
    }
    broken = []
    for path, page in pages.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            if ":" in target:
                continue
            found = pages.get(
                (path.parent / target).resolve() if target else path
            )
            if found is None or (anchor and anchor not in found.anchors):
                broken.append(f"{path.relative_to(out.resolve())}: {link}")
    return broken


def main(argv):
    """Builds and checks the pages."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are taken. Received: {argv[1:]}")
    out = pathlib.Path(flags.FLAGS.out)
    try:
        wrong = build(out)
    except ModuleNotFoundError as error:
        if error.name != "pdoc":
            raise
        raise app.UsageError(
            'The pages are made by pdoc: pip install ".[docs]"'
        ) from error
    wrong += broken_links(out)
    if wrong:
        raise SystemExit("\n".join(wrong))
    print(out / "index.html")


def run():
    """The command; flags are defined here, so that importing defines none."""
    flags.DEFINE_string("out", "runs/api", "Folder for the pages.")
    app.run(main)


if __name__ == "__main__":
    run()
