"""The parts on the page about extending: taken out of it, written to files, and used by its own lines."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_docs import DOCS
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.runs import RunFolder

SMALL = {
    "train-align": ("seeds=1", "train.epochs=60", "train.lr=5e-3", "train.batch_size=96"),
    "reconstruct": ("items=4", "repeats=1"),
}


@pytest.fixture
def lines(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The page's lines, where its modules lie as their first lines say."""
    text = (DOCS / "extending.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        path = home / block.removeprefix('"""').partition(":")[0]
        path.parent.mkdir(exist_ok=True)
        path.write_text(block)
    monkeypatch.syspath_prepend(home)
    yield re.findall(r"^brainhive (.*)$", text.replace("\\\n", ""), re.MULTILINE)
    for name in [name for name in sys.modules if name.startswith("my_parts")]:
        del sys.modules[name]


def measured(home: Path, command: str) -> Measurements:
    (run,) = (home / "runs" / command).iterdir()
    return RunFolder(run).measurements()


def test_an_encoder_a_backbone_a_data_set_and_a_generator_of_ones_own_work_together(
    home: Path, lines: list[str]
) -> None:
    for line in lines:
        words = shlex.split(line)
        ended = CliRunner().invoke(app, [*words, *SMALL.get(words[0], ()), "run.workers=0"])
        assert ended.exit_code == 0, f"brainhive {line}\n{ended.stderr}"

    found = measured(home, "eval-retrieval")
    assert found.overall["top1"].low > 3 / 32 and "simulated" in found.caveats  # chance is 1 / 32
    drawn = measured(home, "reconstruct").scopes
    (brain, shuffled) = (drawn[source]["pixcorr"].value for source in ("brain", "shuffled"))
    assert brain > 0.5 > shuffled
