"""Which modules may import which: WORKSPACE.md, section 5, from the files."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
OURS = ("hrnn_opt", "problems", "training")
FILES = [
    path.relative_to(ROOT)
    for top in OURS
    for path in sorted((ROOT / top).rglob("*.py"))
]

MAY_IMPORT = {
    # The optimizer knows neither problems nor training.
    "hrnn_opt.backend": "",
    "hrnn_opt.version": "",
    "hrnn_opt.rule": "hrnn_opt.backend",
    "hrnn_opt.weights": "hrnn_opt.rule",
    "hrnn_opt.model": "hrnn_opt.backend hrnn_opt.rule",
    "hrnn_opt.persistence": "hrnn_opt.rule hrnn_opt.model",
    "hrnn_opt.telemetry": "hrnn_opt.backend hrnn_opt.rule hrnn_opt.model",
    "hrnn_opt.weights_resolver": "hrnn_opt.rule hrnn_opt.weights",
    "hrnn_opt.keras_optimizer": "hrnn_opt.backend hrnn_opt.rule hrnn_opt.model "
    "hrnn_opt.persistence hrnn_opt.weights_resolver",
    "hrnn_opt.find_optimizers": "hrnn_opt.keras_optimizer",
    "hrnn_opt.cost": "hrnn_opt.backend hrnn_opt.model "
    "hrnn_opt.keras_optimizer hrnn_opt.find_optimizers",
    "hrnn_opt.callbacks": "hrnn_opt.model hrnn_opt.telemetry "
    "hrnn_opt.keras_optimizer hrnn_opt.find_optimizers",
    "hrnn_opt": "hrnn_opt.rule hrnn_opt.cost hrnn_opt.keras_optimizer "
    "hrnn_opt.callbacks hrnn_opt.version",
    "problems": "",
    # Subpackages of training, from the bottom up.
    "training": "",
    "training.replicas": "",
    "training.common": "",
    "training.rules": "hrnn_opt training.common",
    "training.engine": "hrnn_opt problems training.common training.rules.base",
    "training.evaluation": "hrnn_opt problems training.common training.engine "
    "training.rules",
    "training.runs": "hrnn_opt problems training.common training.engine "
    "training.evaluation",
    "training.distributed": "hrnn_opt problems training.common training.engine "
    "training.runs",
    "training.imagenet": "hrnn_opt training.common training.replicas",
    "training.figures": "hrnn_opt problems training.common training.engine "
    "training.rules training.evaluation training.runs",
    "training.research": "problems training.common training.engine "
    "training.rules training.evaluation training.runs training.distributed",
    # Programs and benchmarks may use everything, and are used by none.
    "training.benchmark": "hrnn_opt problems training.common training.engine "
    "training.rules training.evaluation training.runs training.distributed "
    "training.research",
    "a program": "hrnn_opt problems training.common training.engine "
    "training.rules training.evaluation training.runs training.distributed "
    "training.imagenet training.replicas",
}


def module(path: pathlib.Path) -> str:
    """The dotted name of a file; a package is its `__init__`."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def is_program(path: pathlib.Path) -> bool:
    """Whether a file does something when it is run."""
    return 'if __name__ == "__main__"' in (ROOT / path).read_text()


PROGRAMS = [module(path) for path in FILES if is_program(path)]


def room(path: pathlib.Path) -> str:
    """The row of `MAY_IMPORT` that a file belongs to."""
    first, *rest = path.parts[:-1]
    if first == "problems":
        return first
    if rest:
        return f"{first}.{rest[0]}"
    return "a program" if is_program(path) else module(path)


def imported(path: pathlib.Path, tops=OURS) -> list[str]:
    """Modules and names that a file imports from packages, at any place."""
    names = []
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] in tops]


def within(name: str, rooms) -> bool:
    """Whether a name lies in one of the rooms."""
    return any(name == one or name.startswith(f"{one}.") for one in rooms)


def test_a_file_imports_only_what_its_room_may():
    wrong = []
    for path in FILES:
        own = room(path)
        assert own in MAY_IMPORT, f"{path}: MAY_IMPORT has no row {own}."
        allowed = MAY_IMPORT[own].split()
        if own not in ("hrnn_opt", "training", "a program"):
            allowed.append(own)
        wrong += [
            f"{path} imports {name}"
            for name in imported(path)
            if not within(name, allowed)
        ]
    assert not wrong


def test_rooms_do_not_import_each_other_in_a_circle():
    rows = {own: set(text.split()) for own, text in MAY_IMPORT.items()}
    rows["training.engine"] -= {"training.rules.base"}
    done = set()
    while rows:
        free = [own for own, needs in rows.items() if needs <= done]
        assert free, f"a circle among {sorted(rows)}"
        done.update(free)
        for own in free:
            del rows[own]


def test_every_row_is_a_room():
    assert {room(path) for path in FILES} == set(MAY_IMPORT)


def test_programs_are_imported_by_nobody():
    # A suite of the benchmark starts its own module in a new process.
    programs = [name for name in PROGRAMS if "benchmark" not in name]
    found = [name for path in FILES for name in imported(path)]
    assert not [name for name in found if within(name, programs)]


def test_only_programs_read_flags():
    reading = ["absl.flags", "absl.app", "argparse"]
    for path in FILES:
        names = imported(path, ("absl", "argparse"))
        reads = [name for name in names if within(name, reading)]
        assert is_program(path) or not reads, path
