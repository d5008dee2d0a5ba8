"""Fixtures that run commands on small data."""

import contextlib
import fcntl
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

from brainhive_cli.cli.lines import resolve_line
from brainhive_cli.commands import train_prior
from brainhive_cli.core.files import foreign_code
from brainhive_cli.core.runs import Launch, Result
from brainhive_cli.data.media.views import PictureBatch
from brainhive_cli.models.encoders.python import example
from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.priors import fusion_prior
from brainhive_cli.training.prior.examples import PriorExamples, load_examples
from brainhive_cli.training.prior.loop import Training
from tests.publishers import things_files
from tests.tools.warm_process import WarmProcess, can_fork, stop_ignoring_signals

COLOURS = "python:brainhive_cli.models.encoders.python:example"
"""An encoder whose embeddings are 12 mean colours."""
TIMM = "{kind: timm, source: random, architecture: test_vit}"
"""A real network with random weights."""

RunCommand = Callable[..., Result]


@pytest.fixture(scope="session")
def run_command() -> RunCommand:
    """Return a function that runs a command with overrides in this process."""

    def run_in_process(command: str, *overrides: str, again: bool = False) -> Result:
        with foreign_code.allow_code(True):
            _, module, recipe = resolve_line(command, None, {}, overrides)
            result: Result = module.run(
                recipe, Launch(0, 1, torch.device("cpu")), again
            )
            return result

    return run_in_process


def make_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """Make a read-only folder once for all processes of a run of pytest."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # shared by the worker processes
    folder, marker = root / name, root / f"{name}.made"
    with (root / f"{name}.lock").open("w") as lock:
        # The lock is released when the file is closed.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists():
            # A killed process leaves an incomplete folder.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            marker.touch()
    return folder


@contextlib.contextmanager
def use_home(home: Path) -> Iterator[Path]:
    """Use a home and working directory for the commands of a test file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(home))
        patch.chdir(home)
        yield home


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 4 concepts with 3 small pictures each."""
    return paint_pictures(tmp_path / "pictures", concepts=4, pictures_per_concept=3)


def paint_pictures(
    root: Path, concepts: int, pictures_per_concept: int, seed: int = 0
) -> Path:
    """Fill a folder with pictures that show their concept's colour and noise."""
    random = np.random.default_rng(seed)
    for concept in range(concepts):
        colour = random.integers(40, 215, 3)
        (root / f"concept_{concept}").mkdir(parents=True)
        for number in range(pictures_per_concept):
            pixels = colour + random.integers(-40, 40, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(
                root / f"concept_{concept}" / f"{number}.png"
            )
    return root


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Diffusers folder of a tiny SDXL with an empty prompt but no text encoder."""
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
    """Fusion Prior of mean colours whose effect on pictures is visible."""
    folder = tmp_path_factory.mktemp("prior")
    torch.manual_seed(0)
    config = fusion_prior.Config(
        hidden_size=64, intermediate_size=64
    )  # as in ALIGN_OVERRIDES
    model = config.build(
        {"brainhive_cli-models-encoders-python-example": 12}, sdxl.TINY.build()
    )
    for weight in model.attn_adapter.parameters():
        weight.data.mul_(10)  # A new adapter hardly changes a tiny picture.
    model.save(folder)
    return folder


DEMO = "dataset={kind: demo, noise: 0.3, subjects: 2, concepts: 40}"
"""Two simulated subjects with so little noise that few epochs are enough."""
ALIGN_OVERRIDES = (
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
"""Overrides of train-align for a training of a second."""


@pytest.fixture(scope="session")
def align_overrides() -> tuple[str, ...]:
    """Overrides of train-align for a training of a second."""
    return ALIGN_OVERRIDES


@pytest.fixture(scope="session")
def world_template(
    tmp_path_factory: pytest.TempPathFactory, run_command: RunCommand
) -> Path:
    """Read-only home with embeddings of the demo and two trained aligners."""

    def make(home: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BRAINHIVE_HOME", str(home))
            run_command("embed", DEMO, f"encoders=[{COLOURS!r}]")
            run_command("train-align", *ALIGN_OVERRIDES)

    return make_once(tmp_path_factory, "made-world", make)


@pytest.fixture(scope="session")
def shared_world(
    world_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Copy of `world_template` for this process, to which tests add runs."""
    return Path(
        shutil.copytree(world_template, tmp_path_factory.mktemp("home") / "world")
    )


@pytest.fixture
def world(
    shared_world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Path]:
    """Home with stores and two trained aligners, shared by tests of this process.

    A test sets `paths.runs` if it must not see runs of other tests. It changes copies
    of stores only.
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
    """Override that gives this test its own folder of runs."""
    return f"paths.runs={tmp_path / 'runs'}"


@pytest.fixture
def trained_run(world: Path, run_command: RunCommand) -> Path:
    """Read-only align run of the world, with a cell for each of two subjects."""
    return run_command("train-align", *ALIGN_OVERRIDES).folder


@pytest.fixture
def evaluation_result(trained_run: Path, run_command: RunCommand) -> Result:
    """Result of the retrieval evaluation of `trained_run`."""
    return run_command("eval-retrieval", f"run={trained_run}", "sheet_rows=0")


@pytest.fixture(scope="session")
def shared_prior_align_run(
    shared_world: Path,
    tmp_path_factory: pytest.TempPathFactory,
    run_command: RunCommand,
    align_overrides: tuple[str, ...],
    prior: Path,
) -> Path:
    """Align run of the first subject with the targets of the prior."""
    runs = f"paths.runs={tmp_path_factory.mktemp('runs')}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(shared_world))
        return run_command(
            "train-align",
            *align_overrides,
            "subjects=1",
            "train.epochs=3",
            runs,
            f"prior={prior}",
        ).folder


@pytest.fixture
def prior_align_run(world: Path, runs: str, shared_prior_align_run: Path) -> Path:
    """Copy of `shared_prior_align_run` in this test's folder of runs."""
    folder = Path(runs.removeprefix("paths.runs=")) / "train-align"
    copy = shutil.copytree(shared_prior_align_run, folder / shared_prior_align_run.name)
    return Path(copy)


@pytest.fixture
def reconstruct_overrides(
    world: Path, runs: str, generator: Path, prior: Path
) -> tuple[str, ...]:
    """Overrides of reconstruct for three pictures, two repeats and 32 px."""
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
    """Read-only result of reconstruct, from all sources with two repeats."""
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
    """Return a function that runs the command line in its own process.

    Processes that still run at the end of the test are killed.
    """
    processes: list[Any] = []

    def run_in_own_process(
        *argv: str,
        wait: bool = True,
        launcher: tuple[str, ...] = (),
        cwd: Path | None = None,
    ) -> Any:
        command = list(launcher or (sys.executable, "-m", "brainhive_cli"))
        command.extend(argv)
        python_path = str(Path(__file__).parents[2])
        # An empty entry would stand for the working directory.
        if os.environ.get("PYTHONPATH"):
            python_path += os.pathsep + os.environ["PYTHONPATH"]
        environment = {**os.environ, "PYTHONPATH": python_path, "COLUMNS": "200"}
        if can_fork(environment) and not launcher:
            folder = tmp_path_factory.mktemp("output")
            cwd = cwd or Path.cwd()
            process: Any = WarmProcess(list(argv), environment, cwd, folder)
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
        processes.append(process)
        if not wait:
            return process
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    yield run_in_own_process
    for process in processes:
        if process.poll() is None:
            # Children may have their own process groups.
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def things_home(home: Path, request: pytest.FixtureRequest) -> Path:
    """Home with a subject in the layout of THINGS-EEG, whose EEG encodes mean colours.

    The parameter of the fixture is the number of test pictures.
    """
    root = home / "data" / "things-eeg"
    random = np.random.default_rng(0)
    mixing = random.standard_normal((12, 63 * 40)).astype(np.float32)
    module, preprocess = example()
    n_test = getattr(request, "param", 12)
    splits = (
        ("training_images", "train", 20, 4, 2),
        ("test_images", "test", n_test, 1, 3),
    )
    for seed, (folder, split, concepts, per_concept, repetitions) in enumerate(splits):
        paint_pictures(root / folder, concepts, per_concept, seed)
        files = sorted((root / folder).rglob("*.png"))
        pictures = torch.stack([preprocess(Image.open(file)) for file in files])
        evoked = ((module(pictures) - 0.5) @ mixing).reshape(len(files), 1, 63, 40)
        noise = torch.randn(
            len(files), repetitions, 63, 40, generator=torch.manual_seed(1)
        )
        eeg = evoked + 0.3 * noise
        names = [file.relative_to(root).as_posix() for file in files]
        content = things_files.eeg_content(eeg.numpy(), names)
        things_files.save_eeg(root, 1, split, content)
    return home


@pytest.fixture
def prior_overrides(
    home: Path, pictures: Path, generator: Path, run_command
) -> tuple[str, ...]:
    """Overrides of train-prior for six steps, on pictures with embeddings."""
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
    """Return a function that begins the training of a prior with overrides."""
    cpu_launch = Launch(0, 1, torch.device("cpu"))

    def begin(*overrides: str, launch: Launch = cpu_launch) -> Training:
        recipe = train_prior.Recipe.resolve("train-prior", None, {}, overrides)
        return Training.begin(recipe, PriorExamples.open(recipe, launch), launch)

    return begin


def load_first_batch(training: Training, size: int = 4) -> PictureBatch:
    """Load the first batch of a training of a prior, in this process."""
    return next(
        load_examples(training.pictures, range(1), size, 1, 0, 0, training.launch)
    )
