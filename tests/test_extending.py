"""The parts on the page about extending: taken out of it, written to files, and used by its own lines."""

import importlib
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_architecture
import torch
from layouts import one_token, spec_of
from test_docs import DOCS
from typer.testing import CliRunner

from brainhive_cli import api
from brainhive_cli.app import app
from brainhive_cli.cli.execute import describe_error
from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.evaluation.reconstruction.generation import Sampler
from brainhive_cli.evaluation.reconstruction.recipe import Output
from brainhive_cli.models import backbones, priors
from brainhive_cli.training.alignment.model import Aligner, learned_in
from brainhive_cli.training.alignment.objective import Objective, Term

PAGE = (DOCS / "extending.md").read_text()
SMALL = {
    "train-align": ("seeds=1", "train.epochs=60", "train.lr=5e-3", "train.batch_size=96"),
    "reconstruct": ("items=4", "repeats=1"),
}
USED = (
    *("dataset", "preparation", "backbone", "fuser", "loss", "generator", "prior"),  # keys of parts
    *("signal.normalise", "train.augment.parts", "corrections", "metrics"),
    "python:my_parts",  # an encoder
)


@pytest.fixture
def my_parts(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's modules, where their first lines say."""
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        path = home / block.removeprefix('"""').partition(":")[0]
        path.parent.mkdir(exist_ok=True)
        path.write_text(block)
    monkeypatch.syspath_prepend(home)
    yield home / "my_parts"
    for name in [name for name in sys.modules if name.startswith("my_parts")]:
        del sys.modules[name]


def write_arrays(home: Path) -> None:
    """Write the files that the page's preparation reads: the recordings of the page's data set."""
    dataset = importlib.import_module("my_parts.shapes").TINY.build(api.Paths())
    folder = home / "data/shapes-arrays"
    folder.mkdir(parents=True)
    for subject in dataset.subjects:
        for split in dataset.splits:
            recording = dataset.recording(subject, split)
            np.save(folder / f"sub-{subject:02d}_{split}.npy", recording.signal)
            (folder / f"sub-{subject:02d}_{split}.txt").write_text("\n".join(recording.image_ids))


def measured(home: Path, command: str) -> Measurements:
    (run,) = (home / "runs" / command).iterdir()
    return RunFolder(run).measurements()


def brainhive(line: str, *more: str) -> tuple[int, str]:
    words = shlex.split(line)
    ended = CliRunner().invoke(app, [*words, *SMALL.get(words[0], ()), *more, "run.workers=0"])
    return ended.exit_code, " ".join(ended.stderr.split())


def test_a_part_of_ones_own_of_every_kind_works_with_the_others(home: Path, my_parts: Path) -> None:
    write_arrays(home)
    lines = re.findall(r"^brainhive (.*)$", PAGE.replace("\\\n", ""), re.MULTILINE)
    assert [
        key for key in USED if not re.search(rf"{key}(\.kind)?=\S*my_parts|{key}\.", " ".join(lines))
    ] == []
    for line in lines:
        code, shown = brainhive(line)
        assert code == 0, f"brainhive {line}\n{shown}"

    found = measured(home, "eval-retrieval")
    low, _ = found.overall["top1"].these_subjects or (0, 0)
    assert low > 3 / 32 and "simulated" in found.caveats  # chance is 1 / 32
    assert found.scopes["corrections · my_parts.popularity"]["top1"].value > 3 / 32
    trained = [*(home / "runs/train-align").glob("*/cells/*/model")]
    assert trained and all(learned_in(model).is_simulated for model in trained)
    drawn = measured(home, "reconstruct").scopes
    (brain, shuffled) = (drawn[source]["pixcorr"].value for source in ("brain", "shuffled"))
    assert brain > 0.5 > shuffled
    assert 0.5 < drawn["brain"]["my_parts.warmth"].value <= 1


def test_the_backbone_of_the_page_passes_the_tests_of_its_shelf_when_it_is_put_there(
    my_parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, name = tmp_path / "shelf", "brainhive_cli.models.backbones.net"
    folder.mkdir()
    (my_parts / "net.py").rename(folder / "net.py")
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(folder)])
    monkeypatch.setattr(backbones.__spec__, "submodule_search_locations", backbones.__path__)
    monkeypatch.setitem(test_architecture.MODULES, name, folder / "net.py")
    assert "net" in parts.kinds("backbones")
    try:
        test_architecture.test_imports_point_down()
        test_architecture.test_a_module_opens_by_saying_what_it_is_for()
        test_architecture.test_the_parts_of_a_shelf_export_their_config_and_a_tiny_instance("backbones")
        shelf = runpy.run_path(str(Path(__file__).parent / "models/backbones/test_backbones.py"))
        shelf["test_sizes_follow_from_the_signal_whose_token_is_its_own"]("net")
        shelf["test_gradients_reach_every_parameter_and_dropout_is_for_training_only"]("net")
    finally:
        sys.modules.pop(name, None)
        vars(backbones).pop("net", None)


def use_brain_model() -> None:
    """One training step of the page's backbone, fuser and loss."""
    layout = one_token(spec_of(tuple("ABCDEFGH"), 20), 12, {"colours": 12})
    chosen = {"backbone": {"kind": "my_parts.net"}, "fuser": {"kind": "my_parts.mean"}}
    parts.resolve("fusers", "my_parts.mean").token_dim({"colours": 12}, 1024)
    aligner = Aligner(replace(layout, **chosen))
    objective = Objective([Term(prediction="token", loss="my_parts.huber")])
    predicted = aligner.predict(torch.randn(3, 8, 20), torch.zeros(3, dtype=torch.long))
    objective(predicted, aligner.targets({"colours": torch.rand(3, 12)}), api.LossContext())


def use_prior_and_generator() -> None:
    """Draw three pictures of decoded colours."""
    painter = parts.resolve("generators", "my_parts.painter")
    prior = priors.load("my_parts.vivid:1.5")
    sampler = Sampler(painter.build, prior, Output(resolution_px=16), api.Sampling(), torch.device("cpu"))
    sampler.sample(api.Decoded({"token": torch.rand(3, 12)}), [0, 1, 2])


def use_data() -> None:
    """Write a recording, embed the pictures and match them."""
    write_arrays(Path())
    for command, *keys in (
        ("prepare", "preparation.kind=my_parts.arrays", "name=arrays"),
        ("embed", "dataset.kind=my_parts.shapes", "encoders=python:my_parts.colours:encoder"),
        ("train-align", "dataset.kind=my_parts.shapes", "encoders=python:my_parts.colours:encoder"),
    ):
        pipeline = importlib.import_module(f"brainhive_cli.commands.{command.replace('-', '_')}")
        small = ["train.epochs=1", "seeds=1"] if command == "train-align" else []
        recipe = pipeline.Recipe.resolve(command, None, {}, [*keys, *small, "run.workers=0"])
        pipeline.run(recipe, Launch(0, 1, torch.device("cpu")))


MISTAKES: dict[Callable[[], None], list[tuple[str, str, str, str, str]]] = {
    use_brain_model: [
        ("net", ", dim: int, subjects: int = 1) ->", ") ->", "def build", "TypeError: Config.build() takes"),
        ("net", "def forward(", "def encode(", "class Net", 'missing the required "forward"'),
        ("net", "nn.Linear(hidden, dim)", "nn.Linear(hidden, dim + 1)", "class Net", "gives [3, 13]"),
        (
            "net",
            ", subject_index: Tensor | None = None)",
            ")",
            "def forward",
            "TypeError: Net.forward() takes",
        ),
        ("net", "signal.flatten(1)", "signal.flatten()", "signal.flatten()", "RuntimeError"),
        ("net", "return self.layers", "self.layers", "class Net", "gives NoneType"),
        ("net", "return Net(", "return str; return (", "class Config", "build returns type"),
        ("huber", "=self.delta)", "=self.delta, reduction='none').mean(1)", "class Huber", "gives [3]"),
        ("huber", "=self.delta)", "=self.delta).item()", "class Huber", "gives float"),
        ("huber", ", context: api.LossContext)", ")", "def forward", "TypeError: Huber.forward() takes"),
        ("mean", ".mean(0)", ".mean(0)[:, 1:]", "class Mean", "gives token [11]"),
        ("mean", "def token_dim(", "def dim_of_token(", "class Config", "no attribute 'token_dim'"),
    ],
    use_prior_and_generator: [
        ("vivid", "def load(", "def open(", "", "no attribute 'load'"),
        (
            "vivid",
            "return api.Conditioning(embeddings=colours",
            "return (colours",
            "class Vivid",
            "gives Tensor",
        ),
        ("vivid", 'tensors["token"]', 'tensors["image"]', 'tensors["image"]', "KeyError"),
        ("painter", "size=(size_px, size_px))", "size=size_px)[:2]", "class Painter", "gives [2, 3, 16, 16]"),
        ("painter", "sampling: api.Sampling,", "", "def generate", "TypeError: Painter.generate() got"),
    ],
    use_data: [
        ("arrays", "(self, subject: int, split: str)", "(self, subject: int)", "def recording", "TypeError"),
        ("arrays", "signal.shape[3]", "signal.shape[4]", "signal.shape[4]", "IndexError"),
        ("colours", "nn.Flatten()", "nn.Flatten(0)", "", "gives [12] for 1 pictures"),
        ("colours", "v2.Compose(steps)", "lambda picture: picture", "", "gives Image, not a tensor"),
        ("shapes", "alike_by=", "alike=", "api.Dataset(", "unexpected keyword argument 'alike'"),
        ("shapes", "divmod(index, len(CORNERS))", "divmod(index, ())", "divmod(index, ())", "TypeError"),
    ],
}


@pytest.mark.parametrize(
    ("use", "part", "right", "wrong", "place", "told"),
    [
        pytest.param(use, *mistake, id=f"{mistake[0]}-{mistake[2]}")
        for use, mistakes in MISTAKES.items()
        for mistake in mistakes
    ],
)
def test_a_mistake_in_a_part_of_ones_own_is_named_with_the_part_and_its_line(
    my_parts: Path,
    code_allowed: None,
    use: Callable[[], None],
    part: str,
    right: str,
    wrong: str,
    place: str,
    told: str,
) -> None:
    text = (my_parts / f"{part}.py").read_text()
    mistaken = text.replace(right, wrong)
    (my_parts / f"{part}.py").write_text(mistaken)

    with pytest.raises(Exception) as caught:
        use()

    described = describe_error(caught.value)
    assert isinstance(described, BrainhiveError) and "a bug" not in described.hint and described.hint
    assert f"my_parts.{part}" in described.message and told in described.message, described.in_one_line
    lines = [number for number, line in enumerate(mistaken.splitlines(), 1) if place and place in line]
    assert not place or f"line {lines[0]}" in described.message, described.in_one_line


@pytest.mark.parametrize("use", MISTAKES)
def test_the_same_without_a_mistake_works(
    my_parts: Path, code_allowed: None, use: Callable[[], None]
) -> None:
    use()
