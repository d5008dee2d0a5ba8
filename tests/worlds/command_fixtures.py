"""Fixtures that run commands: folders of pictures, the demo's signals, a tiny generator
and its prior.
"""

import contextlib
import fcntl
import importlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from brainhive_cli.commands import train_prior
from brainhive_cli.core import foreign_code
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.media.views import PictureBatch
from brainhive_cli.models.encoders.python import example
from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.priors import fusion_prior
from brainhive_cli.training.prior.examples import PriorExamples, load_examples
from brainhive_cli.training.prior.loop import Training
from tests.publishers import things_files
from tests.tools.warm_process import WarmProcess, is_fit, stop_ignoring_signals

COLOURS = "python:brainhive_cli.models.encoders.python:example"
"""An encoder of 12 dimensions: mean colours."""
TIMM = "{kind: timm, source: random, architecture: test_vit}"
"""A real network with random weights."""

RunCommand = Callable[..., Result]


@pytest.fixture(scope="session")
def run_command() -> RunCommand:
    """Run a command's pipeline in this process, its overrides as typed: recipe,
    overrides, result.
    """

    def run(command: str, *overrides: str, again: bool = False) -> Result:
        pipeline: Any = importlib.import_module(
            f"brainhive_cli.commands.{command.replace('-', '_')}"
        )
        with foreign_code.allow_code(True):
            what = pipeline.Recipe.resolve(command, None, {}, overrides)
            return pipeline.run(what, Launch(0, 1, torch.device("cpu")), again)

    return run


def make_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """Make a folder once for all processes of a run of pytest; it is not to be
    changed.
    """
    root = factory.getbasetemp()
    # each process of several has a folder of its own in that of the run
    made = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    with made.with_suffix(".lock").open("w") as lock:
        # until it is closed
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.with_suffix(".made").exists():
            # what a killed process left
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            make(made)
            made.with_suffix(".made").touch()
    return made


@contextlib.contextmanager
def at_home(home: Path) -> Iterator[Path]:
    """Let the commands of a whole test file use a home, which is the working directory,
    too.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(home))
        patch.chdir(home)
        yield home


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 4 concepts with 3 small pictures each."""
    return paint(tmp_path / "pictures", concepts=4, each=3)


def paint(root: Path, concepts: int, each: int, seed: int = 0) -> Path:
    """Fill a folder with pictures of a colour a concept, and noise; other seeds give
    other pictures.
    """
    random = np.random.default_rng(seed)
    for concept in range(concepts):
        colour = random.integers(40, 215, 3)
        (root / f"concept_{concept}").mkdir(parents=True)
        for number in range(each):
            pixels = colour + random.integers(-40, 40, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(
                root / f"concept_{concept}" / f"{number}.png"
            )
    return root


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of an SDXL-type model at tiny size, with its empty prompt and
    no text encoder.
    """
    folder = tmp_path_factory.mktemp("generator")
    model = sdxl.TINY.build()
    for name in ("unet", "vae", "scheduler"):
        getattr(model.pipeline, name).save_pretrained(folder / name)
    text, pooled = model.embed_empty_prompt(1)
    embeds = {
        "prompt_embeds": text.contiguous(),
        "pooled_prompt_embeds": pooled.contiguous(),
    }
    save_file(embeds, folder / "empty_prompt.safetensors")
    return folder


@pytest.fixture(scope="session")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Fusion Prior for that generator that fuses mean colours alone; strong enough to
    be seen.
    """
    folder = tmp_path_factory.mktemp("prior")
    torch.manual_seed(0)
    sizes = fusion_prior.Config(hidden_size=64, intermediate_size=64)  # those of SMALL
    made = sizes.build(
        {"brainhive_cli-models-encoders-python-example": 12}, sdxl.TINY.build()
    )
    for weight in made.attn_adapter.parameters():
        weight.data.mul_(10)  # a new adapter is too faint to see in a tiny picture
    made.save(folder)
    return folder


DEMO = "dataset={kind: demo, noise: 0.3, subjects: 2, concepts: 40}"
"""Two simulated subjects with little noise, so that a few small epochs are enough."""
SMALL = (
    DEMO,
    f"encoders=[{COLOURS!r}]",
    "dim=64",
    "fuser.intermediate_size=64",
    "seeds=1",
    "signal.scale=0.2",
    "train.precision=fp32",
    "train.validation=0.25",
    "train.epochs=20",
    "train.batch_size=64",
    "train.lr=2e-3",
)
"""Overrides of train-align that learn in a second."""


@pytest.fixture(scope="session")
def align_overrides() -> tuple[str, ...]:
    """Overrides of train-align for the world."""
    return SMALL


@pytest.fixture(scope="session")
def world_template(
    tmp_path_factory: pytest.TempPathFactory, run_command: RunCommand
) -> Path:
    """A home where the demo's pictures are embedded and two brain encoders trained.

    No test writes to it.
    """

    def make(home: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BRAINHIVE_HOME", str(home))
            run_command("embed", DEMO, f"encoders=[{COLOURS!r}]")
            run_command("train-align", *SMALL)

    return make_once(tmp_path_factory, "made-world", make)


@pytest.fixture(scope="session")
def shared_world(
    world_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A copy of that home for this process, to which tests add runs."""
    return Path(
        shutil.copytree(world_template, tmp_path_factory.mktemp("home") / "world")
    )


@pytest.fixture
def world(
    shared_world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Path]:
    """That home, for a command of this test; give `paths.runs` where runs of other
    tests must not be seen.

    Its stores are other tests' too: whoever changes one changes a copy.
    """
    monkeypatch.setenv("BRAINHIVE_HOME", str(shared_world))
    monkeypatch.chdir(tmp_path)
    stores = {
        path: path.stat().st_mtime_ns
        for path in shared_world.glob("[es]*/demo-noise-0.3-40-concepts/*/*.h5")
    }
    yield shared_world
    changed = [
        path for path, time_ns in stores.items() if path.stat().st_mtime_ns != time_ns
    ]
    assert not changed, f"{changed[0]} was written to: change a copy"


@pytest.fixture
def runs(tmp_path: Path) -> str:
    """An override that gives this test runs of its own."""
    return f"paths.runs={tmp_path / 'runs'}"


@pytest.fixture
def trained_run(world: Path, run_command: RunCommand) -> Path:
    """The finished align run of the world, with a cell for each of two subjects; not to
    be changed.
    """
    return run_command("train-align", *SMALL).folder


@pytest.fixture
def evaluation_result(trained_run: Path, run_command: RunCommand) -> Result:
    """Its evaluation, which the first test that needs it makes."""
    return run_command("eval-retrieval", f"run={trained_run}", "sheet_rows=0")


@pytest.fixture(scope="session")
def shared_prior_align_run(
    shared_world: Path,
    tmp_path_factory: pytest.TempPathFactory,
    run_command: RunCommand,
    align_overrides: tuple[str, ...],
    prior: Path,
) -> Path:
    """An align run against the prior, of the first subject."""
    own = f"paths.runs={tmp_path_factory.mktemp('runs')}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(shared_world))
        return run_command(
            "train-align",
            *align_overrides,
            "subjects=1",
            "train.epochs=3",
            own,
            f"prior={prior}",
        ).folder


@pytest.fixture
def prior_align_run(world: Path, runs: str, shared_prior_align_run: Path) -> Path:
    """That run among the runs of this test."""
    own = (
        Path(runs.removeprefix("paths.runs="))
        / "train-align"
        / shared_prior_align_run.name
    )
    return Path(shutil.copytree(shared_prior_align_run, own))


@pytest.fixture
def reconstruct_overrides(
    world: Path, runs: str, generator: Path, prior: Path
) -> tuple[str, ...]:
    """Overrides of reconstruct that draw three pictures twice, at 32 px, from the
    brain.
    """
    return (
        runs,
        f"prior={prior}",
        f"generator={{kind: sdxl, source: {generator}}}",
        "sources=brain",
        "items=3",
        "repeats=2",
        "resolution_px=32",
        "steps=2",
        "metrics=pixcorr,ssim",
        "sheet_rows=0",
    )


@pytest.fixture
def reconstruct_result(
    world: Path,
    shared_prior_align_run: Path,
    generator: Path,
    prior: Path,
    run_command: RunCommand,
) -> Result:
    """Three pictures twice from every source, which the first test that needs it makes;
    not to be changed.
    """
    return run_command(
        "reconstruct",
        f"prior={prior}",
        f"align_run={shared_prior_align_run}",
        f"generator={{kind: sdxl, source: {generator}}}",
        "sources=brain,images,shuffled,zeroed,nearest,mean",
        "items=3",
        "repeats=2",
        "resolution_px=32",
        "steps=2",
        "metrics=pixcorr,ssim",
        f"metric_encoders=[{COLOURS!r}]",
        "sheet_rows=2",
    )


@pytest.fixture
def brainhive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Run the command line in a process of its own; whatever still runs at the end is
    killed.
    """
    started: list[Any] = []

    def run(
        *argv: str,
        wait: bool = True,
        launcher: tuple[str, ...] = (),
        cwd: Path | None = None,
    ) -> Any:
        command = [*(launcher or (sys.executable, "-m", "brainhive_cli")), *argv]
        # an empty entry would be the working directory
        known = os.environ.get("PYTHONPATH")
        path = os.pathsep.join(
            [str(Path(__file__).parents[2]), *([known] if known else [])]
        )
        environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
        if is_fit(environment) and not launcher:
            folder = tmp_path_factory.mktemp("output")
            process: Any = WarmProcess([*argv], environment, cwd or Path.cwd(), folder)
        else:
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                command,
                stdout=pipe,
                stderr=pipe,
                text=True,
                env=environment,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=stop_ignoring_signals,
            )
        started.append(process)
        if not wait:
            return process
        out, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(command, process.returncode, out, errors)

    yield run
    for process in started:
        if process.poll() is None:
            # each in a group of its own
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def things_home(home: Path, request: pytest.FixtureRequest) -> Path:
    """A home with a small data set in the layout of THINGS-EEG: one subject who sees
    mean colours.

    Its parameter is how many test pictures there are.
    """
    root = home / "data" / "things-eeg"
    random = np.random.default_rng(0)
    mixing = random.standard_normal((12, 63 * 40)).astype(np.float32)
    module, preprocess = example()
    for seed, (folder, split, concepts, each, repetitions) in enumerate(
        (
            ("training_images", "train", 20, 4, 2),
            ("test_images", "test", getattr(request, "param", 12), 1, 3),
        )
    ):
        files = sorted(paint(root / folder, concepts, each, seed).rglob("*.png"))
        seen = torch.stack([preprocess(Image.open(file)) for file in files])
        evoked = ((module(seen) - 0.5) @ mixing).reshape(len(files), 1, 63, 40)
        eeg = evoked + 0.3 * torch.randn(
            len(files), repetitions, 63, 40, generator=torch.manual_seed(1)
        )
        content = things_files.eeg_content(
            eeg.numpy(), [file.relative_to(root).as_posix() for file in files]
        )
        things_files.save_eeg(root, 1, split, content)
    return home


@pytest.fixture
def prior_overrides(
    home: Path, pictures: Path, generator: Path, run_command
) -> tuple[str, ...]:
    """Overrides of a training of six small steps, on pictures that are embedded."""
    dataset = f"dataset={{kind: image-folder, root: {pictures}}}"
    colours = f"encoders=[{COLOURS!r}]"
    run_command("embed", dataset, colours)
    return (
        dataset,
        colours,
        f"generator={{kind: sdxl, source: {generator}}}",
        "prior={kind: fusion_prior, hidden_size: 32, intermediate_size: 64}",
        "resolution_px=32",
        "validation_items=2",
        "sample_items=2",
        "sample_steps=1",
        f"similarity=[{COLOURS!r}]",
        "lpips=false",
        "train.steps=6",
        "train.batch_size=4",
        "train.precision=fp32",
        "train.lr=1e-3",
        "run.workers=0",
    )


@pytest.fixture
def begin_training() -> Callable[..., Training]:
    """Begin the training of a prior: overrides, then perhaps a launch."""

    here = Launch(0, 1, torch.device("cpu"))

    def begin(*settings: str, launch: Launch = here) -> Training:
        recipe = train_prior.Recipe.resolve("train-prior", None, {}, settings)
        return Training.begin(recipe, PriorExamples.open(recipe, launch), launch)

    return begin


def first_batch(training: Training, size: int = 4) -> PictureBatch:
    """The first batch of a training of a prior, in this process."""
    return next(
        load_examples(training.pictures, range(1), size, 1, 0, 0, training.launch)
    )
