"""`python -m training.api_page --out=DIR`: the programming interface as HTML.

pdoc turns the docstrings into pages, without network access; `DIR/index.html`
is the first one. Warnings of pdoc and broken references are errors.
"""

import html.parser
import os
import pathlib
import re
import warnings

from absl import app, flags

MODULES = (
    "hrnn_opt",
    "hrnn_opt.model",
    "hrnn_opt.rule",
    "hrnn_opt.telemetry",
    "hrnn_opt.weights",
    "problems",
    "problems.ensemble",
    "problems.minibatch",
    "problems.streams",
    "training.replicas",
    "training.engine",
    "training.rules",
    "training.evaluation",
)
"""Modules that users import or that those refer to, in pdoc's notation."""

OURS = re.compile(r"(hrnn_opt|problems|training)(\.\w+)+(\(\))?")


def build(out: pathlib.Path) -> list[str]:
    """Writes the pages.

    Args:
        out: folder of the pages.

    Returns:
        Warnings of pdoc, one line each.

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
    for path in out.rglob("*.html"):
        path.write_text(_unlinked(path.read_text()))
    home = os.path.dirname(pdoc.__file__)
    return [str(w.message) for w in caught if w.filename.startswith(home)]


def _unlinked(text: str) -> str:
    """The page without links to members that pdoc does not show: those that our
    classes inherit from Keras."""
    anchors = _Page(text).anchors

    def keep(link):
        return link[0] if link[1] in anchors else link[2]

    return re.sub(r'<a href="#([\w.]+)">(.*?)</a>', keep, text)


class _Page(html.parser.HTMLParser):
    """The anchors of a page, its link targets, and names without a link."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors, self.links, self.unlinked = set(), [], []
        self._code = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value)
            elif name == "href" and tag == "a":
                self.links.append(value)
                self._code = None
        if tag == "code":
            self._code = ""

    def handle_data(self, data):
        if self._code is not None:
            self._code += data

    def handle_endtag(self, tag):
        if tag == "code":
            if self._code and OURS.fullmatch(self._code):
                self.unlinked.append(self._code)
            self._code = None


def broken_references(out: pathlib.Path) -> list[str]:
    """Broken references on the pages of a folder.

    Args:
        out: folder of the pages.

    Returns:
        "PAGE: REFERENCE" for each link to a missing page or anchor, and for
        each full name of ours that has not become a link.
    """
    pages = {
        path.resolve(): _Page(path.read_text())
        for path in sorted(out.rglob("*.html"))
    }
    broken = []
    for path, page in pages.items():
        wrong = list(page.unlinked)
        for link in page.links:
            target, _, anchor = link.partition("#")
            if ":" in target:
                continue
            found = pages.get(
                (path.parent / target).resolve() if target else path
            )
            if found is None or (anchor and anchor not in found.anchors):
                wrong.append(link)
        name = path.relative_to(out.resolve())
        broken += [f"{name}: {reference}" for reference in wrong]
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
    wrong += broken_references(out)
    if wrong:
        raise SystemExit("\n".join(wrong))
    print(out / "index.html")


def run():
    """The command; flags are defined here, so that importing defines none."""
    flags.DEFINE_string("out", "runs/api", "Folder for the pages.")
    app.run(main)


if __name__ == "__main__":
    run()
