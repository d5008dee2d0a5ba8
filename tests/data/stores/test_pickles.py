"""Other people's files: plain data come through, anything that could run does not."""

import builtins
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores import pickles

NUMPY_MAKERS = (np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0])


class Harmful:
    """What a pickle may hold and no data need; `os.mkdir` would show that it ran."""

    def __init__(self, call: Callable[..., Any] = os.mkdir, argument: str = "harmed") -> None:
        self.made_by = call, (argument,)

    def __reduce__(self) -> Any:
        return self.made_by


class Instance:
    """A class of somebody's, with attributes."""

    def __init__(self) -> None:
        self.attribute = 1


def content() -> dict[str, Any]:
    """Everything that data files hold."""
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


def assert_same(found: Any, expected: Any) -> None:
    assert isinstance(found, type(expected))
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
    else:
        assert found == expected


def test_the_real_index_of_things_eeg2_is_read(shared: Path) -> None:
    found = pickles.load(shared / "data/things/image_metadata.npy")
    assert len(found["train_img_files"]) == 16540 and found["train_img_files"][0] == "aardvark_01b.jpg"


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_types_come_through_a_bare_pickle_named_npy(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "bare.npy"
    path.write_bytes(pickle.dumps(content(), protocol))
    found = pickles.load(path)
    assert_same(found, content())
    assert found["again"] is found["large"]
    assert isinstance(found["large"], np.memmap) == (protocol >= 3)  # before, bytes are written as text


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("core", ["numpy._core", "numpy.core"])  # as NumPy 2 and 1 call it
def test_arrays_tensors_and_plain_types_come_through_a_torch_file(
    tmp_path: Path, protocol: int, core: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {"t": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(3).bfloat16(), "0": torch.ones(0, 2)}
    wanted, path = {**content(), **tensors}, tmp_path / "content.pt"
    with monkeypatch.context() as patch:
        for maker in (*NUMPY_MAKERS, np._core.numeric._frombuffer):
            patch.setattr(maker, "__module__", maker.__module__.replace("numpy._core", core))
        torch.save(wanted, path, pickle_protocol=protocol)
    with zipfile.ZipFile(path) as archive:
        assert f"{core}.multiarray".encode() in archive.read("content/data.pkl")
    monkeypatch.setattr(torch, "load", None)  # which reads neither protocol 5 nor such arrays
    found = pickles.load(path)
    assert_same(found, wanted)
    assert isinstance(found["large"], np.memmap) == (protocol >= 3)


def test_arrays_come_through_an_npy_of_objects(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", content(), allow_pickle=True)  # type: ignore[arg-type]
    assert_same(pickles.load(tmp_path / "a.npy"), content())


def test_tensors_of_an_older_torch_file_are_read_by_torch(tmp_path: Path) -> None:
    path, shared = tmp_path / "a.pt", torch.arange(12).reshape(3, 4)
    wanted = {"half": torch.rand(5, 3).half(), "row": shared[1], "turned": shared.T, "none": torch.ones(0)}
    torch.save([wanted, ["a"]], path, _use_new_zipfile_serialization=False)

    found, names = pickles.load(path)

    assert_same(found, wanted)
    assert names == ["a"]


@pytest.mark.parametrize("verify", [True, False])
def test_numbers_that_do_not_match_their_checksum_are_refused_unless_they_are_not_verified(
    tmp_path: Path, verify: bool
) -> None:
    path = tmp_path / "a.pt"
    torch.save(torch.full((64,), 0.5), path)
    damaged = path.read_bytes().replace(struct.pack("<f", 0.5), struct.pack("<f", 0.25), 1)
    path.write_bytes(damaged)
    if verify:
        with pytest.raises(BrainhiveError, match="does not match its checksum"):
            pickles.load(path)
    else:
        assert pickles.load(path, verify=False)[:2].tolist() == [0.25, 0.5]


def test_the_formats_that_users_have_are_read_as_numpy_and_torch_read_them(golden: Path) -> None:
    files = sorted(p for p in (golden / "prepare/formats").rglob("*") if p.suffix in (".pt", ".npy"))
    assert {path.suffix for path in files} == {".pt", ".npy"}
    for path in files:
        direct = (
            np.load(path, allow_pickle=True)
            if path.suffix == ".npy"
            else torch.load(path, weights_only=False)
        )
        expected = direct.item() if isinstance(direct, np.ndarray) else direct
        assert_same(pickles.load(path), expected)


def test_an_array_larger_than_memory_is_mapped_where_it_lies(tmp_path: Path) -> None:
    count = 2**36
    reduced = b"\x80\x05cnumpy._core.numeric\n_frombuffer\n(\x96" + struct.pack("<Q", count)
    rest = (
        b"cnumpy\ndtype\n(\x8c\x02f2tR(\x8a\x05" + struct.pack("<Q", count // 4)[:5] + b"K\x02t\x8c\x01CtR."
    )
    with (tmp_path / "huge.npy").open("wb") as file:
        file.write(reduced)
        file.seek(count, os.SEEK_CUR)  # a hole, which takes no room on the disk
        file.write(rest)
    found = pickles.load(tmp_path / "huge.npy")
    assert isinstance(found, np.memmap) and found.dtype == np.float16 and found.shape == (count // 4, 2)
    assert found[-1].tolist() == [0, 0]


def test_an_array_without_objects_stays_on_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(2, 3))
    assert isinstance(pickles.load(tmp_path / "a.npy"), np.memmap)


def test_an_npz_is_a_dict(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ids=np.array(["x", "y"]), emb=np.ones((2, 3)))
    assert set(pickles.load(tmp_path / "a.npz")) == {"ids", "emb"}


@pytest.mark.parametrize("is_archive", [True, False])
def test_what_only_torch_can_make_its_own_safe_loader_reads(tmp_path: Path, is_archive: bool) -> None:
    weights = {"weight": torch.nn.Parameter(torch.ones(2)), "plain": torch.ones(2)}
    torch.save(weights, tmp_path / "a.pt", _use_new_zipfile_serialization=is_archive)
    assert pickles.load(tmp_path / "a.pt")["weight"].tolist() == [1, 1]


HARMFUL = {
    "a function": Harmful(),
    "eval": Harmful(builtins.eval, "__import__('os').mkdir('harmed')"),
    "a shell": Harmful(os.system, "mkdir harmed"),
    "a function of numpy": Harmful(np.fromfile, "harmed"),
    "a function of torch": Harmful(torch.hub.load, "harmed"),
    "a class": Instance(),
    "a dtype of pointers": np.zeros(2, [("a", object)]),
}


@pytest.mark.parametrize("name", HARMFUL)
@pytest.mark.parametrize("protocol", [2, 5])
def test_objects_are_refused_wherever_they_stand_before_anything_runs(
    tmp_path: Path, name: str, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hidden = {"eeg": np.zeros((200, 4, 60)), "more": [{"deep": (HARMFUL[name],)}]}
    torch.save(hidden, "archive.pt", pickle_protocol=protocol)
    torch.save(hidden, "older.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    Path("bare.npy").write_bytes(pickle.dumps(hidden, protocol))
    np.save("objects.npy", np.array(hidden, object), allow_pickle=True)
    for path in list(tmp_path.iterdir()):
        with pytest.raises(BrainhiveError, match="holds Python objects that could run code") as caught:
            pickles.load(path)
        assert "\n" not in caught.value.message
    assert not (tmp_path / "harmed").exists()


def test_other_opcodes_that_make_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.npy"
    for harmful in (
        b"(S'mkdir harmed'\nios\nsystem\n.",
        b"cos\nsystem\n(S'mkdir harmed'\ntR.",
        b"\x80\x02cnumpy\nndarray\n(K\x01t\x81.",  # an array of whatever stands in memory
        b"\x80\x02cnumpy._core.multiarray\n_reconstruct\n)R}b.",
        b"\x80\x05\x97.",
        b"\x80\x02Q.",
    ):
        path.write_bytes(harmful)
        with pytest.raises(BrainhiveError):
            pickles.load(path)


@pytest.mark.parametrize("count", [1, 2**14])  # read, and mapped
def test_bytes_are_never_taken_for_pointers(tmp_path: Path, count: int) -> None:
    array = pickle.dumps(np.full(count, 7, np.int64), 5)
    assert array.count(b"\x8c\x02i8") == 1
    for code in (b"O8", b"O4"):
        path = tmp_path / "bare.npy"
        path.write_bytes(array.replace(b"\x8c\x02i8", b"\x8c\x02" + code))
        with pytest.raises(BrainhiveError):
            pickles.load(path)


def test_a_length_beyond_the_end_of_the_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "bare.npy"
    for opcode in (b"B\xff\xff\xff\xff", b"\x8e", b"\x96", b"\x8d", b"\x95", b"\x8b"):
        path.write_bytes(b"\x80\x05" + opcode + b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"short.")
        with pytest.raises(BrainhiveError, match="is damaged or cut short"):
            pickles.load(path)


@pytest.mark.parametrize("name", ["archive.pt", "older.pt", "bare.npy", "objects.npy"])
def test_a_file_cut_short_is_one_clear_error(tmp_path: Path, name: str) -> None:
    path, tensors = tmp_path / name, {"a": torch.rand(200, 4)}
    if name == "archive.pt":
        torch.save(content(), path, pickle_protocol=5)
    elif name == "older.pt":
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    elif name == "bare.npy":
        path.write_bytes(pickle.dumps(content(), 5))
    else:
        np.save(path, content(), allow_pickle=True)  # type: ignore[arg-type]
    whole = path.read_bytes()
    for share in (0.0, 0.001, 0.3, 0.95, 0.9999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(BrainhiveError, match="is damaged or cut short") as caught:
            pickles.load(path)
        assert "\n" not in caught.value.message


def test_an_npz_of_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([Harmful()], object))
    with pytest.raises(BrainhiveError):
        pickles.load(tmp_path / "a.npz")


BROKEN = (
    *(b"", b"plain words", b"\x93NUMPY\x01\x00", b"\x80\x02N", b"PK\x03\x04"),
    b"\x93NUMPY\x01\x00\x0f\x00{'descr': '<f8'",
)


@pytest.mark.parametrize("ending", [".npy", ".pt", ".npz"])
def test_a_broken_file_is_one_clear_error(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"content{ending}"
    for damaged in BROKEN:
        path.write_bytes(damaged)
        with pytest.raises(BrainhiveError, match=f"{path} (is damaged or cut short|holds Python objects)"):
            pickles.load(path)


def bomb(folder: Path) -> Path:
    """Pack zeros, 400 MiB of them, into 0.4 MB."""
    with (
        zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(file, header(100 * 2**20))
        for _ in range(400):
            file.write(bytes(2**20))
    return folder / "a.npz"


def header(count: int) -> dict[str, Any]:
    return {"descr": "<f4", "fortran_order": False, "shape": (count,)}


def repeated(folder: Path) -> Path:
    """Keep one number as a tensor of a million millions."""
    torch.save({"a": torch.ones(1).expand(10**12)}, folder / "a.pt")
    return folder / "a.pt"


@pytest.mark.parametrize("make", [bomb, repeated])
def test_what_would_take_all_memory_or_time_is_one_clear_error(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    with pytest.raises(BrainhiveError, match=r"a\.np.|a\.pt") as caught:
        pickles.load(path)
    assert "\n" not in caught.value.message


def test_lists_that_hold_each_other_are_no_array(tmp_path: Path) -> None:
    nested: list[Any] = [1.0]
    for _ in range(60):
        nested = [nested, nested]
    (tmp_path / "a.npy").write_bytes(pickle.dumps(nested))
    with pytest.raises(TypeError, match="a list is neither numbers nor names"):
        pickles.array(pickles.load(tmp_path / "a.npy"))


@pytest.mark.parametrize("name", ["a.pt", "a.npz"])
def test_a_flipped_bit_in_an_archive_is_found(tmp_path: Path, name: str) -> None:
    path, values = tmp_path / name, np.arange(1000, dtype=np.float32)
    if name == "a.pt":
        torch.save({"a": torch.from_numpy(values)}, path)
    else:
        np.savez(path, a=values)
    content = bytearray(path.read_bytes())
    content[content.index(values[500:510].tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(BrainhiveError, match=r"does not match its checksum|Bad CRC-32"):
        pickles.load(path)


def test_an_archive_of_torch_without_checksums_is_read_as_its_content_is_whole(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(9)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(pickles.load(tmp_path / "a.pt")["a"], torch.arange(9))


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npy_in_memory_holds_numbers_and_nothing_after_them(order: str) -> None:
    np.save(file := BytesIO(), expected := np.array([[1, 2], [3, 4]], np.int16, order=order))
    content = file.getvalue()
    assert np.array_equal(pickles.numbers(content, "a"), expected)
    np.save(names := BytesIO(), np.array(["a"]))
    for wrong in (content[:-1], content + b"0", names.getvalue()):
        with pytest.raises((EOFError, ValueError)):
            pickles.numbers(wrong, "a")


def test_a_storage_that_is_not_named_by_a_text_is_refused(tmp_path: Path) -> None:
    class Naming(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", "float32", ((),), "cpu", 1) if value == "numbers" else None

    Naming(content := BytesIO()).dump(["numbers"])
    with zipfile.ZipFile(path := tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", content.getvalue())

    with pytest.raises(BrainhiveError, match="is damaged"):
        pickles.load(path)
