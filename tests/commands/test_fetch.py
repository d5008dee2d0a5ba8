"""Tests of fetch with data sets in archives, from a hub on this machine."""

import errno
import io
import os
import resource
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files.archives import unpack
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.downloads import NOTES_FILE, SOURCES
from brainhive_cli.data.published import things_eeg
from tests.publishers import things_files
from tests.tools.hub_server import serving
from tests.worlds.own_recordings import PICTURES, write_pictures

REPOSITORY = "Haitao999/things-eeg"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """Folder of a hub with THINGS-EEG: a zip of pictures, a tar for each subject."""
    root = tmp_path_factory.mktemp("hub")
    folder, unpacked = root / REPOSITORY, tmp_path_factory.mktemp("unpacked")
    (folder / "Preprocessed_data_250Hz_whiten").mkdir(parents=True)
    write_pictures(unpacked / "painted")
    for split, name in (("train", "training_images"), ("test", "test_images")):
        shutil.copytree(unpacked / "painted" / split, unpacked / name)
        ids = [path.replace(f"{split}/", f"{name}/") for path in PICTURES[split]]
        signal = np.random.default_rng(0).normal(size=(len(ids), 2, 63, 250))
        for subject in (1, 2):
            content = things_files.eeg_content(signal, ids)
            things_files.save_eeg(unpacked, subject, split, content)
    with zipfile.ZipFile(folder / "Image_set.zip", "w") as archive:
        for path in sorted(unpacked.glob("t*_images/**/*.png")):
            archive.write(path, path.relative_to(unpacked))
    for subject in ("sub-01", "sub-02"):
        name = f"Preprocessed_data_250Hz_whiten/{subject}"
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(unpacked / name, subject)
    (folder / "README.md").write_text("THINGS-EEG")
    return root


@pytest.fixture
def hub(repositories, home, monkeypatch):
    with serving(repositories) as hub:
        hub.redirect_client(monkeypatch)
        yield hub


def fetch(*arguments):
    """Run `brainhive fetch` in this process."""
    return CliRunner().invoke(app, ["fetch"] + list(arguments))


def join_lines(text):
    """Join the lines of an output that was wrapped at the width of the terminal."""
    return " ".join(text.split())


def open_things():
    """Open THINGS-EEG in the home of the test."""
    return things_eeg.Distributed().build(Paths())


def test_a_data_set_is_fetched_and_unpacked_and_commands_read_it(hub, home):
    checked = fetch("things-eeg", "--check")
    assert checked.exit_code == 0
    assert "cc-by-4.0" in join_lines(checked.stdout)
    assert hub.fetched == []
    assert not (home / "data").exists()

    ended = fetch("things-eeg")
    assert ended.exit_code == 0, ended.stderr
    output = ended.stderr.replace("\n", "")
    assert "4 files" in output
    assert output.index("cc-by-4.0") < output.index("unpacking")
    assert len(open_things().images("train")) == 6
    assert open_things().recording(2, "test").signal.shape == (4, 63, 250)

    # files that are here are neither downloaded nor unpacked again
    picture = home / "data/things-eeg/Image_set/training_images/cat/cat_0.png"
    modified_ns = picture.stat().st_mtime_ns
    hub.fetched.clear()
    assert fetch("things-eeg").exit_code == 0
    assert hub.fetched == []
    assert picture.stat().st_mtime_ns == modified_ns


@pytest.mark.nightly
@pytest.mark.parametrize("is_stamp_kept", [True, False])
@pytest.mark.parametrize(
    "name", ["README.md", "Preprocessed_data_250Hz_whiten/sub-02.tar.gz"]
)
def test_a_file_with_a_wrong_digest_is_fetched_again(hub, home, name, is_stamp_kept):
    assert fetch("things-eeg", "unpack=false").exit_code == 0
    path = home / "data/things-eeg" / name
    content, state = path.read_bytes(), path.stat()
    path.write_bytes(content[::-1])
    if is_stamp_kept:
        (home / "data/things-eeg" / NOTES_FILE).unlink()
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    hub.fetched.clear()
    checked = fetch("things-eeg", "unpack=false", "--check")
    assert name in join_lines(checked.stderr)
    assert hub.fetched == []
    assert fetch("things-eeg", "unpack=false").exit_code == 0
    assert hub.fetched == [f"{REPOSITORY}/{name}"]
    assert path.read_bytes() == content


def test_a_disk_without_room_is_named_and_no_matter_of_the_hub(hub, home):
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard_limit))
    try:
        ended = fetch("things-eeg")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft_limit, hard_limit))
    assert ended.exit_code == BrainhiveError.exit_code
    assert os.strerror(errno.EFBIG) in ended.stderr
    assert "HF_HOME" not in ended.stderr
    assert str(home / "data/things-eeg") in "".join(ended.stderr.split("\n"))


def test_only_the_subjects_that_are_named_are_fetched(hub, home):
    assert fetch("things-eeg", "--subjects", "2").exit_code == 0
    assert [Path(name).name for name in hub.fetched if "sub-" in name] == [
        "sub-02.tar.gz"
    ]
    open_things().find_recording(2)
    with pytest.raises(MissingData):
        open_things().find_recording(1)


def test_no_archive_writes_outside_of_its_folder(home):
    inside = home / "data"
    inside.mkdir()
    with zipfile.ZipFile(home / "hostile.zip", "w") as archive:
        archive.writestr("../outside.txt", "x")
    with tarfile.open(home / "hostile.tar", "w") as archive:
        member = tarfile.TarInfo("a/../../outside.txt")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    for path in home.glob("hostile.*"):
        with pytest.raises(BrainhiveError, match="hostile"):
            unpack(path, inside)
    assert not list(home.glob("outside*"))


def test_a_data_set_without_its_host_does_not_stop_others(hub, home):
    ended = fetch("things-meg", "things-eeg")
    assert ended.exit_code == MissingData.exit_code
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert len(open_things().images("train")) == 6


def test_what_needs_an_agreement_is_shown_step_by_step(home):
    ended = fetch("nsd", "--subjects", "2,5")
    assert ended.exit_code == MissingData.exit_code
    assert SOURCES["nsd"].steps
    assert str(home / "data/nsd") in "".join(ended.stdout.split())
    assert "for s in 2 5;" in join_lines(ended.stdout)


def test_an_unreachable_hub_and_unknown_names_get_one_line(home, run_command):
    ended = fetch("things-eeg")
    assert ended.exit_code == MissingData.exit_code
    assert "hf download" in ended.stderr
    with pytest.raises(RecipeError, match="'things-egg'"):
        run_command("fetch", "names=things-egg")
    with pytest.raises(RecipeError) as caught:
        run_command("fetch")
    assert "things-eeg" in caught.value.hint


def test_fetch_checks_the_disk_space_and_resumes(hub, home, repositories, monkeypatch):
    """The disk has space for the download and for half of the unpacked files."""
    sizes = [
        path.stat().st_size
        for path in (repositories / REPOSITORY).rglob("*")
        if path.is_file()
    ]
    free = int(1.5 * sum(sizes))
    with monkeypatch.context() as patch:
        patch.setattr(
            shutil,
            "disk_usage",
            lambda _: shutil._ntuple_diskusage(2 * free, free, free),
        )
        ended = fetch("things-eeg")
        assert ended.exit_code == 1
        assert hub.fetched == []
        assert "unpack=false" in ended.stderr
        assert fetch("things-eeg", "unpack=false").exit_code == 0

    root = home / "data/things-eeg"
    assert not (root / "Image_set").exists()
    (root / "Image_set.zip").unlink()
    hub.fetched.clear()
    assert fetch("things-eeg").exit_code == 0
    assert [Path(name).name for name in hub.fetched] == ["Image_set.zip"]
    assert len(open_things().images("test")) == 2
