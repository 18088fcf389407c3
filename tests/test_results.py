"""Results that are stored as they arrive."""

import pytest

from training.common.results import Results


def never():
    raise RuntimeError("done before")


def test_finished_jobs_are_not_done_again(tmp_path):
    path = tmp_path / "new" / "results.csv"
    first = Results(path)
    assert first.get("net; Adam, seed 1", lambda: [0.1, 1e-30]) == [0.1, 1e-30]
    assert first.get("net; Adam, seed 1", never) == [0.1, 1e-30]
    first.get("other", lambda: [float("inf")])
    again = Results(path)
    assert again.get("net; Adam, seed 1", never) == [0.1, 1e-30]
    assert again.get("other", never) == [float("inf")]
    with pytest.raises(RuntimeError):
        again.get("third", never)
    assert len(path.read_text().splitlines()) == 2


def test_without_a_file():
    results = Results()
    assert results.get("a", lambda: [1]) == [1.0]
    assert results.get("a", never) == [1.0]


@pytest.mark.parametrize("text", ["a,1,b\n", "a,1\n\n"])
def test_damaged_lines_are_named(tmp_path, text):
    path = tmp_path / "results.csv"
    path.write_text("a,1\n" + text)
    with pytest.raises(ValueError, match="must be a key and numbers"):
        Results(path)


def test_a_line_that_was_cut_off_is_done_again(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("a,1\nb,0.12")
    results = Results(path)
    assert results.get("a", never) == [1.0]
    assert results.get("b", lambda: [0.125]) == [0.125]
    assert path.read_text().splitlines() == ["a,1", "b,0.125"]
