"""The results page: what is copied, what is written, what is reported."""

import json

import pytest

from training.figures import (
    FIGURES,
    captions,
    captions_beyond,
    figure_8b_page,
    markdown,
    results_page,
)
from training.figures.results_page import BEGIN, END

PAGE = f"# Title\n\n{BEGIN}\n\nold\n\n{END}\n\n## After\n"
FIGURE_4 = {
    "steps": 50,
    "instances": 2,
    "final": {
        "won": {"HierarchicalRNN": 0.1, "Adam 2e-3": 0.25},
        "lost": {"HierarchicalRNN": 0.3, "Adam 2e-3": 0.25},
    },
}
FIGURE_8B = """model,optimizer,step,seconds,loss
resnet50v2,hrnn,1,0.5,7.0
resnet50v2,hrnn,2,1.0,5.0
resnet50v2,adam,2,1.0,4.0
"""


@pytest.fixture
def root(tmp_path):
    page = tmp_path / "training" / "figures" / "README.md"
    page.parent.mkdir(parents=True)
    page.write_text(PAGE)
    out = tmp_path / "out"
    out.mkdir()
    (out / "figure_4.json").write_text(json.dumps(FIGURE_4))
    (out / "figure_4.png").write_bytes(b"picture")
    return tmp_path


def test_the_page_is_rebuilt(root):
    assert results_page.rebuild(root / "out", root) == ["figure_4"]
    text = (root / "training" / "figures" / "README.md").read_text()
    assert text.startswith("# Title\n\n") and text.endswith("\n\n## After\n")
    assert "old" not in text
    assert "![Figure 4: the corpus](../results/figure_4.png)" in text
    assert "| lost | 0.3 | **0.25** |" in text
    assert "- Figure 4, lost: 0.3, Adam 2e-3 0.25." in text
    assert "Figure 4, won" not in text
    assert "Not available yet: Figure 2" in text
    kept = root / "training" / "results"
    assert (kept / "figure_4.png").read_bytes() == b"picture"
    # Again, only from what is kept: nothing changes.
    (root / "empty").mkdir()
    assert results_page.rebuild(root / "empty", root) == []
    assert (root / "training" / "figures" / "README.md").read_text() == text


def test_numbers_are_short_and_zero_has_no_sign():
    told = [markdown.number(x) for x in (-0.0, 0.0, 1234.5, -2.61e-9)]
    assert told == ["0", "0", "1.2e+03", "-2.6e-09"]


FIGURE_8A = {
    "steps": 25, "seeds": 1, "batch": 8, "pictures": 16,
    "final": {"MLP": {"HierarchicalRNN": 0.5, "Adam 2e-3": 0.4}},
}  # fmt: skip


def test_the_weights_paper_stand_below_the_default(root):
    """Both, or one of the two; defeats say whose they are."""
    (root / "out" / "paper").mkdir()
    for folder, loss in ((root / "out", 0.3), (root / "out" / "paper", 0.5)):
        figure = json.loads(json.dumps(FIGURE_8A))
        figure["final"]["MLP"]["HierarchicalRNN"] = loss
        (folder / "figure_8a.json").write_text(json.dumps(figure))
        (folder / "figure_8a.png").write_bytes(str(loss).encode())
    taken = results_page.rebuild(root / "out", root)
    assert taken == ["figure_4", "figure_8a", "paper/figure_8a"]
    kept = root / "training" / "results"
    assert (kept / "figure_8a.png").read_bytes() == b"0.3"
    assert (kept / "paper" / "figure_8a.png").read_bytes() == b"0.5"
    text = (root / "training" / "figures" / "README.md").read_text()
    below = text.index("### Figure 8a: never seen, with the weights `paper`")
    assert text.index("### Figure 8a: never seen\n") < below
    assert "(../results/paper/figure_8a.png)" in text[below:]
    assert "- With the weights `paper`: Figure 8a, MLP: 0.5" in text
    assert "- Figure 8a, MLP" not in text


def test_half_a_figure_is_left(root):
    (root / "out" / "figure_2.png").write_bytes(b"picture")
    assert results_page.rebuild(root / "out", root) == ["figure_4"]


def test_figure_8b_comes_along(root):
    (root / "out" / "figure_8b.csv").write_text(FIGURE_8B)
    (root / "out" / "figure_8b.png").write_bytes(b"picture")
    assert "figure_8b" in results_page.rebuild(root / "out", root)
    text = (root / "training" / "figures" / "README.md").read_text()
    assert "| resnet50v2 | hrnn | 2 | 7 | 7 | 6.000 |" in text
    assert "- Figure 8b, resnet50v2, after 2 steps: 6.00, adam 4.00." in text


def test_runs_of_figure_8b_are_compared_at_the_same_step(tmp_path):
    path = tmp_path / "figure_8b.csv"
    rows = ["m,hrnn,1,1,6", "m,adam,1,1,5", "m,adam,2,1,3", "m,adam,3,1,1"]
    path.write_text("\n".join(["model,optimizer,step,seconds,loss", *rows]))
    caption, behind = figure_8b_page.caption(path)
    assert "| m | adam | 3 | 5 | 5 | 3.000 |" in caption
    assert behind == ["Figure 8b, m, after 1 steps: 6.00, adam 5.00."]


def test_figure_8b_without_the_learned_optimizer(tmp_path):
    path = tmp_path / "figure_8b.csv"
    path.write_text("model,optimizer,step,seconds,loss\nm,adam,3,1,2.5\n")
    caption, behind = figure_8b_page.caption(path)
    assert "| m | adam | 3 | 2.5 | 2.5 | 2.500 |" in caption and behind == []


@pytest.mark.parametrize("text", [
    "no marks", f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}"
])  # fmt: skip
def test_marks_must_be_there(text):
    with pytest.raises(ValueError, match="must have the lines"):
        results_page.replaced(text, "new")


def test_all_figures_have_a_caption():
    assert set(captions.CAPTIONS) == set(FIGURES.values())


def test_defeats_in_profiles():
    numbers = {
        "steps": 30,
        "seeds": 1,
        "targets": {"a": 0.1, "b": 0.2, "c": 0.3},
        "score_steps": {"HierarchicalRNN": 0.5, "Adam, best": 0.9},
        "score_seconds": {"HierarchicalRNN": 0.3, "Adam, best": 0.9},
        "steps_to_target": {
            "a": {"HierarchicalRNN": "- (20-)", "Adam, best": "30 (30-30)"},
            "b": {"HierarchicalRNN": "20 (10-)", "Adam, best": "10 (10-10)"},
            "c": {"HierarchicalRNN": "10 (10-10)", "Adam, best": "30 (30-30)"},
        },
    }
    text, behind = captions_beyond.profiles(numbers)
    assert behind == [
        "Profiles, a: the target is not reached in 30 steps; Adam, best takes "
        "30.",
        "Profiles, b: 20 steps to the target, Adam, best 10.",
        "Profiles: ranked by wall-clock time it is number 2 of 2.",
    ]
    assert text.index("| Adam, best | 0.90") < text.index("| HierarchicalRNN |")
