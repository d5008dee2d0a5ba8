"""Lists of hosts: an invalid response is an error, and nothing else is opened."""

import json
import os

import pytest

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.files import hub
from brainhive_cli.data.downloads import RemoteFile, choose_files, hosts, list_files
from tests.tools.web_server import send, serving

ENTRY = {
    "path": "a",
    "url": "f/a",
    "size": 5,
    "checksum_algorithm": "md5",
    "checksum": "0",
}
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@pytest.fixture
def routes(monkeypatch):
    """Serve as NEMAR and S3."""
    with serving() as served:
        monkeypatch.setattr(hosts, "NEMAR", served.address)
        monkeypatch.setattr(hosts, "S3", served.address + "s3/{}/")
        served.answers["/nm1/"] = index(served.address + "m")
        served.answers["/m"] = json.dumps({"files": [ENTRY]}).encode()
        yield served


def index(url):
    versions = [{"version": "1", "manifest_url": url}]
    return json.dumps({"latest": "1", "versions": versions}).encode()


def page(*keys, size="1", token=""):
    contents = "".join(
        f"<Contents><Key>{key}</Key><Size>{size}</Size></Contents>" for key in keys
    )
    next_page = (
        f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    )
    content = f'<ListBucketResult xmlns="{NAMESPACE}">{contents}{next_page}'
    return f"{content}</ListBucketResult>".encode()


def refuse(reference):
    """Return the message of a list that is refused for good."""
    with pytest.raises(MissingData) as caught:
        list_files(reference)
    assert not isinstance(caught.value, hub.Unreachable)
    assert caught.value.hint
    return caught.value.message


def test_a_plain_list_is_read(routes):
    url = f"{routes.address}f/a"
    assert list_files("nemar:nm1") == [RemoteFile("a", url, 5, "md5:0", "nemar:nm1@1")]
    routes.answers["/m"] = json.dumps([ENTRY]).encode()
    assert list_files("nemar:nm1@1") == [
        RemoteFile("a", url, 5, "md5:0", "nemar:nm1@1")
    ]


@pytest.mark.parametrize(
    "size", ["1e999", "-1", "NaN", "1.5", "true", '"5"', "9" * 5_000]
)
def test_a_size_that_no_file_has_is_refused(routes, size):
    text = json.dumps([ENTRY]).replace('"size": 5', f'"size": {size}')
    routes.answers["/m"] = text.encode()
    refuse("nemar:nm1")
    number = size.strip('"') if size in ("-1", "9" * 5_000) else "x"
    routes.answers["/s3/b/"] = page("d/a", size=number)
    refuse("s3:b/d")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b"5",
        b"\xff\xfe",
        b"<html></html>",
        b'{"versions": {}}',
        b'{"latest": 5, "versions": [{}]}',
        index(5),
        index("http://[x"),
        index("http://127.0.0.1:port/"),
        index("http://a..b/"),
        index("http://127.0.0.1:9/a b\x01"),
        index("data:,[]"),
        index("ftp://127.0.0.1/m"),
    ],
)
def test_an_index_of_another_form_is_refused(routes, body):
    routes.answers["/nm1/"] = body
    refuse("nemar:nm1")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b"{}",
        b"5",
        b'{"files": 5}',
        b'{"files": {"a": 1}}',
        b"[[]]",
        json.dumps([{**ENTRY, "url": "http://[x"}]).encode(),
        json.dumps([{**ENTRY, "url": "http://127.0.0.1:port/"}]).encode(),
        json.dumps([{**ENTRY, "url": "ftp://127.0.0.1/a"}]).encode(),
        json.dumps([{**ENTRY, "url": 5}]).encode(),
        json.dumps([{**ENTRY, "path": "a\x00b"}]).encode(),
        json.dumps([{**ENTRY, "checksum_algorithm": []}]).encode(),
        json.dumps([ENTRY, ENTRY]).encode(),
    ],
)
def test_a_manifest_of_another_form_is_refused(routes, body):
    routes.answers["/m"] = body
    refuse("nemar:nm1")


def test_local_files_are_not_read_as_lists(routes, tmp_path):
    local = tmp_path / "list.json"
    pipe = tmp_path / "pipe"
    local.write_text(json.dumps([ENTRY]))
    os.mkfifo(pipe)
    for path in (local, pipe):
        routes.answers["/nm1/"] = index(path.as_uri())
        assert path.name in refuse("nemar:nm1")


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://h/x", "http://h:port/", "data:,[]"]
)
def test_a_redirect_to_anything_but_the_web_is_refused(routes, monkeypatch, url):
    monkeypatch.setenv("no_proxy", "*")
    routes.answers["/nm1/"] = lambda request: send(request, b"", 302, Location=url)
    assert url in refuse("nemar:nm1")
    assert [path for path, _ in routes.requests] == ["/nm1/"]


def test_a_list_longer_than_any_is_refused(routes, monkeypatch):
    monkeypatch.setattr(hosts, "MAX_LIST_BYTES", 99)
    routes.answers["/s3/b/"] = page("d/a") + b" " * 99
    assert "99" in refuse("s3:b/d")


def test_a_bucket_that_never_ends_its_list_is_refused(routes, monkeypatch):
    monkeypatch.setattr(hosts, "MAX_PAGES", 20)
    routes.answers["/s3/b/"] = page("d/a", token="t")
    refuse("s3:b/d")
    assert len(routes.requests) == 2  # the second page has no other file

    def number(request):
        send(
            request, page(f"d/{len(routes.requests)}", token=str(len(routes.requests)))
        )

    routes.requests.clear()
    routes.answers["/s3/b/"] = number
    refuse("s3:b/d")
    assert len(routes.requests) == 20


@pytest.mark.parametrize(
    "body",
    [
        b"<" * 1_000,
        b"{}",
        b"<a>" * 100_000,
        b'<!DOCTYPE a [<!ENTITY b "c">]>' + page("d/a"),
        b'<!DOCTYPE a SYSTEM "file:///etc/hostname">' + page("d/a"),
        b'<?xml version="1.0" encoding="nonsense"?><a/>',
        page("d/a", "d/a"),
        page("d/a", size="many"),
    ],
)
def test_a_page_of_another_form_is_refused(routes, body):
    routes.answers["/s3/b/"] = body
    refuse("s3:b/d")


def test_deep_elements_are_passed_over(routes):
    deep = b"<a>" * 50_000 + b"</a>" * 50_000
    routes.answers["/s3/b/"] = page("d/a").replace(b"<Contents>", deep + b"<Contents>")
    assert [file.name for file in list_files("s3:b/d")] == ["d/a"]


@pytest.mark.parametrize("region", ["", "127.0.0.1:9/x?", "a/../b", "é"])
def test_a_region_that_is_no_name_is_not_followed(routes, monkeypatch, region):
    monkeypatch.setattr(hosts, "S3", f"{routes.address}s3.amazonaws/{{}}/")
    routes.answers["/s3.amazonaws/b/"] = lambda request: send(
        request, b"", 301, x_amz_bucket_region=region
    )
    assert "301" in refuse("s3:b/d")
    assert {path for path, _ in routes.requests} == {"/s3.amazonaws/b/"}


def test_the_name_of_a_bucket_leads_to_no_other_server(routes):
    with pytest.raises(MissingData):
        list_files("s3:b/x/../c?#/d")
    with pytest.raises(MissingData):
        list_files("s3:b?x#/d")
    assert {path for path, _ in routes.requests} == {"/s3/b/", "/s3/b%3Fx%23/"}


@pytest.mark.parametrize(
    ("body", "licence"),
    [
        (b'{"License": "CC0"}', "CC0"),
        (b'{"License": ["CC0", "MIT"]}', "CC0, MIT"),
        (b'{"License": 5}', ""),
        (b'{"License": {"a": "b"}}', ""),
        (b"[" * 200_000, ""),
        (b"\xff", ""),
        (json.dumps({"License": "x" * 9_000}).encode(), "x" * 300),
    ],
)
def test_a_licence_is_read_or_left_out(routes, body, licence):
    routes.answers["/d"] = body
    for url in (f"{routes.address}d", "http://[x"):
        file = RemoteFile(hosts.DESCRIPTION_FILE, url, 5)
        expected = licence if url.endswith("d") else ""
        assert hosts.read_licence("nemar:nm1", [file]) == expected


def test_a_number_in_a_name_may_have_any_length():
    file = RemoteFile(f"sub-{'1' * 9_000}.bin", "", 1)
    assert choose_files([file], [1]) == []
