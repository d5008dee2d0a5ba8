"""References to folders on this machine; the hub's cache has its real layout, and no network is asked."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import serving

from brainhive_cli.core import documents, hub
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


def test_a_reference_is_a_snapshot_of_the_cache_a_folder_or_shipped_weights(
    published: Path, hub_cache: Callable[..., Path], tmp_path: Path
) -> None:
    assert hub.folder("hub:owner/name") == hub.folder("hub:name", owner="owner") == published
    assert hub.folder(f"hub:owner/name/vae@{published.name}", allow=["*.json"]) == published / "vae"
    assert hub.revision(published / "vae") == published.name
    snapshot = hub_cache("owner/data", kind="dataset")
    assert hub.folder("hub:datasets/owner/data") == snapshot
    assert hub.folder(str(tmp_path)) == tmp_path
    assert (hub.folder("demo:encoder") / "config.json").is_file()


def test_what_is_not_there_is_missing_data_with_the_way_to_it(published: Path) -> None:
    for reference, what, hint in (
        ("hub:owner/absent", "owner/absent is not in the hub's cache", "hf download owner/absent"),
        ("hub:datasets/owner/absent", "owner/absent is not in the hub's cache", "--repo-type dataset"),
        ("hub:owner/name/unet", "owner/name has no folder 'unet'", "it has: config.json, vae"),
        ("hub:not a name", "cannot fetch not a name", "check the name"),
        ("hub:owner/name/../../..", "names '../../..' leads out of its folder", "without .."),
        ("demo:absent", "no folder 'demo:absent'", "hub:owner/name"),
        ("no/such/folder", "no folder 'no/such/folder'", "hub:owner/name"),
    ):
        with pytest.raises(MissingData, match=what) as caught:
            hub.folder(reference)
        assert hint in caught.value.hint
    (published.parents[1] / "refs/main").write_bytes(b"\xff\xfe")
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


def test_an_answer_that_is_not_the_hub_s_is_missing_data(
    tmp_path: Path, hub_cache: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a proxy that asks for a login."""
    folder = tmp_path / "served/owner/large"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with serving(tmp_path / "served") as server:
        server.lead(monkeypatch)
        server.answer = lambda method, target: (200, {}, b"<html>log in</html>")
        with pytest.raises(
            MissingData, match="owner/large: what answers for the hub is not the hub"
        ) as caught:
            hub.folder("hub:owner/large")
    assert "HF_ENDPOINT" in caught.value.hint


def test_the_digest_of_a_large_file_is_kept_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    monkeypatch.setattr(hub, "MIN_KEPT_DIGEST_BYTES", 1)
    read, digest_file = list[Path](), documents.digest_file

    def count(path: Path) -> str:
        read.append(path)
        return digest_file(path)

    monkeypatch.setattr(documents, "digest_file", count)
    file = tmp_path / "model.safetensors"
    for content in ("weights", "other weights"):
        file.write_text(content)
        assert {hub.digest_cached_file(file) for _ in range(3)} == {digest_file(file)}
    assert read == [file, file]
