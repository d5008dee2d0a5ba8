"""Test of the guide to block designs: its program and commands, on fewer classes."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.results.measurements import DESIGN_ALONE
from tests.docs.test_docs import DOCS

PAGE = (DOCS / "block-designs.md").read_text()


@pytest.mark.parametrize(
    ("effect", "text"), [("0.0", "at chance"), ("0.5", "above chance")]
)
def test_noise_tells_the_class_in_blocks(home, monkeypatch, effect, text):
    """Only a response to pictures tells the pictures of a class apart."""
    monkeypatch.chdir(home)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    changes = {"EFFECT = 0.0": f"EFFECT = {effect}"}
    sizes = "CLASSES, PICTURES, CHANNELS = "
    changes[f"{sizes}40, 50, 16"] = f"{sizes}12, 30, 12"
    for old_name, new_change in changes.items():
        assert program.count(old_name) == 1
        program = program.replace(old_name, new_change)
    exec(compile(program, "blocks.py", "exec"), {})

    (lines,) = re.findall(r"```bash\npython blocks.py\n(.*?)```", PAGE, re.DOTALL)
    stdout = ""
    for line in lines.splitlines():
        arguments = list(shlex.split(line)[1:]) + ["--json"]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.stderr}"
        stdout = result.stdout

    document = json.loads(stdout)
    folder = Path(document["folder"])
    metrics = json.loads((folder / "metrics.json").read_text())
    scopes = metrics["scopes"]
    # the three test pictures of the class come first
    assert scopes[DESIGN_ALONE]["top3"]["value"] == 1
    assert scopes["all"]["concept_top1"]["low"] > 1 / 12
    answers = {}
    for answer in metrics["facts"]["answers"]:
        answers[answer["question"]] = answer
    assert answers["which concept"]["better"] is None
    is_above = text == "above chance"
    assert (answers["which picture"]["better"] < 0.025) == is_above
    assert (answers["which picture of its concept"]["better"] < 0.025) == is_above
