"""Other people's files: plain data come through, anything that could run does not."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainhive_cli import pickles
from brainhive_cli.errors import BrainhiveError


class Harmful:
    def __reduce__(self) -> Any:
        return os.mkdir, ("harmed",)


def test_the_real_index_of_things_eeg2_is_read(shared: Path) -> None:
    found = pickles.load(shared / "data/things/image_metadata.npy")
    assert len(found["train_img_files"]) == 16540 and found["train_img_files"][0] == "aardvark_01b.jpg"


@pytest.mark.parametrize("ending", [".npy", ".pt"])
def test_arrays_and_plain_types_come_through(tmp_path: Path, ending: str) -> None:
    content: dict[str, Any] = {"a": np.arange(3.0), "half": np.ones((1, 2), np.float16), "n": np.float32(2)}
    content |= {"names": ["x", "y"], "ordered": OrderedDict(k=(1, None, True))}
    path = tmp_path / f"content{ending}"
    np.save(path, content, allow_pickle=True) if ending == ".npy" else torch.save(content, path)  # type: ignore[arg-type]
    found = pickles.load(path)
    assert list(found) == list(content) and found["ordered"] == content["ordered"]
    np.testing.assert_array_equal(found["a"], content["a"])
    assert found["half"].dtype == np.float16 and found["names"] == ["x", "y"]


def test_an_array_without_objects_stays_on_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(2, 3))
    assert isinstance(pickles.load(tmp_path / "a.npy"), np.memmap)


def test_an_npz_is_a_dict(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ids=np.array(["x", "y"]), emb=np.ones((2, 3)))
    assert set(pickles.load(tmp_path / "a.npz")) == {"ids", "emb"}


def test_an_older_torch_file_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert pickles.load(tmp_path / "a.pt")["a"].tolist() == [1, 1]


@pytest.mark.parametrize("ending", [".npy", ".pt", ".npz"])
def test_code_is_refused_before_it_runs(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"content{ending}"
    if ending == ".pt":
        torch.save({"a": Harmful()}, path)
    elif ending == ".npy":
        np.save(path, {"a": Harmful()}, allow_pickle=True)  # type: ignore[arg-type]
    else:
        np.savez(path, a=np.array([Harmful()], object))
    with pytest.raises(BrainhiveError):
        pickles.load(path)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("ending", [".npy", ".pt", ".npz"])
@pytest.mark.parametrize("content", [b"", b"plain words", b"\x93NUMPY\x01\x00", b"\x80\x02N.", b"PK\x03\x04"])
def test_a_broken_file_is_one_clear_error(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"content{ending}"
    path.write_bytes(content)
    with pytest.raises(BrainhiveError, match=f"{path} (cannot be read|holds Python objects)"):
        pickles.load(path)
