"""Tests of references to folders, with the real layout of the hub's cache."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.request import Request

import pytest
from huggingface_hub import errors

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import documents, hub, open_web
from tests.tools.hub_server import serving


@pytest.fixture
def published(hub_cache):
    """A repository in the hub's cache."""
    snapshot = hub_cache("owner/name")
    (snapshot / "vae").mkdir()
    (snapshot / "config.json").write_text("{}")
    (snapshot / "vae/model.safetensors").write_bytes(b"weights")
    return snapshot


def test_hub_references_resolve_to_cache_folder_or_package(
    published, hub_cache, tmp_path
):
    assert (
        hub.folder("hub:owner/name")
        == hub.folder("hub:name", owner="owner")
        == published
    )
    assert (
        hub.folder(f"hub:owner/name/vae@{published.name}", allow=["*.json"])
        == published / "vae"
    )
    assert hub.read_revision(published / "vae") == published.name
    snapshot = hub_cache("owner/data", kind="dataset")
    assert hub.folder("hub:datasets/owner/data") == snapshot
    assert hub.folder(str(tmp_path)) == tmp_path
    assert (hub.folder("demo:encoder") / "config.json").is_file()


def test_what_is_not_there_is_missing_data_with_the_way_to_it(published):
    for reference, fact, hint in (
        (
            "hub:owner/absent",
            "owner/absent",
            "hf download owner/absent",
        ),
        (
            "hub:datasets/owner/absent",
            "owner/absent",
            "--repo-type dataset",
        ),
        ("hub:not a name", "not a name", "check the name"),
        (
            "hub:owner/name/../../..",
            "'../../..'",
            "without ..",
        ),
        ("no/such/folder", "'no/such/folder'", "hub:owner/name"),
    ):
        with pytest.raises(MissingData) as caught:
            hub.folder(reference)
        assert fact in caught.value.message
        assert hint in caught.value.hint


def test_a_digest_is_cached_until_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    monkeypatch.setattr(hub, "MIN_KEPT_DIGEST_BYTES", 1)
    read_paths, digest_file = list[Path](), documents.digest_file

    def count(path):
        read_paths.append(path)
        return digest_file(path)

    monkeypatch.setattr(documents, "digest_file", count)
    file = tmp_path / "model.safetensors"
    for content in ("weights", "other weights"):
        file.write_text(content)
        assert {hub.digest_cached_file(file) for _ in range(3)} == {digest_file(file)}
    assert read_paths == [file, file]


COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("text", "owner", "expected"),
    [
        ("owner/name", "", ("model", "owner/name", "", None)),
        ("hub:owner/name", "", ("model", "owner/name", "", None)),
        ("name", "owner", ("model", "owner/name", "", None)),
        ("name", "", ("model", "name", "", None)),
        ("a/name", "owner", ("model", "a/name", "", None)),
        ("owner/name/a/b@v1", "", ("model", "owner/name", "a/b", "v1")),
        ("owner/name/@", "", ("model", "owner/name", "", None)),
        ("datasets/owner/name/x", "", ("dataset", "owner/name", "x", None)),
        ("datasets/name", "owner", ("dataset", "owner/name", "", None)),
        ("owner/name@refs/pr/1", "", ("model", "owner/name", "", "refs/pr/1")),
    ],
)
def test_a_reference_has_type_repository_folder_and_revision(text, owner, expected):
    assert hub.Repository.parse(text, owner) == expected


@pytest.mark.parametrize("text", ["owner/name/..", "owner/name@../x", "o/n//a"])
def test_no_reference_leads_out_of_the_cache(text):
    with pytest.raises(MissingData):
        hub.Repository.parse(text)


@pytest.mark.parametrize(
    ("reference", "patterns", "line"),
    [
        ("owner/name", [], "hf download owner/name"),
        ("owner/name", ["**"], "hf download owner/name"),
        ("owner/name", ["a", "b", "a"], "hf download owner/name a b"),
        (
            "datasets/owner/name@v1",
            ["*.json", "a"],
            "hf download owner/name --include '*.json' --include a "
            "--repo-type dataset --revision=v1",
        ),
    ],
)
def test_a_line_downloads_files_or_patterns(reference, patterns, line):
    assert hub.Repository.parse(reference).download_line(patterns) == line


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/x/models--owner--name/snapshots/{COMMIT}", f"hub:owner/name@{COMMIT}"),
        (
            f"/x/datasets--owner--name/snapshots/{COMMIT}/a/b",
            f"hub:datasets/owner/name/a/b@{COMMIT}",
        ),
        (f"/x/models--owner--name/snapshots/{COMMIT[1:]}", ""),
        (f"/x/models--owner--name/snapshots/{COMMIT}0", ""),
        (f"/x/spaces--owner--name/snapshots/{COMMIT}", ""),
        ("/x/runs/a", ""),
    ],
)
def test_a_path_in_the_cache_is_named_by_its_commit(path, name):
    assert hub.name_snapshot(path) == name
    assert hub.read_revision(Path(path)) == (COMMIT if name else "")


def request_error(kind, status=404):
    """An error of the hub's client with an answer of the hub."""
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    error = kind.__new__(kind)
    Exception.__init__(error, "first line\nlast line")
    error.response = response  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize("variable", hub.TOKEN_VARIABLES)
def test_advice_on_tokens_names_the_variable_that_is_set(monkeypatch, variable):
    for name in hub.TOKEN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    assert hub.describe_token() == "none"
    assert "unset" not in hub.advise_login()

    monkeypatch.setenv(variable, "hf_secret")
    advice = hub.advise_login("a token that may write")
    assert f"unset {variable}" in advice
    assert "a token that may write" in advice
    assert hub.describe_token() == variable
    assert "hf_secret" not in advice
    monkeypatch.setenv(variable, " ")  # as the hub's client, an empty one is ignored
    assert "unset" not in hub.advise_login()


FAILURES = [
    (request_error(errors.GatedRepoError), MissingData, "huggingface.co/owner/name"),
    (request_error(errors.RepositoryNotFoundError), MissingData, "check the name"),
    (request_error(errors.RevisionNotFoundError), MissingData, "@"),
    (request_error(errors.HfHubHTTPError, 401), MissingData, "hf auth logout"),
    (request_error(errors.HfHubHTTPError, 503), hub.Unreachable, "hf download"),
    (request_error(errors.HfHubHTTPError, 403), MissingData, "hf auth login"),
    (errors.LocalEntryNotFoundError("x"), hub.Unreachable, "hf download"),
    (errors.HFValidationError("x"), MissingData, "check the name"),
    (KeyError("x"), MissingData, "HF_ENDPOINT"),
    (json.JSONDecodeError("x", "", 0), MissingData, "HF_ENDPOINT"),
    (ValueError("x"), MissingData, "hf cache rm model/owner/name"),
    (OSError(28, "full", "/x"), MissingData, "HF_HOME"),
    (OSError("Consistency check failed"), MissingData, "owner"),
]


@pytest.mark.parametrize(
    ("error", "kind", "hint"), FAILURES, ids=lambda value: type(value).__name__
)
def test_each_failure_of_the_hub_has_its_own_way_out(
    monkeypatch,
    error,
    kind,
    hint,
):
    def fail(*_, **options):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(MissingData) as caught:
        hub.Repository.parse("owner/name@v1").snapshot(["a.json"])
    assert type(caught.value) is kind
    assert hint in caught.value.hint
    assert "owner/name" in caught.value.message
    if kind is hub.Unreachable:
        assert caught.value.hint.endswith("owner/name a.json --revision=v1")


def test_the_error_names_the_mirror_that_cannot_be_reached(
    monkeypatch,
):
    def fail(*_, **options):
        raise errors.LocalEntryNotFoundError("x")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.setenv("HF_ENDPOINT", "https://me:7654@hub.example.org")
    with pytest.raises(hub.Unreachable, match=r"https://hub\.example\.org"):
        hub.Repository.parse("owner/name").snapshot()


@pytest.mark.parametrize("is_offline", [True, False])
def test_offline_only_the_cache_is_read(monkeypatch, is_offline):
    """huggingface_hub 1.33 requests the list of files of a commit even if offline."""
    local_only_flags = []

    def download(*_, local_files_only=False, **options):
        local_only_flags.append(local_files_only)
        return ""

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", is_offline)
    hub.Repository.parse(f"owner/name@{COMMIT}").snapshot()
    assert set(local_only_flags) == {is_offline}


def test_only_the_server_of_the_hub_receives_the_token(tmp_path, monkeypatch):
    root = tmp_path / "hub"
    (root / "lab/vit").mkdir(parents=True)
    (root / "lab/vit/config.json").write_text("{}")
    (root / "lab/vit/model.safetensors").write_bytes(b"weights")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving(root) as server, serving(root) as storage:
        server.redirect_client(monkeypatch)
        # another name of this machine: huggingface_hub 1.33 compares hosts only
        server.storage = storage.endpoint.replace("127.0.0.1", "localhost")
        hub.Repository.parse("lab/vit").snapshot(cache_dir=tmp_path / "cache")
        assert storage.fetched == ["lab/vit/model.safetensors"]

        # other downloads have no token at all
        address = f"{server.endpoint}/large/lab/vit/config.json"
        assert open_web(Request(address), timeout_s=10).read() == b"{}"
    paths = " ".join(server.authorized)
    assert "config.json" in paths
    assert "/large/" not in paths
    assert storage.authorized == []


def test_a_download_that_differs_from_its_sha256_is_refused(tmp_path, monkeypatch):
    root = tmp_path / "hub"
    (root / "lab/vit").mkdir(parents=True)
    (root / "lab/vit/model.safetensors").write_bytes(b"weights")
    with serving(root) as server:
        server.redirect_client(monkeypatch)
        with monkeypatch.context() as patch:
            # the size and headers of the true file, with other bytes
            answer = server._send

            def send_damaged(method, file):
                status, headers, _ = answer(method, file)
                return status, headers, b"damaged"

            patch.setattr(server, "_send", send_damaged)
            with pytest.raises(MissingData, match=r"lab/vit .*SHA-256"):
                hub.Repository.parse("lab/vit").snapshot(cache_dir=tmp_path / "cache")

        # the damaged file is not kept
        path = Path(
            hub.Repository.parse("lab/vit").snapshot(cache_dir=tmp_path / "cache")
        )
        assert (path / "model.safetensors").read_bytes() == b"weights"


def test_an_error_of_the_program_is_no_failure_of_the_hub(
    monkeypatch,
):
    for error in (ZeroDivisionError(), AttributeError("x")):

        def fail(*_, error=error, **options):
            raise error

        monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
        with pytest.raises(type(error)):
            hub.Repository.parse("owner/name").snapshot()

    def fill_disk(*_, **options):
        raise OSError(28, "full")

    # a user's own folder is named
    monkeypatch.setattr("huggingface_hub.snapshot_download", fill_disk)
    with pytest.raises(OSError) as caught:
        hub.Repository.parse("owner/name").snapshot(local_dir="mine")
    assert caught.value.filename == "mine"


def list_row(name, size, will_download=True):
    """A file that the hub would send."""
    return SimpleNamespace(filename=name, file_size=size, will_download=will_download)


def test_what_the_hub_would_send_is_counted(monkeypatch):
    files = [
        list_row("a/config.json", 5),
        list_row("a/x.bin", 7),
        list_row("a/y.bin", 11, False),
        list_row("a/z.pth", 100),
        list_row("a/other.json", 1000),
    ]
    monkeypatch.setattr(hub.Repository, "snapshot", lambda *_, **options: files)
    monkeypatch.setattr(hub, "find_weights", lambda *_: [])
    weights = ("*.safetensors", "*.bin", "*.pth")

    input_row = hub.find_input(
        "hub:owner/name/a@v1", ["config.json"], weights, ["other.json"]
    )

    assert input_row.size == 12
    assert input_row.error is None
    assert input_row.name == "owner/name/a@v1"
    assert input_row.line.split()[:3] == ["hf", "download", "owner/name"]
    for name in (
        "a/config.json",
        "a/other.json",
        "a/x.bin",
        "a/y.bin",
        "--revision=v1",
    ):
        assert name in input_row.line
    assert "pth" not in input_row.line
    absent = hub.find_input("hub:owner/name/a", ["config.json"], ["*.safetensors"])
    assert absent.is_missing
    assert "a/*.safetensors" in str(absent.error)
    files[:] = [list_row("a/x.bin", 7, False)]
    assert hub.find_input("hub:owner/name/a", [], weights).line == ""
    assert (
        hub._count_bytes([list_row("a", None), list_row("b", -5), list_row("c", 3)])
        == 3
    )
    assert hub._count_bytes([list_row("a", 2**70)]) == sys.maxsize


def test_weights_that_are_here_need_nothing(published, tmp_path, monkeypatch):
    weights = hub.find_weights("hub:owner/name/vae", [])
    assert weights == [published / "vae/model.safetensors"]
    assert hub.find_weights("hub:owner/name/vae", ["config.json"]) == []
    assert hub.find_weights("hub:owner/name", ["config.json"]) == []
    assert hub.find_input("hub:owner/name/vae").state == "here"
    file = hub.find_input("hub:owner/name/vae", (), ["model.safetensors"])
    assert (file.name, file.state) == ("owner/name/vae/model.safetensors", "here")
    # a folder of a user that lacks a file
    (tmp_path / "own").mkdir()
    (tmp_path / "own/config.json").touch()
    own_input = hub.find_input(str(tmp_path / "own"), ["config.json", "vocab.txt"])
    assert own_input.is_missing
    assert str(own_input.error).endswith("has no vocab.txt")
    own_input = hub.find_input(str(tmp_path / "own"), ["config.json"])
    assert str(own_input.error).endswith(f"has no {hub.WEIGHT_PATTERNS[0]}")
    # the hub cannot be reached
    absent_input = hub.find_input("hub:owner/absent@v1", ["a.json"])
    assert isinstance(absent_input.error, hub.Unreachable)
    assert absent_input.size is None
    assert "a.json" in absent_input.error.hint
    assert "--revision=v1" in absent_input.error.hint


def test_a_digest_is_of_names_and_contents(tmp_path):
    for name in ("b.bin", "a.bin", "c.pt"):
        (tmp_path / name).write_text(name)
    digest = hub.digest(tmp_path, ["*.bin"])

    # a.bin is selected by both patterns, and counts once
    assert hub.digest(tmp_path, ["a*", "*.bin"]) == digest
    assert hub.digest(tmp_path) != digest
    (tmp_path / "a.bin").write_text("changed")
    assert hub.digest(tmp_path, ["*.bin"]) != digest
    (tmp_path / "a.bin").write_text("a.bin")
    (tmp_path / "a.bin").rename(tmp_path / "z.bin")
    assert hub.digest(tmp_path, ["*.bin"]) != digest


def test_a_digest_needs_all_files_of_its_links(tmp_path):
    (tmp_path / "link.bin").symlink_to("missing.bin")
    with pytest.raises(MissingData):
        hub.digest(tmp_path)


def test_large_files_of_the_cache_are_named_by_their_digest(tmp_path):
    (tmp_path / ("a" * 64)).write_text("x")
    (tmp_path / ("b" * 63)).write_text("x")
    digest_file = documents.digest_file(tmp_path / ("a" * 64))
    for name in ("a" * 64, "b" * 63):
        (tmp_path / f"link-{name[0]}").symlink_to(name)
    assert hub.digest_cached_file(tmp_path / "link-a") == "a" * 64
    assert hub.digest_cached_file(tmp_path / "link-a", by_name=False) == digest_file
    assert hub.digest_cached_file(tmp_path / ("a" * 64)) == digest_file
    assert hub.digest_cached_file(tmp_path / "link-b") == digest_file


MANIFEST = {"format": 1, "brainhive": "1.0", "command": "train-align", "run": "a"}


def test_a_manifest_is_of_this_format(tmp_path):
    assert hub.read_manifest(tmp_path) is None
    path = tmp_path / hub.MANIFEST
    path.write_text(json.dumps(MANIFEST))
    assert hub.read_manifest(tmp_path) == hub.Manifest(**MANIFEST)
    for change in ({"format": 2}, {"format": True}, {"command": "embed"}, {"run": 3}):
        path.write_text(json.dumps({**MANIFEST, **change}))
        with pytest.raises(BrainhiveError):
            hub.read_manifest(tmp_path)


def test_a_repository_is_a_run_a_model_or_neither(published):
    pinned = f"hub:owner/name@{published.name}"
    assert hub.inspect_repository("hub:owner/name") == ("model", pinned)
    assert hub.fetch_run("hub:owner/name") == published
    (published / "config.json").write_text('{"model_type": "gpt2"}')
    assert hub.inspect_repository("hub:owner/name") == ("", pinned)
    with pytest.raises(MissingData):
        hub.fetch_run("hub:owner/name")
    (published / hub.MANIFEST).write_text(json.dumps(MANIFEST))
    assert hub.inspect_repository("hub:owner/name") == ("train-align", pinned)


def test_a_fetched_run_has_the_files_of_its_list_and_no_others(
    published,
):
    def fetch():
        return hub.fetch_run("hub:owner/name")

    (published / "config.json").unlink()
    for name in (hub.MANIFEST, "recipe.yaml", "metrics.json"):
        (published / name).write_text(json.dumps(MANIFEST))
    (published / "cells/a/model").mkdir(parents=True)
    model = published / "cells/a/model/model.safetensors"
    model.write_text("weights")
    (published / "README.md").write_text("a card")
    with pytest.raises(MissingData):
        fetch()
    files = [
        hub.MANIFEST,
        "recipe.yaml",
        "metrics.json",
        "cells/a/model/model.safetensors",
    ]
    digests = {name: documents.digest_file(published / name) for name in files}
    documents.write_digests(published, digests)
    assert fetch() == published
    model.write_text("changed")
    with pytest.raises(BrainhiveError):
        fetch()
    model.unlink()
    with pytest.raises(MissingData):
        fetch()
    documents.write_digests(published, {n: digests[n] for n in files[:2]})
    with pytest.raises(BrainhiveError):
        fetch()
    documents.write_digests(published, {n: digests[n] for n in files[:3]})
    assert fetch() == published
    documents.write_digests(published, {**digests, "../x": "0" * 64})
    with pytest.raises(BrainhiveError):
        fetch()


def test_the_hubs_client_is_as_loud_as_before():
    from huggingface_hub import utils

    initial_verbosity = utils.logging.get_verbosity()
    for were_off in (False, True):
        (utils.disable_progress_bars if were_off else utils.enable_progress_bars)()
        with hub.silence_hub():
            assert utils.are_progress_bars_disabled()
            assert utils.logging.get_verbosity() == utils.logging.ERROR
        assert utils.are_progress_bars_disabled() is were_off
        assert utils.logging.get_verbosity() == initial_verbosity
    utils.enable_progress_bars()


def test_a_shared_prior_has_its_parts_as_upstream_has_them():
    files = hub.RUN_FILES["train-prior"]
    for partial_name in ("fusion_encoder", "proj", "attn_adapter"):
        for name in ("config.json", "diffusion_pytorch_model.safetensors"):
            assert f"{partial_name}/{name}" in files
    assert "cells/**/model/learned.safetensors" in hub.RUN_FILES["train-align"]


def test_a_file_that_is_cut_short_needs_no_login(
    monkeypatch,
):
    error_class = hub.http_error_class()

    def break_off(*_, **options):
        raise error_class("peer closed connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", break_off)
    with pytest.raises(MissingData) as caught:
        hub.Repository.parse("owner/name").snapshot()
    assert "fetch it again" in caught.value.hint
    assert "TOKEN" not in caught.value.hint


def test_files_larger_than_the_disk_are_not_fetched(tmp_path, monkeypatch):
    root = tmp_path / "hub"
    (root / "lab/vit").mkdir(parents=True)
    (root / "lab/vit/model.safetensors").write_bytes(b"weights")
    usage = SimpleNamespace(total=10, used=4, free=6)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with serving(root) as server:
        server.redirect_client(monkeypatch)
        with pytest.raises(BrainhiveError, match="lab/vit needs 7 bytes"):
            hub.Repository.parse("lab/vit").snapshot(cache_dir=tmp_path / "cache")
        assert not list((tmp_path / "cache").rglob("model.safetensors"))
        usage.free = 7
        path = hub.Repository.parse("lab/vit").snapshot(cache_dir=tmp_path / "cache")
    assert Path(path, "model.safetensors").read_bytes() == b"weights"
