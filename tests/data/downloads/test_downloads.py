"""Downloads: partial files, ranges, digests and several processes."""

import errno
import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from threading import Event, Thread, Timer

import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.runs.claims import Claim
from brainhive_cli.data.downloads import (
    RemoteFile,
    download_files,
    downloads,
    find_missing_files,
    find_outdated_files,
)
from tests.tools.web_server import send, serving

BODY = bytes(range(256)) * 1_000
HALF = 100_003


@pytest.fixture
def routes():
    with serving() as served:
        yield served


def list_body(routes, digest="etag:a-2", body=BODY):
    """Serve a body as a.bin, and list it."""
    routes.answers.setdefault("/a.bin", body)
    return RemoteFile("a.bin", f"{routes.address}a.bin", len(body), digest)


def sha256(body):
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def break_off(request):
    """Send half of the body, and end the connection."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(BODY)))
    request.end_headers()
    request.wfile.write(BODY[:HALF])


def drip(request):
    """Send a byte at a time."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(BODY)))
    request.end_headers()
    for _ in range(100):
        request.wfile.write(b"x")
        request.wfile.flush()
        time.sleep(0.1)


def leave_half(routes, folder, digest="etag:a-2"):
    """Leave a partial file as an interrupted download does."""
    file = list_body(routes, digest)
    is_first = [True]

    def answer(request):
        if is_first.pop():
            is_first.append(False)
            break_off(request)
        else:
            is_first.append(False)
            send(request, b"", 404)

    routes.answers["/a.bin"] = answer
    with pytest.raises(MissingData):
        download_files([file], folder)
    (partial_file,) = folder.glob("*.part")
    assert partial_file.read_bytes() == BODY[:HALF]
    routes.requests.clear()
    return file


def test_a_download_of_another_process_is_waited_for(routes, tmp_path):
    file = list_body(routes, sha256(BODY))
    claim_of_other = Claim(tmp_path / downloads.CLAIM_FILE, "the folder")
    ended = Event()

    def download():
        download_files([file], tmp_path)
        ended.set()

    Thread(target=download, daemon=True).start()
    assert not ended.wait(0.5)
    assert not list(tmp_path.glob("*.part"))
    (tmp_path / "a.bin").write_bytes(BODY)
    claim_of_other.release()
    assert ended.wait(5)
    assert routes.requests == []


def test_an_adopted_partial_file_is_written_no_more(routes, tmp_path):
    file = list_body(routes)

    def answer(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(BODY)))
        request.end_headers()
        request.wfile.write(BODY[:HALF])
        request.wfile.flush()
        while not (parts := list(tmp_path.glob("*.part"))):
            time.sleep(0.01)
        parts[0].rename(tmp_path / "taken")
        request.wfile.write(BODY[HALF:])

    routes.answers["/a.bin"] = answer
    with pytest.raises(FileNotFoundError):
        download_files([file], tmp_path)
    assert (tmp_path / "taken").stat().st_size <= HALF
    assert not (tmp_path / "a.bin").exists()


@pytest.mark.parametrize(
    ("start", "stated_range"),
    [
        (HALF, f"bytes {HALF}-{len(BODY) - 1}/{len(BODY)}"),
        (HALF, f"bytes {HALF}-{len(BODY) - 1}/*"),
        (0, f"bytes 0-{len(BODY) - 1}/{len(BODY)}"),
        (5, f"bytes 5-{len(BODY) - 1}/{len(BODY)}"),
        (HALF, ""),
        (HALF, "bytes */9"),
        (HALF, f"bytes {'9' * 5_000}-9/9"),
        (HALF + 1, f"bytes {HALF}-{len(BODY)}/{len(BODY) + 1}"),
    ],
)
def test_a_range_is_appended_only_where_it_begins(
    routes, tmp_path, start, stated_range
):
    file = leave_half(routes, tmp_path)

    def answer(request):
        if request.headers.get("Range"):
            headers = {"Content-Range": stated_range} if stated_range else {}
            send(request, BODY[start:], 206, **headers)
        else:
            send(request, BODY)

    routes.answers["/a.bin"] = answer
    download_files([file], tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    is_valid = start in (0, HALF) and str(start) in stated_range.partition("/")[0]
    requests = [("/a.bin", f"bytes={HALF}-")] + [("/a.bin", "")] * (not is_valid)
    assert routes.requests == requests


def test_a_host_that_always_sends_a_wrong_range_is_refused(routes, tmp_path):
    file = leave_half(routes, tmp_path)
    routes.answers["/a.bin"] = lambda request: send(
        request, BODY[7:], 206, Content_Range=f"bytes 7-9/{len(BODY)}"
    )
    with pytest.raises(MissingData, match=r"a\.bin"):
        download_files([file], tmp_path)
    assert not (tmp_path / "a.bin").exists()


def test_a_partial_file_of_another_version_is_removed(routes, tmp_path):
    leave_half(routes, tmp_path, "etag:a-2")
    routes.answers["/a.bin"] = BODY[::-1]
    download_files([list_body(routes, "etag:b-2")], tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY[::-1]
    assert routes.requests == [("/a.bin", "")]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "git"])
def test_a_file_of_equal_size_and_another_digest_is_missing(tmp_path, algorithm):
    prefix = b"blob 5\0" if algorithm == "git" else b""
    name = "sha1" if algorithm == "git" else algorithm
    digest = hashlib.new(name, prefix + b"first").hexdigest()
    file = RemoteFile("a.txt", "http://127.0.0.1/", 5, f"{algorithm}:{digest}")
    (tmp_path / "a.txt").write_bytes(b"first")
    assert find_missing_files([file], tmp_path) == []
    (tmp_path / "a.txt").write_bytes(b"other")
    assert find_missing_files([file], tmp_path) == [file]


def test_a_checked_file_is_read_again_only_once_it_has_changed(
    routes, tmp_path, monkeypatch
):
    file = list_body(routes, sha256(BODY))
    download_files([file], tmp_path)
    with (tmp_path / downloads.NOTES_FILE).open("a") as notes:
        notes.write('{"name": "a.b')  # as a killed process leaves it

    def refuse(*_):
        raise AssertionError("the file is read")

    later_file = RemoteFile(file.name, file.url, file.size, sha256(b"later"))
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "_digest_file", refuse)
        assert find_missing_files([file], tmp_path) == []
        assert find_missing_files([later_file], tmp_path) == [later_file]
    os.utime(tmp_path / "a.bin", ns=(1, 1))
    assert find_missing_files([file], tmp_path) == []
    (tmp_path / "a.bin").write_bytes(BODY[::-1])
    assert find_missing_files([file], tmp_path) == [file]
    download_files([file], tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_another_tag_of_the_host_means_another_version(routes, tmp_path):
    file = list_body(routes, "etag:a-2")
    later_file = list_body(routes, "etag:b-2")
    download_files([file], tmp_path)
    assert find_missing_files([file], tmp_path) == []
    assert find_missing_files([later_file], tmp_path) == [later_file]
    # without a note, the size decides
    (tmp_path / downloads.NOTES_FILE).unlink()
    assert find_missing_files([later_file], tmp_path) == []


def test_files_that_a_later_version_lacks_are_named(routes, tmp_path):
    def list_version(version, *names):
        url = f"{routes.address}a.bin"
        digest = sha256(BODY)
        return [
            RemoteFile(name, url, len(BODY), digest, version=version) for name in names
        ]

    routes.answers["/a.bin"] = BODY
    first_version = list_version(
        "nemar:x@1", "kept", "gone", "sub-01/gone", "sub-02/gone"
    )
    download_files(first_version, tmp_path)
    download_files(list_version("nemar:y@1", "other"), tmp_path)
    assert find_outdated_files(first_version, tmp_path) == []
    later_version = list_version("nemar:x@2", "kept", "sub-01/new")
    absent_names = {"gone", "sub-01/gone", "sub-02/gone"}
    assert set(find_outdated_files(later_version, tmp_path)) == absent_names
    # a list of a folder says nothing about other folders
    folder = list_version("nemar:x@2", "sub-01/new", "sub-01/more")
    assert find_outdated_files(folder, tmp_path) == ["sub-01/gone"]
    (tmp_path / "gone").unlink()
    assert "gone" not in find_outdated_files(later_version, tmp_path)


def test_an_absent_file_is_told_while_another_server_drips(
    routes, tmp_path, monkeypatch
):
    monkeypatch.setattr(downloads, "GRACE_S", 0.2)
    files = [list_body(routes), RemoteFile("b", f"{routes.address}b", 5)]
    routes.answers["/a.bin"] = drip
    start = time.monotonic()
    with pytest.raises(MissingData, match="404"):
        download_files(files, tmp_path)
    assert time.monotonic() - start < 3


def test_ctrl_c_does_not_wait_for_a_server_that_drips(routes, tmp_path):
    file = list_body(routes)
    routes.answers["/a.bin"] = drip
    old_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            download_files([file], tmp_path)
    finally:
        signal.signal(signal.SIGINT, old_handler)
    assert time.monotonic() - start < 3


def test_ctrl_c_does_not_wait_for_a_silent_server(routes, tmp_path):
    """Python waits at its end for threads that are no daemons."""
    has_ended = Event()

    def fall_silent(request):
        break_off(request)
        request.wfile.flush()
        has_ended.wait(60)

    file = list_body(routes)
    routes.answers["/a.bin"] = fall_silent
    lines = (
        "from pathlib import Path",
        "from brainhive_cli.data.downloads.downloads import download_files",
        "from brainhive_cli.data.downloads.hosts import RemoteFile",
        f"download_files([{file!r}], Path({str(tmp_path)!r}))",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], stderr=subprocess.DEVNULL
    )
    try:
        while not any(
            partial_file.stat().st_size for partial_file in tmp_path.glob("*.part")
        ):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.wait(20)
    finally:
        has_ended.set()
        process.kill()
    assert not list(tmp_path.glob("*.claim"))


@pytest.fixture
def limit_files():
    """Limit the size of files, as a full disk does."""
    old_limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, old_limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, old_limits)


def test_a_full_disk_is_an_error_of_the_system(routes, tmp_path, limit_files):
    file = list_body(routes)
    limit_files(HALF)
    with pytest.raises(OSError) as caught:
        download_files([file], tmp_path)
    assert not isinstance(caught.value, BrainhiveError)
    assert caught.value.errno == errno.EFBIG
    assert str(caught.value.filename) == str(tmp_path / "a.bin")
    assert [
        partial_file.stat().st_size for partial_file in tmp_path.glob("*.part")
    ] == [HALF]


def test_a_file_in_the_place_of_a_folder_is_named(routes, tmp_path):
    file = RemoteFile("a/b", f"{routes.address}b", 5)
    (tmp_path / "a").write_text("")
    with pytest.raises(FileExistsError, match=str(tmp_path / "a")):
        download_files([file], tmp_path)


def test_a_file_of_the_hub_that_is_not_as_listed_is_removed(tmp_path, monkeypatch):
    """Its bytes stayed under the final name."""

    def send_other_bytes(*_, dry_run=False, **options):
        if not dry_run:
            (tmp_path / "a.bin").write_bytes(b"x" * len(BODY))
        return []

    monkeypatch.setattr("huggingface_hub.snapshot_download", send_other_bytes)
    file = RemoteFile("a.bin", "hub:datasets/o/n@0", len(BODY), sha256(BODY))
    with pytest.raises(MissingData, match=r"a\.bin is not as listed"):
        download_files([file], tmp_path)
    assert not (tmp_path / "a.bin").exists()
