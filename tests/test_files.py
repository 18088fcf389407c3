"""Files that are either complete or unchanged; colours of curves."""

import os

import pytest

from training.common import files, palette


def test_a_file_is_replaced_and_its_folder_made(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for content, expected in (("µ\n", b"\xc2\xb5\n"), (b"\0\1", b"\0\1")):
        files.write(path, content)
        assert path.read_bytes() == expected
        assert os.listdir(path.parent) == ["a.txt"]


def test_an_error_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    files.write(path, "old")
    with pytest.raises(KeyboardInterrupt):
        with files.replacing(path) as file:
            file.write(b"half of the new o")
            file.flush()
            assert path.read_text() == "old"
            raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_curves_are_told_apart_by_colour_and_by_line():
    styles = [palette.style(k) for k in range(len(palette.LINES))]
    assert len({style["color"] for style in styles}) == len(styles)
    assert len({style["linestyle"] for style in styles}) == len(styles)
    again = palette.style(len(palette.COLOURS))
    assert again["color"] == styles[0]["color"]
