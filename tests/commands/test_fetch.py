"""fetch: a data set of the hub, in archives, becomes files that commands read; the hub is on this machine."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import published
import pytest
from hub_server import serving
from own_recordings import PICTURES, write_pictures
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands.fetch import Recipe, inputs
from brainhive_cli.core.archives import unpack
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.exchange.downloads import SOURCES, is_of_subjects
from brainhive_cli.data.published import nsd, things_eeg

REPOSITORY = "Haitao999/things-eeg"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """THINGS-EEG as the hub has it: pictures in a zip, the recordings of each subject in a tar."""
    root = tmp_path_factory.mktemp("hub")
    folder, made = root / REPOSITORY, tmp_path_factory.mktemp("made")
    (folder / "Preprocessed_data_250Hz_whiten").mkdir(parents=True)
    write_pictures(made / "painted")
    for split, name in (("train", "training_images"), ("test", "test_images")):
        shutil.copytree(made / "painted" / split, made / name)
        ids = [each.replace(f"{split}/", f"{name}/") for each in PICTURES[split]]
        signal = np.random.default_rng(0).normal(size=(len(ids), 2, 63, 250))
        for subject in (1, 2):
            published.save_eeg(made, subject, split, published.eeg_content(signal, ids))
    with zipfile.ZipFile(folder / "Image_set.zip", "w") as archive:
        for path in sorted(made.glob("t*_images/**/*.png")):
            archive.write(path, path.relative_to(made))
    for subject in ("sub-01", "sub-02"):
        name = f"Preprocessed_data_250Hz_whiten/{subject}"
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(made / name, subject)
    (folder / "README.md").write_text("THINGS-EEG")
    return root


@pytest.fixture
def hub(repositories, home, monkeypatch):
    with serving(repositories) as hub:
        hub.lead(monkeypatch)
        yield hub


def fetch(*words):
    return CliRunner().invoke(app, ["fetch", *words])


def things():
    return things_eeg.Distributed().build(Paths())


def test_a_data_set_is_fetched_and_unpacked_and_commands_read_it(hub, home):
    ended = fetch("things-eeg")
    assert ended.exit_code == 0, ended.stderr
    said = ended.stderr.replace("\n", "")
    assert "4 files" in said and "licence: cc-by-4.0" in said
    assert said.index("licence") < said.index("unpacking")
    assert len(things().images("train")) == 6
    assert things().recording(2, "test").signal.shape == (2, 2, 63, 250)
    assert (home / "data/things-eeg/Image_set/training_images/cat/cat_0.png").is_file()

    hub.fetched.clear()
    stamp = (home / "data/things-eeg/Image_set/training_images/cat/cat_0.png").stat().st_mtime_ns
    assert fetch("things-eeg").exit_code == 0
    assert hub.fetched == []
    assert (home / "data/things-eeg/Image_set/training_images/cat/cat_0.png").stat().st_mtime_ns == stamp


def test_a_check_shows_size_and_licence_and_fetches_nothing(hub, home):
    ended = fetch("things-eeg", "--check")
    assert ended.exit_code == 0, ended.stderr
    told = " ".join(ended.stdout.split())
    assert "things-eeg" in told and "to download" in told and "licence: cc-by-4.0" in told
    assert hub.fetched == [] and not (home / "data").exists()


def test_only_the_subjects_that_are_named_are_fetched(hub, home):
    assert fetch("things-eeg", "--subjects", "2").exit_code == 0
    assert [Path(name).name for name in hub.fetched if "sub-" in name] == ["sub-02.tar.gz"]
    things().require(2)
    with pytest.raises(MissingData):
        things().require(1)


@pytest.mark.parametrize("name", ("subj01", "sub-01", "sub_1", "subject-01"))
def test_whose_a_file_is_is_known_however_it_is_spelled(name):
    assert is_of_subjects(f"a/{name}/b.h5", [1]) and not is_of_subjects(f"a/{name}/b.h5", [2])


def test_one_folder_for_several_data_sets_is_refused(home):
    ended = fetch("things-eeg", "things-meg", "root=somewhere")
    assert ended.exit_code == 2 and "root is of one data set, not of 2" in ended.stderr


def test_an_interrupted_fetch_goes_on_where_it_stopped(hub, home):
    root = home / "data/things-eeg"
    assert fetch("things-eeg", "unpack=false").exit_code == 0
    assert not (root / "Image_set").exists()
    (root / "Image_set.zip").unlink()
    hub.fetched.clear()
    assert fetch("things-eeg").exit_code == 0
    assert [Path(name).name for name in hub.fetched] == ["Image_set.zip"]
    assert len(things().images("test")) == 2


def test_an_archive_that_is_cut_short_is_named_and_what_was_unpacked_stays(hub, home):
    assert fetch("things-eeg", "unpack=false").exit_code == 0
    path = home / "data/things-eeg/Preprocessed_data_250Hz_whiten/sub-01.tar.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(MissingData, match=r"sub-01\.tar\.gz is damaged or cut short"):
        unpack(path, path.parent)
    assert not list(path.parent.glob("sub-01/test.pt")) or not list(path.parent.glob("sub-01/train.pt"))


def test_a_member_that_ends_early_gets_no_final_name(home):
    path, into = home / "cut.tar", home / "data"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("recording.bin")
        member.size = 10_000
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(MissingData, match=r"cut\.tar is damaged or cut short: unexpected end of data"):
        unpack(path, into)
    assert not list(into.iterdir())


@pytest.mark.parametrize("name", ("../outside.txt", "/tmp/outside.txt", "a/../../outside.txt"))
@pytest.mark.parametrize("kind", ("zip", "tar"))
def test_no_archive_writes_outside_of_its_folder(home, kind, name):
    path, inside = home / f"hostile.{kind}", home / "data"
    inside.mkdir()
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, "x")
    else:
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(BrainhiveError, match="hostile"):
        unpack(path, inside)
    assert not list(home.glob("outside*")) and not Path("/tmp/outside.txt").exists()


@pytest.mark.parametrize("name", ("nsd", "coco"))
def test_what_needs_an_agreement_or_is_elsewhere_is_shown_step_by_step(home, name):
    ended = fetch(name)
    assert ended.exit_code == MissingData.exit_code
    assert str(home / "data" / name) in "".join(ended.stdout.split())
    assert ("Data Access Agreement" if name == "nsd" else "train2017.zip") in ended.stdout


def test_a_hub_that_cannot_be_reached_and_unknown_names_get_one_line(home, go):
    ended = fetch("things-eeg")
    assert ended.exit_code == MissingData.exit_code and "hf download" in ended.stderr
    with pytest.raises(RecipeError, match="no source of a data set 'things-egg'"):
        go("fetch", "names=things-egg")
    with pytest.raises(RecipeError, match="no data set is named"):
        go("fetch")


def with_room_for(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2 * free, free, free))


def test_without_a_network_size_licence_and_terms_are_listed_as_far_as_they_are_known(home) -> None:
    listed = inputs(Recipe(names=["things-eeg"]))
    told = " ".join(one.name for one in listed)
    assert "26 GB of ten subjects" in told and describe_missing(listed)
    assert "CC BY 4.0" in told and "osf.io/3jk45" in told
    (nsd,) = describe_missing(inputs(Recipe(names=["nsd"])))
    assert "39.6 GB of pictures" in nsd and "an agreement" in nsd


def test_a_full_disk_is_seen_before_anything_is_fetched(hub, home, monkeypatch):
    with_room_for(monkeypatch, 10)
    ended = fetch("things-eeg")
    assert ended.exit_code == 1 and "are free" in ended.stderr and hub.fetched == []


def test_room_for_what_is_unpacked_is_counted_too(hub, home, repositories, monkeypatch):
    """There is room for the download and half of what its archives need unpacked."""
    sizes = [path.stat().st_size for path in (repositories / REPOSITORY).rglob("*") if path.is_file()]
    with_room_for(monkeypatch, int(1.5 * sum(sizes)))
    ended = fetch("things-eeg")
    assert ended.exit_code == 1 and hub.fetched == []
    assert "to download and" in ended.stderr and "unpack=false" in ended.stderr
    assert fetch("things-eeg", "unpack=false").exit_code == 0


def test_steps_of_nsd_name_all_that_its_pictures_and_betas_are_read_from():
    steps = " ".join(SOURCES["nsd"].steps)
    needed = (nsd.STIMULI, nsd.INFO, nsd.MATRIX, "/roi", "betas_fithrf_GLMdenoise_RR")
    assert [name for name in needed if name not in steps] == []


def test_steps_name_the_subjects_that_are_wanted(home):
    assert "for s in 2 5;" in " ".join(fetch("nsd", "--subjects", "2,5", "--json").stdout.split())
