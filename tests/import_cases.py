"""Imports all our modules; a program of `tests/test_compilation_cache.py`.

`python -m tests.import_cases FOLDER` prints the modules that change the
environment when they are imported, and, with a 3, the programs after whose
import `compilation_cache.enable` keeps nothing in FOLDER because TensorFlow
has computed something before.
"""

import contextlib
import importlib
import os
import pathlib
import sys

from tests.test_imports import FILES, PROGRAMS, module


def changing(names) -> list[str]:
    """The modules whose import changes the environment."""
    found = []
    for name in names:
        before = dict(os.environ)
        importlib.import_module(name)
        if dict(os.environ) != before:
            found.append(name)
    return found


def kept(folder: pathlib.Path) -> bool:
    """Whether an XLA program is kept after the cache is enabled."""
    import tensorflow as tf
    from absl import app, flags

    from training.common import compilation_cache

    def parse(argv):
        flags.FLAGS.mark_as_parsed()
        return argv

    def compile_one(argv):
        tf.function(lambda x: x + 1.0, jit_compile=True)(tf.ones(3))

    os.environ["HRNN_OPT_CACHE"] = str(folder)
    compilation_cache.enable()
    with contextlib.suppress(SystemExit):
        # TensorFlow reads its own settings at this point at the latest.
        app.run(compile_one, argv=["program"], flags_parser=parse)
    return any(folder.iterdir())


def main(folder: pathlib.Path):
    """Checks programs last, each in a process, since their flags may clash."""
    # What libraries change on their first import is not checked.
    importlib.import_module("keras")
    others = [module(path) for path in FILES]
    found = changing(name for name in others if name not in PROGRAMS)
    for name in PROGRAMS:
        pid = os.fork()
        if not pid:
            wrong = changing([name])
            sys.exit(2 if wrong else 0 if kept(folder / name) else 3)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            found.append(f"{name}: {code}")
    print(*found, sep="\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
