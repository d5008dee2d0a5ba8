"""Tests of fetch from NEMAR, OpenNeuro and S3, with a server on this machine.

The server lists files as these hosts do and can break off an answer.
"""

import hashlib
import json
import re
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import MissingData, RecipeError
from brainhive_cli.data.downloads import downloads, hosts
from brainhive_cli.data.files.subjects import RECORDS

PAGE = 4
"""Keys of a page of a bucket."""
CONTENT = {
    "dataset_description.json": json.dumps({"License": "CC-BY 4.0"}).encode(),
    "participants.tsv": b"participant_id\nsub-01\nsub-02\n",
    "stimuli/stimuli.tsv": b"stimulus_id\tfilename\n",
    "sub-01/ses-01/eeg/sub-01_ses-01_task-test_eeg.bdf": bytes(range(256)) * 9_000,
    "sub-01/ses-01/eeg/sub-01_ses-01_task-test_events.tsv": b"",
    "sub-02/ses-01/eeg/sub-02_ses-01_task-test_eeg.bdf": b"2" * 70_000,
    "derivatives/a b+c&d.npy": b"3" * 100,
}
LARGE = "sub-01/ses-01/eeg/sub-01_ses-01_task-test_eeg.bdf"


class Server:
    """Server of a data set, in the forms of NEMAR and of a bucket of S3.

    Attributes:
        address: URL of the server.
        files: Contents of the files, keyed by name.
        sent: Name and first byte of each file that was sent.
        breaks: Number of bytes after which the next answer breaks off, keyed by file.
        status: HTTP status of all answers below `/bucket/`.
        ignores_ranges: True if the server sends whole files to requests for a range.
        closed: Names of files that are not sent again after their answer broke off.
        listed: Wrong fields in the list of files, keyed by file.
        busy: Number of the next answers that say that the server is busy.
    """

    def __init__(self, address):
        self.address, self.files = address, dict(CONTENT)
        self.sent = []
        self.breaks = {}
        self.status = 200
        self.ignores_ranges = False
        self.closed = set()
        self.listed = {}
        self.busy = 0

    def answer(self, target):
        """Answer a request for a list."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if path == "/nemar/nm000232/":
            versions = [
                {"version": tag, "manifest_url": f"/nemar/nm000232/{tag}/manifest.json"}
                for tag in ("v1.0.0", "v1.1.0")
            ]
            index = {"dataset_id": "nm000232", "latest": "v1.1.0", "versions": versions}
            return 200, json.dumps(index).encode()
        if path == "/nemar/nm000232/v1.1.0/manifest.json":
            return 200, json.dumps([self._entry(name) for name in self.files]).encode()
        if path == "/bucket/openneuro.org/":
            return self.status, self._list(query)
        return 404, b"no such address"

    def _entry(self, name):
        """List a file as NEMAR does: small ones by git's digest, large ones by
        SHA-256.
        """
        content = self.files[name]
        is_small = len(content) < 1_000
        blob = b"blob %d\0" % len(content) + content
        return {
            "path": name,
            "url": f"{self.address}/files/{name}".replace(" ", "%20"),
            "size": len(content),
            "checksum_algorithm": "git" if is_small else "sha256",
            "checksum": hashlib.sha1(blob).hexdigest()
            if is_small
            else hashlib.sha256(content).hexdigest(),
            **self.listed.get(name, {}),
        }

    def _list(self, query):
        """List keys as S3 does, a few on a page; a folder has a key, too."""
        keys = sorted(
            f"ds004212/{name}" for name in ("", "sub-01/") + tuple(self.files)
        )
        keys = [key for key in keys if key.startswith(query["prefix"][0])]
        start = int(query.get("continuation-token", ["0"])[0].rstrip("+="))
        page_keys = keys[start : start + PAGE]
        entries = ""
        for key in page_keys:
            content = self.files.get(key.removeprefix("ds004212/"), b"")
            tag = hashlib.md5(content).hexdigest()
            tag = f"{tag}-2" if len(content) > 50_000 else tag
            entries += (
                f"<Contents><Key>{escape(key)}</Key><ETag>&quot;{tag}&quot;</ETag>"
                f"<Size>{len(content)}</Size></Contents>"
            )
        if start + PAGE < len(keys):
            token = f"{start + PAGE}+="
            entries += f"<NextContinuationToken>{token}</NextContinuationToken>"
        space = "http://s3.amazonaws.com/doc/2006-03-01/"
        return (
            f'<ListBucketResult xmlns="{space}">{entries}</ListBucketResult>'.encode()
        )


@pytest.fixture
def server(monkeypatch, home):
    """Server that runs until the test ends, and that replaces all hosts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            if served.busy:
                served.busy -= 1
                self._send(503, b"")
                return
            if path.startswith("/s3.amazonaws/"):
                self.send_response(301)
                self.send_header("x-amz-bucket-region", "us-east-2")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path = path.replace("/s3.us-east-2.amazonaws/", "/bucket/")
            self.path = self.path.replace("/s3.us-east-2.amazonaws/", "/bucket/")
            match = re.fullmatch(r"/(?:files|bucket/openneuro.org/ds004212)/(.+)", path)
            if not match:
                self._send(*served.answer(self.path))
            elif served.status != 200 and "bucket" in path:
                self._send(served.status, b"")
            elif match[1] in served.closed and match[1] not in served.breaks:
                self._send(503, b"")
            else:
                self._send_file(match[1])

        def _send_file(self, name):
            content = served.files[name]
            fullmatch = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(fullmatch[1]) if fullmatch and not served.ignores_ranges else 0
            served.sent.append((name, start))
            stop = start + served.breaks.pop(name, len(content))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                content_range = f"{start}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", f"bytes {content_range}")
            self.end_headers()
            self.wfile.write(content[start:stop])

        def _send(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        served = Server(f"http://127.0.0.1:{listener.server_address[1]}")
        monkeypatch.setattr(hosts, "NEMAR", f"{served.address}/nemar/")
        monkeypatch.setattr(hosts, "S3_WITH_DOT", f"{served.address}/bucket/{{}}/")
        Thread(target=listener.serve_forever, daemon=True).start()
        yield served
        listener.shutdown()


def fetch(*arguments):
    """Run `brainhive fetch` in this process."""
    return CliRunner().invoke(app, ["fetch"] + list(arguments))


def join_output(result):
    """Join both outputs of a command into a single line."""
    return " ".join((result.stdout + result.stderr).split())


def read_folder(folder):
    """Read the contents of all files, keyed by their path below the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != downloads.NOTES_FILE
    }


def read_states(result):
    """Read the state of each file from the output of `fetch --json`."""
    (table,) = json.loads(result.stdout)["tables"]
    return {row["file"]: row["state"] for row in table["rows"]}


@pytest.mark.parametrize(
    ("reference", "folder"),
    [("nemar:nm000232", "nm000232"), ("openneuro:ds004212", "ds004212")],
)
def test_check_lists_files_and_licence_and_fetch_gets_them_once(
    server, home, reference, folder
):
    checked = fetch(reference, "--check")
    assert checked.exit_code == 0
    for fact in ("CC-BY 4.0", "7 files", "2.4 MB"):
        assert fact in join_output(checked)
    assert not (home / "data").exists()

    # the first run downloads all files, and the second run none
    first_fetch = fetch(reference, "--json")
    assert first_fetch.exit_code == 0
    assert read_states(first_fetch) == dict.fromkeys(CONTENT, "fetched")
    assert read_folder(home / "data" / folder) == CONTENT
    server.sent.clear()
    second = fetch(reference, "--json")
    assert second.exit_code == 0
    assert read_states(second) == dict.fromkeys(CONTENT, "was there")
    assert [name for name, _ in server.sent] == ["dataset_description.json"]
    assert "prepare --from recording" in join_output(second)


def test_subjects_folders_and_patterns_choose_files(server, home):
    server.files["derivatives/sub-01/x.bin"] = b"4"
    assert (
        fetch(
            "nemar:nm000232",
            "--subjects",
            "1",
            "--include",
            "sub-*/**,*s.tsv,!*_events.tsv",
        ).exit_code
        == 0
    )
    assert set(read_folder(home / "data/nm000232")) == {
        "participants.tsv",
        LARGE,
    }
    assert fetch("openneuro:ds004212/derivatives").exit_code == 0
    assert set(read_folder(home / "data/ds004212")) == {
        "derivatives/a b+c&d.npy",
        "derivatives/sub-01/x.bin",
    }
    key = "ds004212/sub-02/ses-01/eeg/sub-02_ses-01_task-test_eeg.bdf"
    for reference in (key, "ds004212/sub-02/ses-01/"):
        assert fetch(f"s3:openneuro.org/{reference}").exit_code == 0
        assert set(read_folder(home / "data/openneuro.org")) == {key}
    refused = fetch("nemar:nm000232", "--include", "sub-07/**")
    assert refused.exit_code == RecipeError.exit_code
    assert "--include" in refused.stderr


@pytest.mark.parametrize("ignores_ranges", [False, True])
def test_a_connection_that_breaks_is_resumed_where_it_stopped(
    server, home, ignores_ranges
):
    server.ignores_ranges = ignores_ranges
    server.breaks[LARGE] = 1_000_003
    assert fetch("nemar:nm000232").exit_code == 0
    starts = [start for name, start in server.sent if name == LARGE]
    assert starts == [0, 0 if ignores_ranges else 1_000_003]
    assert read_folder(home / "data/nm000232") == CONTENT


def test_an_interrupted_fetch_leaves_no_partial_final_file(server, home):
    server.breaks[LARGE] = 500_000
    server.closed.add(LARGE)
    ended = fetch("nemar:nm000232")
    assert ended.exit_code == MissingData.exit_code
    assert "503" in ended.stderr
    folder = (home / "data/nm000232" / LARGE).parent
    (partial_file,) = folder.glob("*.part")
    assert partial_file.stat().st_size == 500_000
    assert not (home / "data/nm000232" / LARGE).exists()

    server.closed.clear()
    server.sent.clear()
    assert fetch("nemar:nm000232").exit_code == 0
    assert (LARGE, 500_000) in server.sent
    assert read_folder(home / "data/nm000232") == CONTENT


def test_busy_servers_and_buckets_of_other_regions_are_retried(
    server, home, monkeypatch
):
    server.busy = 2
    assert fetch("openneuro:ds004212").exit_code == 0
    server.busy = 3
    refused = fetch("openneuro:ds004212", "--check")
    assert refused.exit_code == MissingData.exit_code
    assert "503" in join_output(refused)
    server.busy = 0
    address = f"{server.address}/s3.amazonaws/{{}}/"
    monkeypatch.setattr(hosts, "S3_WITH_DOT", address)
    shutil.rmtree(home / "data")
    assert fetch("openneuro:ds004212").exit_code == 0
    assert read_folder(home / "data/ds004212") == CONTENT
    # an address without a region cannot be redirected, so the error names the region
    monkeypatch.setattr(hosts, "S3_WITH_DOT", address.replace("/{}", "/x/{}"))
    monkeypatch.setattr(hosts, "S3_HOST", "no address")
    refused = fetch("openneuro:ds004212", "--check")
    assert "301" in join_output(refused)
    assert "us-east-2" in join_output(refused)


def damage(server):
    server.files[LARGE] = server.files[LARGE][::-1]


def lengthen(server):
    server.files["participants.tsv"] += b"sub-03\n"


def shorten(server):
    server.files[LARGE] = server.files[LARGE][:500_000]


@pytest.mark.parametrize("change", [damage, lengthen, shorten])
def test_a_file_with_unlisted_content_is_refused_and_removed(
    server,
    home,
    change,
):
    for name in CONTENT:
        entry = server._entry(name)
        server.listed[name] = {key: entry[key] for key in ("size", "checksum")}
    change(server)
    refused = fetch("nemar:nm000232")
    assert refused.exit_code == MissingData.exit_code
    (changed_name,) = (name for name in CONTENT if CONTENT[name] != server.files[name])
    assert changed_name.rpartition("/")[2] in join_output(refused).replace(" ", "")
    kept_files = read_folder(home / "data/nm000232")
    assert kept_files.items() <= CONTENT.items()
    assert not list((home / "data").rglob("*.part"))


@pytest.mark.parametrize(
    ("entry", "fact"),
    [
        ({"path": "../outside.txt"}, "../outside.txt"),
        ({"url": "file:///etc/hostname"}, "file:///etc/hostname"),
        ({"size": "many"}, "many"),
        ({"checksum_algorithm": "crc32"}, "crc32"),
        ({"path": ".fetched.jsonl"}, "writes itself"),
    ],
)
def test_a_list_that_leads_elsewhere_is_refused(server, home, entry, fact):
    server.listed["participants.tsv"] = entry
    refused = fetch("nemar:nm000232")
    assert refused.exit_code == MissingData.exit_code
    assert fact in join_output(refused)
    assert not (home / "data").exists()
    assert not (home / "outside.txt").exists()


@pytest.mark.parametrize("content", [b"[]", b"{}", b"CC0"])
def test_a_description_without_a_licence_is_no_error(server, home, content):
    server.files["dataset_description.json"] = content
    checked = fetch("nemar:nm000232", "--check")
    assert checked.exit_code == 0
    assert "licence" in join_output(checked)
    assert "CC0" not in join_output(checked)


def test_names_that_no_host_has_get_one_line(server, home):
    absent = fetch("nemar:nm999999")
    assert absent.exit_code == MissingData.exit_code
    assert "404" in absent.stderr
    absent = fetch("openneuro:ds000001")
    assert absent.exit_code == MissingData.exit_code
    assert "ds000001" in absent.stderr
    assert "v1.0.0, v1.1.0" in join_output(fetch("nemar:nm000232@v9"))
    refused = fetch("nemar:")
    assert refused.exit_code == RecipeError.exit_code
    assert "nemar:ID" in refused.stderr


def test_the_second_host_is_asked_where_the_first_fails(server, home, monkeypatch):
    source = {"hosts": ("openneuro:ds004212", "nemar:nm000232")}
    monkeypatch.setattr(
        "brainhive_cli.commands.fetch.SOURCES",
        {"things-eeg1": hosts_of(source)},
    )
    server.status = 503
    checked = fetch("things-eeg1", "--check")
    assert checked.exit_code == 0
    assert "503" in join_output(checked)
    assert "nemar:nm000232" in join_output(checked)
    assert fetch("things-eeg1").exit_code == 0
    assert read_folder(home / "data/things-eeg1") == CONTENT

    # the first host lists files, and fails when they are downloaded
    shutil.rmtree(home / "data")
    server.status, answer = 200, server.answer

    def list_once(target):
        status, body = answer(target)
        server.status = 503 if b"NextContinuationToken" not in body else 200
        return status, body

    monkeypatch.setattr(server, "answer", list_once)
    ended = fetch("things-eeg1")
    assert ended.exit_code == 0
    assert "openneuro:ds004212" in join_output(ended)
    assert "nemar:nm000232" in join_output(ended)
    assert read_folder(home / "data/things-eeg1") == CONTENT


def test_records_of_mosaic_are_numbered_over_all_studies():
    names = ["NOD/sub-01_NOD.hdf5", "NSD/sub-01_NSD.hdf5", "participants_shared.tsv"]
    files = [hosts.RemoteFile(name, "http://127.0.0.1/", 1) for name in names]
    selected_files = hosts.choose_files(files, [RECORDS["sub-01_NSD"]])
    assert [file.name for file in selected_files] == names[1:]


def hosts_of(fields):
    from brainhive_cli.data.downloads.sources import Source

    return Source(**fields)


def test_addresses_may_hold_letters_beyond_ascii(server, home):
    server.files["sub-01/café ü.txt"] = b"x"
    assert fetch("nemar:nm000232", "--include", "*.txt").exit_code == 0
    assert read_folder(home / "data/nm000232")["sub-01/café ü.txt"] == b"x"
