"""Tests of reading and writing files safely."""

import errno
import os
import pickle
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.files import (
    Input,
    UnfitFile,
    atomic_write,
    documents,
    files,
    hub,
)
from brainhive_cli.core.files.files import NotFetched
from brainhive_cli.core.runs import weights
from brainhive_cli.data.files import hdf5, pickles
from brainhive_cli.data.media import media_files
from brainhive_cli.data.published.nsd import read_design
from brainhive_cli.data.recordings import list_recording_files, tables
from brainhive_cli.data.stores import session_store


def test_regular_files_are_read_up_to_a_limit_through_links(
    tmp_path,
):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert files.read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(UnfitFile) as caught:
        files.open_regular(tmp_path / "link", 4)
    assert re.findall(r"\d+", caught.value.message.partition("link")[2]) == ["5", "4"]
    with pytest.raises(IsADirectoryError):
        files.open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        files.open_regular(tmp_path / "absent")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_where_files_have_their_ends(tmp_path, end):
    lines = ["\u2028cat/1.jpg", "dog\x0b\x0c/\x85 2.jpg", ""]
    (tmp_path / "test.txt").write_bytes(("\ufeff" + end.join(lines)).encode())
    assert files.read_lines(tmp_path / "test.txt") == lines


READERS = {
    "a.json": documents.read,
    "a.png": media_files.read,
    "events.tsv": tables.read_table,
    "train.tsv": lambda path: session_store.collect_file_facts([path]),
    "nsd_expdesign.mat": lambda path: read_design(path, 1),
}


def test_no_reader_waits_for_a_pipe_or_reads_a_device(tmp_path):
    """Each would hang, or fill the memory; clips, sidecars and designs did."""
    for name, read_file in READERS.items():
        os.mkfifo(tmp_path / name)
        with pytest.raises((BrainhiveError, UnfitFile)):
            read_file(tmp_path / name)
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to("/dev/zero")
        with pytest.raises((BrainhiveError, UnfitFile)):
            read_file(tmp_path / name)


FETCHED_READERS = {
    **READERS,
    "a.npy": pickles.load,
    "a.h5": lambda path: hdf5.open_file(path, "prepare").__enter__(),
    "a.safetensors": weights.read,
    "model/model.safetensors": lambda path: hub.folder(str(path.parent)),
    "sub-01_eeg.fif": list_recording_files,
}
POINTERS = {
    "git lfs pull": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
    "git annex get": "/annex/objects/MD5E-s120--1d8.png\n",
    "datalad get": None,
}


@pytest.mark.parametrize("form", POINTERS)
def test_files_without_content_are_counted_with_a_fetch_command(tmp_path, form):
    """Links of DataLad, and the small files that Git LFS and git-annex leave."""
    for name, read_file in FETCHED_READERS.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        for absent in (path, path.with_name(f"other_{path.name}")):
            if (text := POINTERS[form]) is None:
                absent.symlink_to("../.git/annex/objects/0k/MD5E-s1--1d8/MD5E-s1--1d8")
            else:
                absent.write_text(text)
        with pytest.raises(NotFetched) as caught:
            read_file(path)
        assert path.name in caught.value.message
        assert "2 of 2" in caught.value.message
        assert form in caught.value.hint
        input_row = Input.of_file([path], path, "fetch it")
        assert input_row.is_missing
        assert form in str(input_row.error and input_row.error.hint)
        for absent in path.parent.iterdir():
            absent.is_dir() or absent.unlink()


def test_a_walk_enters_each_folder_once_though_links_lead_back(tmp_path):
    (tmp_path / "data/a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("data/a/1.png", "elsewhere/2.png", "data/a/._1.png", "data/.DS_Store"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "data/b").symlink_to("../elsewhere")
    for name in ("data/a/loop", "data/a/again", "elsewhere/up"):
        (tmp_path / name).symlink_to(tmp_path / "data")
    paths = [
        path for path, entry in files.walk(tmp_path / "data") if not entry.is_dir()
    ]
    assert paths == ["a/1.png", "b/2.png"]


def test_a_full_disk_is_named_and_the_old_file_stays(
    tmp_path,
):
    (tmp_path / "metrics.json").write_text("before")
    with (
        pytest.raises(OSError) as caught,
        atomic_write(tmp_path / "metrics.json"),
    ):
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "metrics.json")
    assert (tmp_path / "metrics.json").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_paths_are_found_as_given_or_below_home(home):
    elsewhere = home / "elsewhere"
    (home / "below").mkdir()
    elsewhere.mkdir()
    os.chdir(elsewhere)
    assert files.locate("below") == home / "below"
    assert files.locate("absent") == Path("absent")
    (elsewhere / "below").mkdir()
    assert files.locate("below") == Path("below")
    assert files.locate_stored("below") == str(home / "below")
    assert files.locate_stored("absent") == "absent"
    assert files.locate("x" * 5000) == Path("x" * 5000)


@pytest.mark.parametrize("name", ["~/study", "$HOME/study", " ~/study "])
def test_names_of_the_users_folder_are_expanded(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BRAINHIVE_HOME", name)
    assert files.home_folder() == tmp_path / "study"
    assert files.locate("~/study/data") == tmp_path / "study/data"


def test_paths_below_home_are_stored_relative_to_it(tmp_path, monkeypatch):
    home, link = tmp_path / "home", tmp_path / "link"
    home.mkdir()
    link.symlink_to(home)
    monkeypatch.setenv("BRAINHIVE_HOME", str(link))
    stored = files.make_portable(
        {
            "a": [str(home / "x" / ".." / "y"), (link / "z",)],
            str(link / "key"): 3,
            "other": f"{home}-other/x",
            "home": str(home),
            "text": "y/../z",
        }
    )
    assert stored == {
        "a": ["y", ["z"]],
        "key": 3,
        "other": f"{home}-other/x",
        "home": str(home),
        "text": "y/../z",
    }


def test_the_way_to_a_folder_is_its_key_or_a_link():
    root = Path("data dir/nsd")
    hint = files.hint_at_folder(root, "dataset.root", "here", "betas")
    assert hint == "dataset.root=FOLDER  # betas"
    way = files.hint_at_folder(root, "dataset.root", "", "betas")
    assert "mkdir -p 'data dir' && ln -s /FOLDER 'data dir/nsd'" in way


def test_an_unfit_file_is_the_same_behind_a_process():
    error = UnfitFile(5, "a pipe", Path("x"), "do this")
    second_document = pickle.loads(pickle.dumps(error))
    assert (second_document.errno, second_document.filename) == (5, "x")
    assert (second_document.message, second_document.hint) == ("x is a pipe", "do this")


@pytest.mark.parametrize("size", [1023, 1024])
def test_only_small_files_are_taken_for_pointers(tmp_path, size):
    start = b"version https://git-lfs.github.com/spec/v1\n"
    (tmp_path / "a").write_bytes(start.ljust(size, b"x"))
    (tmp_path / "b").write_bytes(b"x")
    paths = [tmp_path / "b", tmp_path / "a", tmp_path / "absent"]
    error = files.find_unfetched(paths)
    if size == 1024:
        assert error is None
        assert files.is_file(tmp_path / "a")
        return
    assert error is not None
    assert "1 of 3 files" in error.message
    assert error.hint == f"cd {tmp_path} && git lfs pull"
    with pytest.raises(NotFetched):
        files.is_file(tmp_path / "a")


def test_a_failing_disk_is_not_an_absent_file(tmp_path, monkeypatch):
    (tmp_path / "a").touch()
    assert files.is_saved(tmp_path / "a")
    for name in ("b", "a/b", ""):
        assert not files.is_saved(tmp_path / name)

    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(os, "stat", fail)
    with pytest.raises(OSError, match="Input/output"):
        files.is_saved(tmp_path / "a")


def test_no_file_is_opened_through_a_link_where_it_is_written(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(OSError):
        files.open_unless_link(str(tmp_path / "link"), os.O_WRONLY | os.O_CREAT)
    with open(tmp_path / "file", "a", opener=files.open_unless_link) as stream:
        stream.write("x")
    with pytest.raises(OSError):
        files.open_unless_link(str(tmp_path / "link"), os.O_WRONLY)
    assert (tmp_path / "file").read_text() == "x"


def test_a_refused_file_is_closed_again(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    initial_count = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(UnfitFile):
            files.open_regular(tmp_path / "file", 4)
    assert len(os.listdir("/proc/self/fd")) == initial_count


def test_files_of_a_name_are_found_at_any_depth_in_order(tmp_path):
    for name in ("b/x.json", "a/x.json", "x.json", "a/y.json", ".git/x.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "c/x.json").mkdir(parents=True)
    files_named = files.find_files_named("x.json", tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in files_named] == [
        "a/x.json",
        "b/x.json",
        "x.json",
    ]


def test_a_walk_lists_folders_that_it_does_not_enter(tmp_path):
    for name in ("b/in/1", "a/2", "lost+found/3", ".hidden/4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")

    def walk(*arguments, **fields):
        return [path for path, _ in files.walk(tmp_path, *arguments, **fields)]

    assert walk() == ["a", "a/2", "b", "b/in", "b/in/1"]
    assert walk(enters=lambda name: name != "b") == ["a", "a/2", "b"]
    assert walk("b") == ["b/in", "b/in/1"]
    assert walk("absent") == []


def test_wildcards_begin_behind_the_last_folder_that_is_there(tmp_path):
    study = tmp_path / "study [pilot]"
    for name in ("sub-1/a.tsv", "sub-2/deep/a.tsv", "sub-2/b.tsv"):
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_text("")

    def expand(pattern):
        paths = files.expand_pattern(study / pattern)
        return [path.relative_to(study).as_posix() for path in paths]

    assert expand("sub-*/a.tsv") == ["sub-1/a.tsv"]
    assert expand("**/a.tsv") == ["sub-1/a.tsv", "sub-2/deep/a.tsv"]
    assert expand("sub-2/?.tsv") == ["sub-2/b.tsv"]
    assert expand("x*/a") == []
    assert files.expand_pattern(study) == [study]


@pytest.mark.parametrize(
    ("path", "pattern", "is_match"),
    [
        ("sub-1/anat/a_beta.nii.gz", "sub-*/**/*_beta.nii.gz", True),
        ("sub-1/a_beta.nii.gz", "sub-*/**/*_beta.nii.gz", True),
        ("x/y/sub-1/a_beta.nii.gz", "sub-*/**/*_beta.nii.gz", True),
        ("sub-1/a_beta.nii", "sub-*/**/*_beta.nii.gz", False),
        ("x/a.tsv", "a.tsv", True),
        ("xa.tsv", "a.tsv", False),
        ("x/ab.tsv", "a?.tsv", True),
        ("x/a/.tsv", "a?.tsv", False),
        ("a/b/c", "a/*", False),
        ("a1.tsv", "a[12].tsv", True),
        ("a3.tsv", "a[12].tsv", False),
        ("a3.tsv", "a[!12].tsv", True),
        ("a.tsv", "a+tsv", False),
    ],
)
def test_a_pattern_is_of_the_end_of_a_path(path, pattern, is_match):
    assert files.matches_pattern(path, pattern) is is_match


@pytest.mark.parametrize("depth", [1, 2])
def test_nothing_is_written_through_a_link_below_a_folder(tmp_path, depth):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "a").mkdir(parents=True)
    link = folder / ("a/link" if depth == 2 else "link")
    link.symlink_to(elsewhere)
    for name in ("x", "y/x"):
        with pytest.raises(BrainhiveError):
            files.resolve_without_links(
                folder, f"{link.relative_to(folder)}/{name}", "a file,"
            )
    assert files.resolve_without_links(folder, "a/b/c", "a file,") == folder / "a/b/c"
    # the folder itself, and what is written, may be links
    (tmp_path / "again").symlink_to(folder)
    (folder / "a/file").symlink_to(elsewhere / "x")
    for trusted in (folder, tmp_path / "again"):
        assert (
            files.resolve_without_links(trusted, "a/file", "a file,")
            == trusted / "a/file"
        )


def test_bad_texts_are_control_characters_and_no_utf8():
    for text in ("a\nb", "\x7f", "a\x85", "\ud800x"):
        assert files.describe_bad_text(text)
    for text in ("", "/a/../b", "ä 日本", "~"):
        assert files.describe_bad_text(text) == ""


def test_no_word_of_another_type_is_a_name():
    for name in (3, None, b"x"):
        with pytest.raises(BrainhiveError):
            files.resolve_below(Path("a"), name, source="x")  # type: ignore[arg-type]
    with pytest.raises(NotFetched) as caught:
        files.resolve_below(Path("a"), "x\n" * 90, source="x", error=NotFetched)
    assert len(caught.value.message) < 130
    assert "…" in caught.value.message


def part_of(folder, machine, process, suffix=""):
    """A folder that a process of a machine was writing."""
    path = folder / f".a.{machine}{process:x}-1.part{suffix}"
    path.mkdir()
    (path / "inside").write_text("x")
    return path


def test_leftovers_of_dead_processes_and_old_ones_of_others_go(
    tmp_path,
):
    machine, dead = files._hash_machine(), 2**22 + 5
    assert len(machine) == 8
    assert not files.is_running(dead)
    other_host = "00000000"
    parts = {
        "dead": part_of(tmp_path, machine, dead, ".h5"),
        "alive": part_of(tmp_path, machine, os.getppid()),
        "new elsewhere": part_of(tmp_path, other_host, 5),
        "old elsewhere": part_of(tmp_path, other_host, 6),
        "touched elsewhere": part_of(tmp_path, other_host, 7),
    }
    nobody = tmp_path / ".a.part"
    nobody.write_text("x")
    old_s = time.time() - files.MAX_PARTIAL_AGE_S - 5
    for name in ("old elsewhere", "touched elsewhere"):
        os.utime(parts[name] / "inside", (old_s, old_s))
        os.utime(parts[name], (old_s, old_s))
    os.utime(parts["touched elsewhere"] / "inside")

    files.remove_leftovers(tmp_path)

    names = {name for name, path in parts.items() if path.exists()}
    assert names == {"alive", "new elsewhere", "touched elsewhere"}
    assert nobody.exists()


def test_the_name_of_a_part_is_hidden_and_of_this_process(tmp_path):
    partial_file = files.name_partial_file(tmp_path / "a.tar.gz")
    owner = files.PARTIAL_FILE_NAME.search(partial_file.name)
    assert owner is not None
    assert int(owner["process"], 16) == os.getpid()
    assert partial_file.name.startswith(".a.tar.")
    assert partial_file.name.endswith(".part.gz")
    assert partial_file.parent == tmp_path
    assert files.is_running(os.getpid())
    assert abs(files.read_disk_clock(tmp_path) - time.time()) < 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_lasting", [False, True])
def test_a_failed_write_leaves_what_was_there(tmp_path, is_lasting):
    final = tmp_path / "new/file"
    with files.atomic_write(final, is_lasting) as writable:
        writable.write_text("first")
    with (
        pytest.raises(KeyboardInterrupt),
        files.atomic_write(final) as writable,
    ):
        writable.write_text("second")
        raise KeyboardInterrupt
    assert final.read_text() == "first"
    assert list(final.parent.iterdir()) == [final]
    # errors of another file, or of ours, stay as they are
    for error in (OSError(28, "full", "elsewhere"), BrainhiveError("x")):
        with pytest.raises(type(error)) as caught, files.atomic_write(final):
            raise error
        assert caught.value is error


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "folder/inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to("folder")
    files.remove(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder").is_dir()
    files.remove(tmp_path / "folder")
    files.remove(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_room_is_required_before_the_first_byte(tmp_path, monkeypatch):
    checked_folders = list[Path]()

    def usage(path):
        checked_folders.append(path)
        return SimpleNamespace(free=1000)

    monkeypatch.setattr("shutil.disk_usage", usage)
    new_folder = tmp_path / "a/b"
    assert files.require_free_space(new_folder, 1000, "the store", "make room") == 1000
    with pytest.raises(BrainhiveError) as caught:
        files.require_free_space(new_folder, 1001, "the store", "make room")
    assert caught.value.hint == "make room"
    assert checked_folders == [tmp_path] * 2


def test_a_home_of_an_unknown_user_is_refused(monkeypatch):
    """A folder named ~nobody-here was made in the working folder."""
    monkeypatch.setenv("BRAINHIVE_HOME", "~nobody-here/study")
    with pytest.raises(BrainhiveError, match="BRAINHIVE_HOME is ~nobody-here/study"):
        files.home_folder()
