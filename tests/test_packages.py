"""The packages that are installed are those in the folders."""

import configparser
import pathlib

ROOT = pathlib.Path(__file__).parents[1]


def test_setup_names_every_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = setup["options"]["packages"].split()
    modules = [
        path.relative_to(ROOT)
        for top in ("hrnn_opt", "problems", "training")
        for path in (ROOT / top).rglob("*.py")
    ]
    folders = {".".join(path.parts[:-1]) for path in modules}
    assert named == sorted(folders)
    for folder in folders:
        assert (ROOT / folder.replace(".", "/") / "__init__.py").exists()
