"""References to folders on this machine; the hub's cache has its real layout, and no
network is asked.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from brainhive_cli.core import documents, hub
from brainhive_cli.core.errors import MissingData


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
    assert (
        hub.folder("hub:owner/name")
        == hub.folder("hub:name", owner="owner")
        == published
    )
    assert (
        hub.folder(f"hub:owner/name/vae@{published.name}", allow=["*.json"])
        == published / "vae"
    )
    assert hub.revision(published / "vae") == published.name
    snapshot = hub_cache("owner/data", kind="dataset")
    assert hub.folder("hub:datasets/owner/data") == snapshot
    assert hub.folder(str(tmp_path)) == tmp_path
    assert (hub.folder("demo:encoder") / "config.json").is_file()


def test_what_is_not_there_is_missing_data_with_the_way_to_it(published: Path) -> None:
    for reference, what, hint in (
        (
            "hub:owner/absent",
            "owner/absent is not in the hub's cache",
            "hf download owner/absent",
        ),
        (
            "hub:datasets/owner/absent",
            "owner/absent is not in the hub's cache",
            "--repo-type dataset",
        ),
        ("hub:not a name", "cannot fetch not a name", "check the name"),
        (
            "hub:owner/name/../../..",
            "names '../../..' leads out of its folder",
            "without ..",
        ),
        ("no/such/folder", "no folder 'no/such/folder'", "hub:owner/name"),
    ):
        with pytest.raises(MissingData, match=what) as caught:
            hub.folder(reference)
        assert hint in caught.value.hint


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
