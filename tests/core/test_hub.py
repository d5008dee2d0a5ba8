"""References to folders on this machine; the hub's cache has its real layout, and no network is asked."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import serving

from brainhive_cli.core import hub
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.inputs import require


@pytest.fixture
def published(hub_cache: Callable[[str], Path]) -> Path:
    """A repository in the hub's cache."""
    snapshot = hub_cache("owner/name")
    (snapshot / "vae").mkdir()
    (snapshot / "config.json").write_text("{}")
    (snapshot / "vae/model.safetensors").write_bytes(b"weights")
    return snapshot


def test_a_hub_reference_is_its_snapshot(published: Path) -> None:
    assert hub.folder("hub:owner/name") == published
    assert hub.folder("hub:owner/name/vae") == published / "vae"
    assert hub.folder("hub:owner/name@main") == published
    assert hub.folder(f"hub:owner/name/vae@{published.name}", allow=["*.json"]) == published / "vae"


def test_weights_may_lie_in_the_repository_of_a_data_set(
    hub_cache: Callable[..., Path], published: Path
) -> None:
    snapshot = hub_cache("owner/data", kind="dataset")
    (snapshot / "last.ckpt").write_bytes(b"weights")
    assert hub.folder("hub:datasets/owner/data") == snapshot
    assert hub.find_weights("hub:datasets/owner/data", (), ("last.ckpt",))
    with pytest.raises(MissingData, match=r"owner/name is not in the hub's cache") as caught:
        hub.folder("hub:datasets/owner/name")
    assert "--repo-type dataset" in caught.value.hint


def test_a_bare_hub_name_means_the_owner_given(published: Path) -> None:
    assert hub.folder("hub:name", owner="owner") == published
    assert hub.folder("hub:owner/name", owner="other") == published


def test_a_folder_and_shipped_weights_are_references_too(tmp_path: Path) -> None:
    assert hub.folder(str(tmp_path)) == tmp_path
    assert (hub.folder("demo:encoder") / "config.json").is_file()


@pytest.mark.parametrize(
    ("reference", "what", "hint"),
    [
        ("hub:owner/absent", "owner/absent is not in the hub's cache", "hf download owner/absent"),
        ("hub:owner/name@v9", "owner/name is not in the hub's cache", "hf download owner/name"),
        ("hub:owner/name/unet", "owner/name has no folder 'unet'", "it has: config.json, vae"),
        ("hub:not a name", "cannot fetch not a name", "check the name"),
        ("hub:owner/name/../../..", "names '../../..' leads out of its folder", "without .."),
        ("hub:owner/name@../../../x", "names '../../../x' leads out of its folder", "without .."),
        ("hub:owner/../x", "cannot fetch owner/..", "check the name"),
        ("demo:absent", "no folder 'demo:absent'", "hub:owner/name"),
        ("demo:..", "demo: '..' leads out of its folder", "without .."),
        ("demo:/etc", "demo: '/etc' is an absolute path", "without .."),
        ("", "no folder ''", "hub:owner/name"),
        ("no/such/folder", "no folder 'no/such/folder'", "hub:owner/name"),
    ],
)
def test_what_is_not_there_is_missing_data_with_the_way_to_it(
    published: Path, reference: str, what: str, hint: str
) -> None:
    with pytest.raises(MissingData, match=what) as caught:
        hub.folder(reference)
    assert hint in caught.value.hint


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\0", b"0123\0" * 9])
def test_a_damaged_cache_of_the_hub_is_missing_data(published: Path, content: bytes) -> None:
    (published.parents[1] / "refs/main").write_bytes(content)
    with pytest.raises(MissingData, match=r"owner/name (is damaged|is not) in the hub's cache"):
        hub.folder("hub:owner/name")


def test_what_is_here_need_not_be_fetched_and_what_is_not_cannot_be_sized_without_the_hub(
    published: Path, tmp_path: Path
) -> None:
    for reference in ("hub:owner/name/vae", "hub:owner/name/vae@main", "demo:encoder"):
        assert hub.find_input(reference).state == "here"
    assert hub.find_input("hub:owner/name", ["config.json"], ["*.md", "*.json"]).state == "here"
    with pytest.raises(MissingData, match="owner/name is not in the hub's cache"):
        require([hub.find_input("hub:owner/name", ["config.json"])])  # its weights are not here
    with pytest.raises(hub.Unreachable, match="owner/absent is not in the hub's cache and the hub cannot be"):
        require([hub.find_input("hub:owner/absent")])
    with pytest.raises(MissingData, match=r"has no \*\.safetensors"):
        require([hub.find_input(str(tmp_path))])
    with pytest.raises(MissingData, match="not a name"):
        require([hub.find_input("hub:not a name")])


def test_the_revision_is_read_from_the_cache_alone(published: Path, tmp_path: Path) -> None:
    assert hub.revision(published / "vae") == published.name
    assert hub.revision(tmp_path) == ""


def test_the_digest_is_of_the_weights_by_name_and_content(tmp_path: Path) -> None:
    def digest(**files: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            (folder / f"{name}.safetensors").write_text(content)
        (folder / "README.md").write_text(folder.name)
        return hub.digest(folder)

    assert digest(model="a") == digest(model="a")
    assert len({digest(model="a"), digest(model="b"), digest(other="a"), digest(model="a", other="a")}) == 4


@pytest.mark.parametrize("target", ["/dev/zero", "nowhere"])
def test_a_link_to_a_device_or_to_nowhere_has_no_digest(tmp_path: Path, target: str) -> None:
    (tmp_path / "model.safetensors").symlink_to(target)
    with pytest.raises(MissingData, match="is a link to nowhere, or no file"):
        hub.digest(tmp_path)


def test_the_digest_of_a_cached_file_is_that_of_its_copy(tmp_path: Path) -> None:
    content = b"many weights"
    blob = tmp_path / "blobs" / hashlib.sha256(content).hexdigest()
    for folder in ("blobs", "snapshot", "copy"):
        (tmp_path / folder).mkdir()
    blob.write_bytes(content)
    (tmp_path / "snapshot/model.safetensors").symlink_to(blob)
    (tmp_path / "copy/model.safetensors").write_bytes(content)
    assert hub.digest(tmp_path / "snapshot") == hub.digest(tmp_path / "copy")


@pytest.fixture
def stated(
    tmp_path: Path, hub_cache: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A hub of one repository, whose weights may be stated to have another size."""
    folder = tmp_path / "served/owner/large"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(1 << 20))
    with serving(tmp_path / "served") as server:
        server.lead(monkeypatch)
        answer = server.answer

        def state(size: str) -> None:
            def change(method: str, target: str) -> tuple[int, dict[str, str], bytes]:
                status, headers, body = answer(method, target)
                if "Location" in headers:  # of another server, as the real one is, so that its size counts
                    headers["Location"] = headers["Location"].replace("127.0.0.1", "localhost")
                    headers["X-Linked-Size"] = size
                return status, headers, body

            server.answer = change

        server.state = state
        yield server


@pytest.mark.parametrize("size", ["", "many"])
def test_a_hub_that_declares_no_size_is_read_as_far_as_the_disk_allows(stated: Any, size: str) -> None:
    stated.state(size)
    assert (hub.folder("hub:owner/large") / "model.safetensors").stat().st_size == 1 << 20


@pytest.mark.parametrize(
    "body",
    [
        b"<html>log in</html>",
        b"[1]",
        b"null",
        b'{"siblings": [{"size": 1}]}',
        b'{"sha": null}',
        b"[" * 100_000,
    ],
)
def test_an_answer_that_is_not_the_hub_s_is_missing_data(stated: Any, body: bytes) -> None:
    """As of a proxy that asks for a login."""
    answer = stated.answer
    stated.answer = lambda method, target: (200, {}, body) if "/api/" in target else answer(method, target)

    with pytest.raises(MissingData, match="owner/large: what answers for the hub is not the hub") as caught:
        hub.folder("hub:owner/large")

    assert "HF_ENDPOINT" in caught.value.hint and stated.fetched == []
