"""Pages and docstrings refer to existing links, commands, flags and names.

All of it is read from the files, so none of our modules is imported.
"""

import ast
import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
OURS = ("hrnn_opt", "problems", "training")
PAGES = sorted(
    path.relative_to(ROOT)
    for top in (".", *OURS)
    for path in ((ROOT / top).glob if top == "." else (ROOT / top).rglob)(
        "*.md"
    )
)
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for top in OURS
    for path in sorted((ROOT / top).rglob("*.py"))
}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
CODE = re.compile(r"```.*?```", re.DOTALL)
PROGRAM = re.compile(r"python3? -m\s+([\w.]+)")
COMMAND = re.compile(
    r"python -m\s+(?:training|problems)\b(?:[^\n`]|\\\n|(?<=[^\n])\n(?=\s*--))*"
)
FLAG = re.compile(r"(?<![\w-])--(\w+)")
DEFINED = re.compile(r"DEFINE_\w+\(\s*\"(\w+)\"")
SETTING = re.compile(r"^    (\w+): [\w ]+ = _setting\(", re.MULTILINE)
FILE = re.compile(
    rf"`((?:{'|'.join(OURS)}|tests)/[\w./-]+\.(?:py|md|npz|csv|yaml|sh))`"
)


def text(page) -> str:
    return (ROOT / page).read_text()


def anchors(page: pathlib.Path) -> set:
    """The headings of a page, as GitHub names them in links."""
    found = HEADING.findall(CODE.sub("", page.read_text()))
    return {
        re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-")
        for head in found
    }


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    for link in LINK.findall(CODE.sub("", text(page))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_that_are_named_exist(page):
    for name in FILE.findall(text(page)):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_name_programs_and_flags(page):
    for name in PROGRAM.findall(text(page)):
        if name.split(".")[0] in OURS:
            path = MODULES.get(f"{name}.__main__") or MODULES.get(name)
            assert path is not None, name
            assert '__name__ == "__main__"' in path.read_text(), name
        else:
            assert importlib.util.find_spec(name.split(".")[0]), name
    sources = [path.read_text() for path in MODULES.values()]
    known = {"help", *sum(map(DEFINED.findall, sources), [])}
    known.update(*map(SETTING.findall, sources))
    for command in COMMAND.findall(text(page)):
        for flag in FLAG.findall(command):
            name = flag.removeprefix("no") if flag not in known else flag
            assert name in known, f"--{flag} in {command}"


def test_pages_stay_short():
    assert len(text("README.md").splitlines()) <= 300
    assert len(text("WORKSPACE.md").splitlines()) <= 250


def names_of(body) -> dict:
    """Names that statements define, each with the names in a class, or None."""
    found = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = None
            for inner in ast.walk(node):
                # Attributes of an object: self.x = ...
                if isinstance(inner, ast.Attribute) and isinstance(
                    inner.ctx, ast.Store
                ):
                    found.setdefault(inner.attr, None)
        elif isinstance(node, ast.ClassDef):
            found[node.name] = names_of(node.body)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = None
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = getattr(node, "targets", None) or [node.target]
            for target in targets:
                for inner in ast.walk(target):
                    if isinstance(inner, ast.Name):
                        found[inner.id] = None
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            found.update(names_of(node.body + getattr(node, "orelse", [])))
    return found


NAMES = {
    name: names_of(ast.parse(path.read_text()).body)
    for name, path in MODULES.items()
}


def resolves(module: str, rest: list) -> bool:
    """Whether the names after a module exist, to a depth of two."""
    if not rest:
        return True
    if f"{module}.{rest[0]}" in MODULES:
        return resolves(f"{module}.{rest[0]}", rest[1:])
    inside = NAMES[module]
    if rest[0] not in inside:
        return False
    # The members of imported or inherited names are not known here.
    members = inside[rest[0]]
    return members is None or len(rest) == 1 or rest[1] in members


def references(path: pathlib.Path):
    """Dotted names in backticks in the docstrings of a file."""
    tree = ast.parse(path.read_text())
    docs = [
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    for doc in docs:
        yield from re.findall(r"(?<!`)`([A-Za-z_]\w*(?:\.\w+)+)(?:\(\))?`", doc)


SAID_OF_OBJECTS = {"model"}
"""Names of modules that mean a user's object in docstrings."""

FILES = {"csv", "json", "md", "npz", "png", "py"}
"""Extensions of file names, which look like references."""


def stale(module: str, path: pathlib.Path) -> list:
    """References to names that do not exist (any more)."""
    wrong = []
    for name in references(path):
        first, *rest = name.split(".")
        if rest[-1] in FILES:
            continue
        if first in OURS:
            fits = [resolves(first, rest)]
        elif first in SAID_OF_OBJECTS:
            continue
        else:
            fits = [
                resolves(other, rest)
                for other in MODULES
                if other.split(".")[-1] == first
            ]
            own = NAMES[module].get(first)
            if own is not None:
                fits.append(rest[0] in own)
        if fits and not any(fits):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("module", sorted(MODULES))
def test_docstrings_refer_to_what_is_there(module):
    assert not stale(module, MODULES[module])


def test_a_stale_reference_is_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        '"""See `hrnn_opt.rule.gru.gru`, `gru.gru`, `features.gone`,\n'
        '`hrnn_opt.gone`, `tf.function`, `hrnn_opt.RuleConfig`."""\n'
    )
    assert stale("hrnn_opt", path) == ["features.gone", "hrnn_opt.gone"]
