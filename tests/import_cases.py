"""Imports every module of ours; a program of `tests/test_compilation_cache.py`.

`python -m tests.import_cases FOLDER` prints the modules that change the
environment when they are imported, and the programs (with a 3) after whose
import `compilation_cache.enable` keeps nothing in FOLDER: TensorFlow has
computed something before.
"""

import contextlib
import importlib
import os
import pathlib
import sys

from tests.test_imports import FILES, PROGRAMS, module


def changing(names) -> list[str]:
    """Those whose import changes the environment."""
    found = []
    for name in names:
        before = dict(os.environ)
        importlib.import_module(name)
        if dict(os.environ) != before:
            found.append(name)
    return found


def kept(folder: pathlib.Path) -> bool:
    """Whether a program of XLA is kept, once this is asked for."""
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
        # TensorFlow reads its own settings no later than here.
        app.run(compile_one, argv=["program"], flags_parser=parse)
    return any(folder.iterdir())


def main(folder: pathlib.Path):
    """Programs last, each in its own process, since their flags may clash."""
    # What libraries change when they are first imported is not ours.
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
