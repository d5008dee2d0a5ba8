"""Fixtures and settings of all tests."""

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

from tools.shared_folders import GOLDEN, SHARED

# Objects of imported modules live on, so that collection is off until tests start.
gc.disable()
# Threads of several processes compete for few cores. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test uses the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

LONG_FILES = {
    "test_guides",
    "test_published_workflows",
    "test_processes",
    "test_calibrate",
    "test_demo_havir",
    "test_demo",
    "test_files_as_published",
    "test_ancestry",
    "test_digits69",
    "test_demo_neurons",
    "test_push",
    "test_reconstruct_from_the_hub",
    "test_embed_faults",
    "test_wheel",
    "test_submission",
    "test_lsl",
    "test_live_page",
    "test_live_lsl",
    "test_pin",
}
"""Longest test files, which start first so that all processes end at about one time."""

pytest_plugins = [
    "tests.tools.network_digests",
    "tests.tools.recorded_numbers",
    "tests.worlds.command_fixtures",
]
# The fuzz tests run by `python -m tests.soak`.
collect_ignore = ["soak"]


@pytest.fixture(scope="session", autouse=True)
def skip_disk_sync() -> Iterator[None]:
    """Do not wait until files are on the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def write_no_first_sign() -> None:
    """Keep the first line of a slow command, which depends on time, out of messages."""
    from brainhive_cli.core.base import console

    console.has_written.set()


@pytest.fixture(scope="session", autouse=True)
def build_command_line_once() -> Iterator[None]:
    """Build the command line once, not in each call of a test runner."""
    from typer import testing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(testing, "_get_command", cache(testing._get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def stop_servers_quickly() -> Iterator[None]:
    """Stop servers within 20 ms of a request, and when they are closed.

    A server that is closed but not shut down keeps a core busy. It made later tests
    of its process up to ten times as slow.
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
def retry_without_waits() -> Iterator[None]:
    """Send requests to a busy server again without a wait."""
    from brainhive_cli.core.files import network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "RETRY_WAITS_S", (0.0, 0.0))
        yield


@pytest.fixture(scope="module", autouse=True)
def forget_foreign_code() -> Iterator[None]:
    """Forget modules that other test files imported as users' parts.

    Errors in them would be reported as a user's.
    """
    from brainhive_cli.core.files import foreign_code

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign_code, "_imported", {})
        yield


@pytest.fixture(scope="session", autouse=True)
def decode_pictures_in_process() -> Iterator[None]:
    """Decode the few small pictures of tests without further processes."""
    from brainhive_cli.data.media import decoding

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "MAX_DECODERS", 0)
        yield


@pytest.fixture(scope="session", autouse=True)
def cache_demo_pictures() -> Iterator[None]:
    """Cache the demo's pictures and comparisons of pictures."""
    from brainhive_cli.data.media import near_copies
    from brainhive_cli.data.stores import learned_pictures
    from brainhive_cli.demo import pictures

    draw_scene = cache(pictures.draw_scene)
    compare = near_copies.confirm_near_copy
    results = dict[object, Any]()

    def compare_once(*pair: Any) -> Any:
        if not all(isinstance(picture, Image.Image) for picture in pair):
            return compare(*pair)
        key = tuple(
            (picture.mode, picture.size, hash(picture.tobytes())) for picture in pair
        )
        if key not in results:
            results[key] = compare(*pair)
        return results[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pictures, "draw_scene", lambda *arguments: draw_scene(*arguments).copy()
        )
        for module in (near_copies, learned_pictures):
            patch.setattr(module, "confirm_near_copy", compare_once)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Note environment variables that libraries set while a test imported them.

    Commands are still forked if only these variables differ.
    """
    # Its import notes the environment.
    from tests.tools.warm_process import note_libraries

    yield
    note_libraries()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data. Tests are skipped if it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared folder at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of golden values. Tests are skipped if it is absent."""
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden values at {GOLDEN}")
    return GOLDEN


@pytest.fixture(scope="session")
def mini_raw(golden: Path) -> ModuleType:
    """Module that generates raw recordings in their publishers' layouts."""
    spec = spec_from_file_location("mini_raw", golden / "prepare" / "mini_raw.py")
    assert spec
    assert spec.loader
    # Its dataclasses look up their module by name.
    module = sys.modules["mini_raw"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden_eeg(golden: Path, mini_raw: ModuleType) -> "GoldenEeg":
    """Sizes and seeds of the raw recordings behind the golden preparations."""
    import numpy as np

    with np.load(golden / "prepare/eeg_raw_probe.npz") as probe:
        info = json.loads(probe["info"].item())
    return GoldenEeg(
        mini_raw.Eeg(**info["arguments"]), info["seed"], info["repetition_seed"]
    )


class GoldenEeg(NamedTuple):
    """Arguments of `mini_raw.make_eeg`, and the seed that draws repetitions."""

    size: Any
    seed: int
    repetition_seed: int

    @property
    def preparation_keys(self) -> dict[str, Any]:
        """Keys of a preparation that draws the trials of the golden values."""
        return {
            "repetitions": [self.size.train_repetitions, self.size.test_repetitions],
            "seed": self.repetition_seed,
            "sessions": list(range(1, self.size.sessions + 1)),
        }


@pytest.fixture(scope="session")
def small_eeg(mini_raw: ModuleType) -> Any:
    """Sizes of raw recordings, independent of the golden values."""
    return mini_raw.Eeg(
        sessions=4,
        concepts=2,
        images_per_concept=3,
        test_images=3,
        targets=1,
        train_repetitions=2,
        test_repetitions=2,
        train_extra=1,
        test_extra=1,
        parts=2,
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flags `--nightly` and `--rewrite`."""
    parser.addoption(
        "--nightly", action="store_true", help="run the tests marked nightly, too"
    )
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write the recorded numbers and messages of the tests that run",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order of files from `pytest_collection_modifyitems` in xdist.

    Else xdist leaves files with few tests to the end.
    """
    config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their markers
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Deselect nightly tests, mark golden tests, and put long files first."""
    if not config.getoption("--nightly"):
        nightly = [item for item in items if item.get_closest_marker("nightly")]
        config.hook.pytest_deselected(items=nightly)
        items[:] = [item for item in items if item not in nightly]
    for item in items:
        if "golden" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.golden)
    items.sort(key=lambda item: item.path.stem not in LONG_FILES)


def pytest_collection_finish() -> None:
    """Exclude imported objects from garbage collection, and turn it on."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Exclude the remaining objects, which end with the process."""
    gc.freeze()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty home for commands."""
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def code_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow commands to run foreign code."""
    monkeypatch.setenv("BRAINHIVE_ALLOW_CODE", "1")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes an empty snapshot of a repository.

    The cache of the hub belongs to this test and has the real layout.
    """
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def snapshot(repository: str, kind: str = "model") -> Path:
        commit = "0123456789abcdef" * 2 + "01234567"
        cache = tmp_path / "hub" / f"{kind}s--{repository.replace('/', '--')}"
        folder = cache / "snapshots" / commit
        folder.mkdir(parents=True)
        (cache / "refs").mkdir()
        (cache / "refs/main").write_text(commit)
        return folder

    return snapshot


@pytest.fixture
def hub(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Empty hub that takes uploads, with an empty local cache."""
    from tests.tools.upload_hub import serving

    if not (shared / "data/mini_hub_server.py").is_file():
        pytest.skip("no hub that takes uploads")
    with serving(shared, tmp_path / "cache", monkeypatch) as hub:
        yield hub


@pytest.fixture
def image_networks_absent(
    tmp_path: Path, hub_cache: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Empty the caches of torch and the hub, and return torch's folder of weights."""
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
    """Fill the caches of torch and the hub with `image_weights`."""
    from tests.repositories.image_networks import link

    return link(image_weights, image_networks_absent, hub_cache)


@pytest.fixture
def clip_networks(
    image_networks_absent: Path, hub_cache: Callable[[str], Path]
) -> None:
    """Put small networks of the clip metrics into the hub's cache."""
    from tests.repositories.image_networks import write_clip_networks

    write_clip_networks(hub_cache)
