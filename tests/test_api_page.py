"""The API pages: built without warnings, and linked."""

import pytest

from training import api_page


def test_pages_are_built_and_linked(tmp_path):
    pytest.importorskip("pdoc")
    assert api_page.build(tmp_path) == []
    assert api_page.broken_references(tmp_path) == []
    text = (tmp_path / "hrnn_opt.html").read_text()
    # Sections of docstrings become lists, and references become links; members
    # inherited from Keras are not shown, so they have no link.
    assert "<strong>learning_rate:</strong>" in text
    assert '<code><a href="#RuleConfig">RuleConfig</a></code>' in text
    assert "<code>clipnorm</code>" in text
    assert (tmp_path / "training" / "replicas.html").exists()


def test_broken_references_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"></p><a href="#here"></a><a href="#gone"></a>'
        '<a href="b/c.html#x"></a><a href="b/d.html"></a>'
        '<a href="https://example.org/#any"></a>'
        "<code>hrnn_opt.gone</code> <code>keras.Model</code>"
        '<code><a href="#here">hrnn_opt.here</a></code>'
    )
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.html").write_text(
        '<p id="x"></p><a href="../a.html"></a><a href="a.html"></a>'
    )
    assert api_page.broken_references(tmp_path) == [
        "a.html: hrnn_opt.gone",
        "a.html: #gone",
        "a.html: b/d.html",
        "b/c.html: a.html",
    ]
