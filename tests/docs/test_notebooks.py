"""The notebooks of the guides: every cell runs, in order, in the same namespace."""

import ast
import html
import json

import pytest

from tests.docs.test_docs import DOCS

pytestmark = pytest.mark.nightly


pytest.importorskip("mne")
pytest.importorskip("nibabel")


INSTALL = "%pip install -q brainhive"
"""Only line of the first code cell. Tests leave it out, as it downloads a release."""


def run_notebook(path):
    """Run all code cells; return their variables, and HTML of the values shown."""
    cells = json.loads(path.read_text())["cells"]
    heading, install, *cells = cells
    assert heading["cell_type"] == "markdown"
    assert install["source"] == [INSTALL]
    variables = {}
    cards = []
    for number, cell in enumerate(cells, 3):
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []
        assert cell["execution_count"] is None

        # a notebook shows the value of a last line that is an expression
        tree, name = ast.parse("".join(cell["source"])), f"{path.name}, cell {number}"
        last_statement = (
            tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        )
        exec(compile(tree, name, "exec"), variables)
        if last_statement is not None:
            shown_eval = eval(
                compile(ast.Expression(last_statement.value), name, "eval"), variables
            )
            cards.append(getattr(shown_eval, "_repr_html_", lambda: "")() or "")
    return variables, [card for card in cards if card]


def test_the_eeg_notebook_decodes_pictures_and_categories(home):
    variables, cards = run_notebook(DOCS / "eeg.ipynb")

    assert variables["is_decoded"]
    assert variables["are_categories_decoded"]
    assert variables["result"].measurements.caveats == ["order of trials unknown"]
    found_runs, shown_table = variables["found"], variables["shown"]
    assert found_runs.image_ids == [name[:-4] for name in shown_table[found_runs.index]]
    assert len(found_runs.ranks) == 48
    assert (found_runs.ranks == 1).mean() > 2 / 12
    assert len(cards) == 1
    assert variables["result"].finding in html.unescape(cards[0])


def test_the_fmri_notebook_decodes_only_unpermuted_trials(
    home,
):
    variables, cards = run_notebook(DOCS / "fmri.ipynb")

    assert variables["is_bold_decoded"]
    assert variables["is_decoded"]
    assert not variables["is_control_decoded"]
    assert variables["X"].shape == (96, 479)
    assert variables["from_bold"].finding in html.unescape(cards[0])
    assert cards[1].startswith("<table>")
