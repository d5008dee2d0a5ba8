"""Plain data are loaded from pickles, and code is refused before it runs."""

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.files import pickles

NUMPY_MAKERS = (np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0])


class Harmful:
    """An object whose pickle makes a folder when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("harmed",)


class Instance:
    """An object of a class that no reader knows, with attributes."""

    def __init__(self):
        self.attribute = 1


def content():
    """Make every kind of value that data files contain."""
    random = np.random.default_rng(0)
    large = random.normal(size=(200, 4, 60)).astype(np.float16)
    return {
        "large": large,
        "again": large,
        "fortran": np.asfortranarray(random.normal(size=(300, 100))),
        "permuted": random.normal(size=(30, 40, 50)).transpose(1, 2, 0),
        "big endian": np.arange(5, dtype=">i4"),
        "empty": np.zeros((0, 3)),
        "text": np.array([["train_images/a/é.jpg"] * 4] * 2000),
        "objects": np.array([["x", None], [1, [2, "y"]]], object),
        "scalar": np.float32(2),
        "dict": np.array({"names": ["a", "b"]}, object),
        "ordered": OrderedDict(k=(1, 2.5, True, None)),
        "bytes": [b"", b"some"],
    }


def assert_same(actual, expected):
    assert isinstance(actual, type(expected))
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_same(actual[key], expected[key])
    elif isinstance(expected, np.ndarray):
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)
    elif isinstance(expected, torch.Tensor):
        assert actual.dtype == expected.dtype
        assert torch.equal(actual, expected)
    else:
        assert actual == expected


def test_the_real_index_of_things_eeg2_is_read(shared):
    # 1,654 concepts with ten training pictures each
    index = pickles.load(shared / "data/things/image_metadata.npy")
    assert len(index["train_img_files"]) == 16540
    assert index["train_img_files"][0] == "aardvark_01b.jpg"


def test_tensors_of_an_older_torch_file_are_mapped(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    shared = torch.arange(12).reshape(3, 4)
    expected = {
        "half": torch.rand(5, 3).half(),
        "row": shared[1],
        "turned": shared.T,
        "none": torch.ones(0),
    }
    torch.save([expected, ["a"]], path, _use_new_zipfile_serialization=False)

    # torch itself would copy them into memory
    monkeypatch.setattr(torch, "load", None)
    tensors, names = pickles.load(path)

    assert_same(tensors, expected)
    assert names == ["a"]


def test_formats_of_users_are_read_as_by_numpy_and_torch(
    golden,
):
    files = sorted(
        p
        for p in (golden / "prepare/formats").rglob("*")
        if p.suffix in (".pt", ".npy")
    )
    assert {path.suffix for path in files} == {".pt", ".npy"}
    for path in files:
        direct = (
            np.load(path, allow_pickle=True)
            if path.suffix == ".npy"
            else torch.load(path, weights_only=False)
        )
        expected = direct.item() if isinstance(direct, np.ndarray) else direct
        assert_same(pickles.load(path), expected)


def test_arrays_and_plain_types_come_through_pickles_of_numpy(tmp_path):
    path = tmp_path / "bare.npy"
    for protocol in (2, 5):
        path.write_bytes(pickle.dumps(content(), protocol))
        loaded = pickles.load(path)
        assert_same(loaded, content())
        assert loaded["again"] is loaded["large"]
        # protocol 2 writes bytes as text
        assert isinstance(loaded["large"], np.memmap) == (protocol == 5)
    np.save(path, content(), allow_pickle=True)  # type: ignore[arg-type]
    assert_same(pickles.load(path), content())
    np.save(path, np.arange(6.0).reshape(2, 3))
    assert isinstance(pickles.load(path), np.memmap)  # without objects it stays on disk
    np.savez(tmp_path / "a.npz", ids=np.array(["x", "y"]), emb=np.ones((2, 3)))
    assert set(pickles.load(tmp_path / "a.npz")) == {"ids", "emb"}


def test_names_of_matlab_cells_are_read_from_an_npz(
    tmp_path,
):
    cells = np.empty((1, 3), object)
    cells[0] = [np.array([name]) for name in ("Fp1", "Oz", "Pz")]
    names = np.array(["a", "b"], object)
    np.savez(tmp_path / "a.npz", names=names, channels=cells, x=np.arange(3))
    arrays = pickles.load(tmp_path / "a.npz")
    assert arrays["names"].tolist() == ["a", "b"]
    assert arrays["names"].dtype.kind == "U"
    assert arrays["channels"].tolist() == ["Fp1", "Oz", "Pz"]
    assert arrays["x"].tolist() == [0, 1, 2]


# names of NumPy 1 and 2
@pytest.mark.parametrize(("protocol", "core"), [(2, "numpy.core"), (5, "numpy._core")])
def test_a_torch_file_keeps_arrays_tensors_and_plain_types(
    tmp_path, protocol, core, monkeypatch
):
    tensors = {
        "t": torch.arange(6.0).reshape(2, 3).T,
        "b": torch.ones(3).bfloat16(),
        "0": torch.ones(0, 2),
    }
    expected = {**content(), **tensors}
    path = tmp_path / "content.pt"
    with monkeypatch.context() as patch:
        for maker in tuple(NUMPY_MAKERS) + (np._core.numeric._frombuffer,):
            patch.setattr(
                maker, "__module__", maker.__module__.replace("numpy._core", core)
            )
        torch.save(expected, path, pickle_protocol=protocol)
    with zipfile.ZipFile(path) as archive:
        assert f"{core}.multiarray".encode() in archive.read("content/data.pkl")
    # torch itself reads neither protocol 5 nor such arrays
    monkeypatch.setattr(torch, "load", None)
    loaded = pickles.load(path)
    assert_same(loaded, expected)
    assert isinstance(loaded["large"], np.memmap) == (protocol == 5)


@pytest.mark.parametrize("harmful", [Harmful(), Instance()])
def test_objects_are_refused_before_they_run_code(tmp_path, harmful, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hidden = {"eeg": np.zeros((200, 4, 60)), "more": [{"deep": (harmful,)}]}
    torch.save(hidden, "archive.pt", pickle_protocol=5)
    torch.save(hidden, "older.pt", _use_new_zipfile_serialization=False)
    Path("bare.npy").write_bytes(pickle.dumps(hidden))
    np.save("objects.npy", np.array(hidden, object), allow_pickle=True)
    np.savez("objects.npz", hidden=np.array([harmful], object))
    for path in list(tmp_path.iterdir()):
        with pytest.raises(BrainhiveError, match="could run code") as caught:
            pickles.load(path)
        assert "\n" not in caught.value.message
    assert not (tmp_path / "harmed").exists()


class Reduced:
    """An object whose pickle calls a function, and sets the state of the result."""

    def __init__(self, *reduction):
        self.reduction = reduction

    def __reduce__(self):
        return self.reduction


OBJECT_AT_0 = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
"""State of a dtype with an object, which hides it from NumPy by its last value."""


@pytest.mark.parametrize("size", [8, 2**17])  # copied and mapped
@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype("O"),
        Reduced(np.dtype, ("V8", False, True), OBJECT_AT_0),
        Reduced(np.dtype, ("f8", False, True), OBJECT_AT_0),
    ],
)
def test_bytes_become_no_pointers(tmp_path, dtype, size):
    """NumPy would follow the bytes to an address, and crash."""
    path = tmp_path / "a.pkl"
    content = b"A" * size
    shape = (size // 8,)
    empty = (np.ndarray, (0,), b"b")
    for reduction in (
        (NUMPY_MAKERS[0], empty, (1, shape, dtype, False, content)),
        (np._core.numeric._frombuffer, (content, dtype, shape, "C")),
        (NUMPY_MAKERS[1], (dtype, content)),
    ):
        for protocol in (2, 5):
            path.write_bytes(pickle.dumps(Reduced(*reduction), protocol))
            with pytest.raises(BrainhiveError, match=path.name):
                pickles.load(path)


def test_a_file_cut_short_is_one_clear_error(tmp_path):
    torch.save(content(), tmp_path / "archive.pt", pickle_protocol=5)
    torch.save(
        {"a": torch.rand(200, 4)},
        tmp_path / "older.pt",
        _use_new_zipfile_serialization=False,
    )
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(content(), 5))
    for path in list(tmp_path.iterdir()):
        content_of_file = path.read_bytes()
        for share in (0.0, 0.3, 0.9999):
            path.write_bytes(content_of_file[: int(share * len(content_of_file))])
            with pytest.raises(BrainhiveError, match=path.name) as caught:
                pickles.load(path)
            assert "\n" not in caught.value.message


def test_lists_that_repeat_one_another_are_no_array(
    monkeypatch,
):
    """A pickle of 200 bytes may have a list twice in a list, 40 levels deep."""
    monkeypatch.setattr(pickles, "MAX_LISTS", 2**12)
    monkeypatch.setattr(pickles, "MAX_ITEMS", 2**20)
    nested = [1]
    for _ in range(40):
        nested = [nested, nested]
    list_in_itself = []
    list_in_itself.append(list_in_itself)
    for value in (nested, list_in_itself, [[1.0] * 2**11] * 2**11):
        with pytest.raises(ValueError, match="repeat"):
            pickles.to_array(value)


def test_a_long_text_among_many_is_no_array():
    """Each text of an array takes as much memory as the longest."""
    with pytest.raises(ValueError, match="in memory"):
        pickles.to_array(["a" * 2**20] + ["b"] * 2**14)
    assert pickles.to_array([["a", "bc"], ["d", "e"]]).tolist() == [
        ["a", "bc"],
        ["d", "e"],
    ]
