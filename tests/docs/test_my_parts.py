"""The examples of parts in docs/my_parts, some of which a page shows: used by the lines
of that page.
"""

import importlib
import re
import shlex
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli import api
from brainhive_cli.app import app
from brainhive_cli.cli.execute import describe_error
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.training.alignment import Aligner, Term
from brainhive_cli.training.alignment.model_files import read_history
from brainhive_cli.training.alignment.training.objective import Objective
from tests.docs.test_docs import DOCS
from tests.worlds.model_layouts import make_signal_spec, make_token_layout

PAGE = (DOCS / "python.md").read_text()
SMALL = {"train-align": ("seeds=1",), "reconstruct": ("items=4", "repeats=1")}
USED = (
    # keys of parts
    "dataset",
    "preparation",
    "backbone",
    "fuser",
    "loss",
    "generator",
    "prior",
    "signal.normalise",
    "train.augment.parts",
    "corrections",
    "metrics",
    "python:my_parts",  # an encoder
)


@pytest.fixture
def my_parts(home, monkeypatch):
    """The modules of the examples, in home."""
    shutil.copytree(DOCS / "my_parts", home / "my_parts")
    monkeypatch.syspath_prepend(home)
    yield home / "my_parts"
    for name in [name for name in sys.modules if name.startswith("my_parts")]:
        del sys.modules[name]


def test_the_page_shows_parts_as_their_files_are():
    files = {path.read_text(): path.name for path in (DOCS / "my_parts").glob("*.py")}
    blocks = re.findall(r"```python\n(\"{3}my_parts/.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    assert [files.get(block) for block in blocks] == [
        re.match(r'"{3}my_parts/(\w+\.py): ', block)[1] for block in blocks
    ]
    links = re.findall(r"\]\(my_parts/(\w+\.py)\)", PAGE)
    assert set(links) | set(map(files.get, blocks)) == set(files.values())


def write_arrays(home):
    """Write the files that the page's preparation reads: the recordings of the page's
    data set.
    """
    dataset = importlib.import_module("my_parts.shapes").TINY.build(api.Paths())
    folder = home / "data/shapes-arrays"
    folder.mkdir(parents=True)
    for subject in dataset.subjects:
        for split in dataset.splits:
            recording = dataset.recording(subject, split)
            signal = recording.as_repetitions()
            np.save(folder / f"sub-{subject:02d}_{split}.npy", signal)
            (folder / f"sub-{subject:02d}_{split}.txt").write_text(
                "\n".join(recording.pictures)
            )


def read_measurements(home, command):
    (run_folder,) = (home / "runs" / command).iterdir()
    return RunFolder(run_folder).measurements()


def brainhive(line, *arguments):
    words = shlex.split(line)
    ended = CliRunner().invoke(
        app,
        list(words)
        + list(SMALL.get(words[0], ()))
        + list(arguments)
        + ["run.workers=0"],
    )
    return ended.exit_code, " ".join(ended.stderr.split())


def test_a_part_of_ones_own_of_every_kind_works_with_the_others(home, my_parts):
    write_arrays(home)
    lines = re.findall(r"^brainhive (.*)$", PAGE.replace("\\\n", ""), re.MULTILINE)
    assert [
        key
        for key in USED
        if not re.search(rf"{key}(\.kind)?=\S*my_parts|{key}\.", " ".join(lines))
    ] == []
    for line in lines:
        code, output = brainhive(line)
        assert code == 0, f"brainhive {line}\n{output}"

    measurements = read_measurements(home, "eval-retrieval")
    top1 = measurements.overall["top1"]
    low, _ = top1.these_subjects or (0, 0)
    assert low > 10 * top1.chance
    assert "simulated" in measurements.caveats
    assert measurements.facts.answers[0].side == "above chance"
    assert (
        measurements.scopes["corrections · my_parts.popularity"]["top1"].value > 3 / 32
    )
    trained = list((home / "runs/train-align").glob("*/cells/*/model"))
    assert trained
    assert all(read_history(model).is_simulated for model in trained)
    scopes = read_measurements(home, "reconstruct").scopes
    (brain, shuffled) = (
        scopes[source]["pixcorr"].value for source in ("brain", "shuffled")
    )
    assert brain > 0.5 > shuffled
    assert 0.5 < scopes["brain"]["my_parts.warmth"].value <= 1


@pytest.mark.nightly
def test_the_page_states_the_result_without_the_preparation(home, my_parts):
    lines = re.findall(r"^brainhive (.*)$", PAGE.replace("\\\n", ""), re.MULTILINE)
    for line in lines[1:4]:
        line = line.replace("signal.name=arrays", "")
        code = (
            CliRunner()
            .invoke(app, list(shlex.split(line)) + ["run.workers=0"])
            .exit_code
        )
        assert code == 0, line

    measurements = read_measurements(home, "eval-retrieval")
    top1 = measurements.overall["top1"]
    statement = r"first of (\d+) in (\d+) % of cases .* chance (\d+) %\)"
    pool, percent, chance = map(int, re.search(statement, PAGE).groups())
    assert (pool, chance) == (top1.pool, round(100 * top1.chance))
    # another processor rounds the training differently
    assert 100 * top1.low < percent < 100 * top1.high
    # the order of the trials is known, so all questions are tested
    assert all(answer.p is not None for answer in measurements.facts.answers)


def use_brain_model():
    """A training step of the page's backbone, fuser and loss."""
    layout = make_token_layout(
        make_signal_spec(tuple("ABCDEFGH"), 20), 12, {"colours": 12}
    )
    choices = {"backbone": {"kind": "my_parts.net"}, "fuser": {"kind": "my_parts.mean"}}
    parts.resolve("fusers", "my_parts.mean").token_dim({"colours": 12}, 1024)
    aligner = Aligner(replace(layout, **choices))
    objective = Objective([Term(prediction="token", loss="my_parts.huber")])
    predicted = aligner.predict(torch.randn(3, 8, 20), torch.zeros(3, dtype=torch.long))
    objective(
        predicted,
        aligner.compute_targets({"colours": torch.rand(3, 12)}),
        api.LossContext(),
    )


FLAT = "torch.nn.Flatten(1)"
"""A network of torch, which takes the signal alone."""


def test_a_part_with_a_wrong_network_is_named_with_the_call(my_parts, code_allowed):
    """Nothing of the user's code runs then, nor is there an object of theirs."""
    text = (my_parts / "net.py").read_text()
    returned = re.findall(r"return (Net\(.*\))", text)[-1]
    (my_parts / "net.py").write_text("import torch\n" + text.replace(returned, FLAT))

    with pytest.raises(Exception) as caught:
        use_brain_model()

    described = describe_error(caught.value)
    assert "my_parts.net" in described.message
    assert "TypeError" in described.message
    assert "module(signal, subject)" in described.hint
    assert "brainhive_cli.models.backbones" in described.hint
    assert "a bug" not in described.hint


MISTAKES = (
    (
        "net",
        ", dim: int, subjects: int = 1) ->",
        ") ->",
        "class Config",
        "TypeError: Config.build() takes",
    ),
    (
        "net",
        "def forward(",
        "def encode(",
        "class Net",
        'missing the required "forward"',
    ),
    (
        "net",
        "nn.Linear(hidden, dim)",
        "nn.Linear(hidden, dim + 1)",
        "class Net",
        "gives [3, 13]",
    ),
    (
        "net",
        "signal.flatten(1)",
        "signal.flatten()",
        "signal.flatten()",
        "RuntimeError",
    ),
    ("huber", "=self.delta)", "=self.delta).item()", "class Huber", "gives float"),
    ("mean", ".mean(0)", ".mean(0)[:, 1:]", "class Mean", "gives token [11]"),
)


@pytest.mark.parametrize(
    ("partial_text", "correct_text", "wrong_text", "location", "reported_text"),
    MISTAKES,
)
def test_a_mistake_in_a_users_part_is_named_with_its_line(
    my_parts,
    code_allowed,
    partial_text,
    correct_text,
    wrong_text,
    location,
    reported_text,
):
    text = (my_parts / f"{partial_text}.py").read_text()
    mistaken = text.replace(correct_text, wrong_text)
    (my_parts / f"{partial_text}.py").write_text(mistaken)

    with pytest.raises(Exception) as caught:
        use_brain_model()

    described = describe_error(caught.value)
    assert isinstance(described, BrainhiveError)
    assert "a bug" not in described.hint
    assert described.hint
    assert (
        f"my_parts.{partial_text}" in described.message
        and reported_text in described.message
    ), described.in_one_line
    lines = [
        number
        for number, line in enumerate(mistaken.splitlines(), 1)
        if location and location in line
    ]
    assert not location or f"line {lines[0]}" in described.message, (
        described.in_one_line
    )
