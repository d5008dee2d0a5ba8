"""What all tests share: golden values and real data, a home of their own, one thread a
process.
"""

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache, partialmethod
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from socketserver import BaseServer
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from PIL import Image

# until tests are collected: what modules leave behind when they are imported stays
gc.disable()
# before torch: threads of several processes fight on few cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
# no test reaches a hub beyond this machine
os.environ.setdefault("HF_HUB_OFFLINE", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = Path(os.environ.get("BRAINHIVE_GOLDEN") or SHARED / "golden").absolute()

LONG_FILES = {
    *(
        "test_guides",
        "test_published_workflows",
        "test_processes",
        "test_calibrate",
        "test_demo_havir",
    ),
    *(
        "test_demo",
        "test_files_as_published",
        "test_ancestry",
        "test_digits69",
        "test_demo_neurons",
    ),
    *(
        "test_push",
        "test_reconstruct_from_the_hub",
        "test_embed_faults",
        "test_wheel",
        "test_submission",
    ),
    *("test_lsl", "test_live_page", "test_live_lsl"),
}
"""Files whose tests take longest: begun first, so that no process waits at the end for
one of them.
"""

pytest_plugins = [
    "tests.tools.network_digests",
    "tests.tools.recorded_numbers",
    "tests.worlds.command_fixtures",
]
# the fuzz is run by itself: python -m tests.soak
collect_ignore = ["soak"]


@pytest.fixture(scope="session", autouse=True)
def no_power_cut() -> Iterator[None]:
    """Do not wait for the disk, thousands of times: no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def commands_are_built_once() -> Iterator[None]:
    """Build the command line once: runners of tests build it anew for each command."""
    from typer import testing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(testing, "_get_command", cache(testing._get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def servers_stop_at_once() -> Iterator[None]:
    """Let servers of tests look every 20 ms whether they shall stop, not every half
    second, and stop when they are closed.

    A server that is closed and not shut down keeps a core busy: one of them made the
    tests that followed in its process up to ten times as slow.
    """

    def stop_when_closed(server: Any) -> None:
        if server.fileno() < 0:
            raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            BaseServer, "serve_forever", partialmethod(BaseServer.serve_forever, 0.02)
        )
        patch.setattr(BaseServer, "service_actions", stop_when_closed)
        yield


@pytest.fixture(scope="session", autouse=True)
def busy_servers_are_asked_again_at_once() -> Iterator[None]:
    """Do not wait before a busy server is asked again."""
    from brainhive_cli.core import network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "RETRY_WAITS_S", (0.0, 0.0))
        yield


@pytest.fixture(scope="module", autouse=True)
def no_code_of_other_tests() -> Iterator[None]:
    """Forget which modules other test files named as parts: errors in these would be
    said to be a user's.
    """
    from brainhive_cli.core import foreign_code

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign_code, "_imported", {})
        yield


@pytest.fixture(scope="session", autouse=True)
def pictures_decoded_here() -> Iterator[None]:
    """Start no processes that decode pictures unless a test asks for them: these have
    few, small pictures.
    """
    from brainhive_cli.data.media import decoding

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "MAX_DECODERS", 0)
        yield


@pytest.fixture(scope="session", autouse=True)
def pictures_drawn_and_compared_once() -> Iterator[None]:
    """Draw a picture of the demo once, and compare two once: many tests use the same
    ones.
    """
    from brainhive_cli.data.media import near_copies
    from brainhive_cli.data.stores import learned
    from brainhive_cli.demo import pictures

    compare, likenesses, drawn = (
        near_copies.confirm_near_copy,
        dict[object, Any](),
        cache(pictures.draw_scene),
    )

    def compare_once(*pair: Any) -> Any:
        if not all(isinstance(picture, Image.Image) for picture in pair):
            return compare(*pair)
        key = tuple(
            (picture.mode, picture.size, hash(picture.tobytes())) for picture in pair
        )
        if key not in likenesses:
            likenesses[key] = compare(*pair)
        return likenesses[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pictures, "draw_scene", lambda *arguments: drawn(*arguments).copy()
        )
        for module in (near_copies, learned):
            patch.setattr(module, "confirm_near_copy", compare_once)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Know the variables that libraries set when a test imported them: commands are
    forked nevertheless.
    """
    # which remembers the variables of its import
    from tests.tools.warm_process import note_libraries

    yield
    note_libraries()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared folder at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden values, BRAINHIVE_GOLDEN; the test is skipped where there is
    none.
    """
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden values at {GOLDEN}")
    return GOLDEN


@pytest.fixture(scope="session")
def mini_raw(golden: Path) -> ModuleType:
    """The generator of raw recordings in their publishers' layouts."""
    spec = spec_from_file_location("mini_raw", golden / "prepare" / "mini_raw.py")
    assert spec and spec.loader
    # where its dataclasses look for themselves
    module = sys.modules["mini_raw"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden_eeg(golden: Path, mini_raw: ModuleType) -> "GoldenEeg":
    """How the raw recordings of the golden preparations are made again, as their files
    say.
    """
    import numpy as np

    with np.load(golden / "prepare/eeg_raw_probe.npz") as probe:
        info = json.loads(probe["info"].item())
    return GoldenEeg(
        mini_raw.Eeg(**info["arguments"]), info["seed"], info["repetition_seed"]
    )


class GoldenEeg(NamedTuple):
    """Sizes and seed of `mini_raw.make_eeg`, and the seed by which repetitions are
    drawn.
    """

    size: Any
    seed: int
    repetition_seed: int

    @property
    def knobs(self) -> dict[str, Any]:
        """How a preparation draws as many trials as the golden values have."""
        each = [self.size.train_repetitions, self.size.test_repetitions]
        sessions = [*range(1, self.size.sessions + 1)]
        return {"repetitions": each, "seed": self.repetition_seed, "sessions": sessions}


@pytest.fixture(scope="session")
def small_eeg(mini_raw: ModuleType) -> Any:
    """Recordings of a size that tests count on, whatever the golden ones have."""
    sizes = {
        "sessions": 4,
        "concepts": 2,
        "images_per_concept": 3,
        "test_images": 3,
        "targets": 1,
    }
    sizes |= {
        "train_repetitions": 2,
        "test_repetitions": 2,
        "train_extra": 1,
        "test_extra": 1,
        "parts": 2,
    }
    return mini_raw.Eeg(**sizes)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flags of the nightly run and of the messages of commands."""
    parser.addoption(
        "--nightly", action="store_true", help="run the tests marked nightly, too"
    )
    parser.addoption(
        "--rewrite-messages",
        action="store_true",
        help="write what commands print to tests/messages",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let several processes take files in the order of
    `pytest_collection_modifyitems`.
    """
    # of xdist, which leaves files of few, long tests for the end
    config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their markers
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out nightly tests, mark the tests that compare with golden values, and let
    long files come first.
    """
    if not config.getoption("--nightly"):
        nightly = [item for item in items if item.get_closest_marker("nightly")]
        config.hook.pytest_deselected(items=nightly)
        items[:] = [item for item in items if item not in nightly]
    for item in items:
        if "golden" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.golden)
    items.sort(key=lambda item: item.path.stem not in LONG_FILES)


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over all that was imported, and begin with what
    tests make.
    """
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let it pass over all that is left, too, which ends with the process."""
    gc.freeze()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for commands."""
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def code_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let code run that is not Brainhive's, whoever names it."""
    monkeypatch.setenv("BRAINHIVE_ALLOW_CODE", "1")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make an empty snapshot of a repository in a hub's cache of its own, in the real
    layout.
    """
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def snapshot(repository: str, kind: str = "model") -> Path:
        commit, folder = (
            "0123456789abcdef" * 2 + "01234567",
            f"{kind}s--{repository.replace('/', '--')}",
        )
        made = tmp_path / "hub" / folder / "snapshots" / commit
        made.mkdir(parents=True)
        (made.parents[1] / "refs").mkdir()
        (made.parents[1] / "refs/main").write_text(commit)
        return made

    return snapshot


@pytest.fixture
def hub(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty hub that takes uploads, of which this machine has fetched nothing
    yet.
    """
    from tests.tools.upload_hub import serving

    if not (shared / "data/mini_hub_server.py").is_file():
        pytest.skip("no hub that takes uploads")
    with serving(shared, tmp_path / "cache", monkeypatch) as hub:
        yield hub


@pytest.fixture
def image_networks_absent(
    tmp_path: Path, hub_cache: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Empty caches of torch and the hub; returns where torch keeps weight files."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture(scope="session")
def image_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the networks of the image metrics."""
    from tests.repositories.image_networks import write
    from tests.worlds.command_fixtures import make_once

    return make_once(tmp_path_factory, "made-image-networks", write)


@pytest.fixture
def image_networks(
    image_networks_absent: Path, image_weights: Path, hub_cache: Callable[[str], Path]
) -> Path:
    """The caches of torch and the hub with these weights."""
    from tests.repositories.image_networks import link

    return link(image_weights, image_networks_absent, hub_cache)


@pytest.fixture
def clip_networks(
    image_networks_absent: Path, hub_cache: Callable[[str], Path]
) -> None:
    """The hub's cache with small networks of the metrics of clips, under their real
    names.
    """
    from tests.repositories.image_networks import write_clip_networks

    write_clip_networks(hub_cache)
