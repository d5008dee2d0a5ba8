"""Weights: sound files are read as they are; whatever is wrong with one is one error that names it."""

import hashlib
import os
import pickle
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from brainhive_cli.core import foreign_code, weights
from brainhive_cli.core.errors import BrainhiveError, MissingData

STATE = {
    "weight": torch.arange(6.0).view(2, 3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "scale": torch.tensor(2.0),
    "count": torch.arange(3).to(torch.uint64),
    "none": torch.zeros(0, 4),
    "numpy's": torch.as_tensor(np.empty(0, np.uint64)),
    'ä/"\x07': torch.zeros(2, dtype=torch.bool),
}
DAMAGED = "is damaged or half-downloaded"


def saved(folder: Path, kind: str, state: object = STATE) -> Path:
    path = folder / f"weights.{kind}"
    if kind == "safetensors":
        weights.save(path, state)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "pt")
    return path


@pytest.mark.parametrize("kind", ["safetensors", "pt", "pth"])
def test_tensors_are_read_as_they_were_written(tmp_path: Path, kind: str) -> None:
    state = {name: value for name, value in STATE.items() if kind != "pth" or value.dtype != torch.uint64}
    found = weights.read(saved(tmp_path, kind, state))
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)


def test_what_is_saved_has_a_digest_the_same_bytes_each_time_and_any_reader(tmp_path: Path) -> None:
    contents = {saved(tmp_path, "safetensors").read_bytes() for _ in range(8)}
    assert len(contents) == 1
    path = tmp_path / "weights.safetensors"
    assert torch.equal(safetensors.torch.load_file(path)["weight"], STATE["weight"])
    with safetensors.safe_open(path, "pt") as opened:
        assert opened.metadata()["format"] == "pt" and len(opened.metadata()["digest"]) == 32


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_any_changed_byte_of_a_tensor_is_found(tmp_path: Path, kind: str) -> None:
    state = {"weight": torch.arange(1.0, 9.0)}
    path = saved(tmp_path, kind, state)
    content = path.read_bytes()
    start = content.index(state["weight"].numpy().tobytes())
    for place in range(start, start + 32):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(MissingData, match=DAMAGED):
            weights.read(path)


def test_a_header_as_long_as_a_pickle_begins_is_no_pickle(tmp_path: Path) -> None:
    weights.save(path := tmp_path / "weights.safetensors", STATE, {"note": ""})
    missing = (0x80 - path.read_bytes()[0]) % 256
    weights.save(path, STATE, {"note": missing * " "})
    assert path.read_bytes()[:1] == b"\x80"
    assert weights.read(path).keys() == STATE.keys()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(MissingData, match="digest"):
        weights.read(path)


@pytest.mark.parametrize("kind", ["safetensors", "pt", "pth"])
def test_a_file_that_is_cut_short_anywhere_is_damaged(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, kind)
    content = path.read_bytes()
    for size in range(0, len(content) - 1, 37):
        path.write_bytes(content[:size])
        with pytest.raises(MissingData, match=DAMAGED):
            weights.read(path)


def test_a_file_that_is_absent_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="there is no file"):
        weights.read(tmp_path / "weights.pt")


class Runs:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("kind", ["pt", "pth"])
@pytest.mark.parametrize("content", [{"weight": Runs()}, Runs(), 7, None, "text"])
def test_a_checkpoint_that_holds_anything_but_tensors_and_plain_values_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, content: object
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingData, match=DAMAGED):
        weights.read(saved(tmp_path, kind, content))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02.", b"text", pickle.dumps([1])])
def test_a_file_of_something_else_is_damaged(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "weights.bin").write_bytes(content)
    with pytest.raises(MissingData, match=DAMAGED):
        weights.read(path)


def repacked(path: Path, change: Callable[[str, bytes], bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(name, change(name, content))


def test_a_tensor_that_claims_more_than_the_file_holds_is_damaged(tmp_path: Path) -> None:
    path = saved(tmp_path, "pt", {"weight": torch.ones(10)})
    size, more = b"K\x0a\x85", b"J\xff\xff\xff\x7f\x85"  # (10,) and (2**31 - 1,) as pickles write them
    repacked(path, lambda name, content: content.replace(size, more))
    with pytest.raises(MissingData, match=DAMAGED):
        weights.read(path)


def test_a_compressed_archive_is_refused_before_it_grows(tmp_path: Path) -> None:
    path = saved(tmp_path, "pt", {"weight": torch.zeros(10**6)})
    repacked(path, lambda name, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(MissingData, match="compressed"):
        weights.read(path)


def test_weights_below_the_key_of_a_training_code_are_found(tmp_path: Path) -> None:
    path = saved(tmp_path, "pt", {"model": {"weight": torch.ones(2)}, "epoch": 3})
    assert weights.read(path).keys() == {"weight"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("bias"), "bias has shape none"),
        (lambda state: state.update(more=torch.ones(1)), "more has shape .* none is needed"),
        (
            lambda state: state.update(weight=torch.ones(3, 2)),
            r"weight has shape \(3, 2\), \(2, 3\)",
        ),
        (lambda state: state.update(weight=torch.ones(2, 3).long()), "weight is of torch.int64"),
        (lambda state: state.update(weight=torch.ones(2, 3) * 1j), "weight is of torch.complex64"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_weights_of_another_model_are_named(
    change: Callable[[dict], object], message: str, device: str
) -> None:
    state: dict[str, Tensor] = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    change(state)
    with pytest.raises(BrainhiveError, match=f"here: {message}"):
        weights.fill(nn.Linear(3, 2, device=device), state, "here")


def test_weights_of_which_few_or_none_match_are_refused_with_their_count() -> None:
    module, state = nn.Linear(3, 2), {"weight": torch.ones(3, 2), "bias": torch.ones(2)}
    with pytest.raises(BrainhiveError, match="; 1 of 2 weights match by name and size; first missing weight"):
        weights.fill(module, state, "here")
    with pytest.raises(BrainhiveError, match="; 0 of 2 weights match by name and size; first missing bias"):
        weights.fill(module, {f"model.{name}": value for name, value in state.items()}, "here")


def test_weights_take_the_place_of_a_modules_own(tmp_path: Path) -> None:
    state = {"weight": torch.ones(2, 3).bfloat16(), "bias": torch.ones(2)}
    for device, dtype in {"cpu": torch.float32, "meta": torch.bfloat16}.items():
        weights.fill(module := nn.Linear(3, 2, device=device), state, "here")
        assert module.weight.dtype == dtype and module.weight.sum() == 6


def interrupt() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_while_weights_load_is_no_damage() -> None:
    with pytest.raises(KeyboardInterrupt), weights.reading("the model"):
        interrupt()


def test_what_the_system_reports_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"), weights.reading("the model"):
        raise OSError(28, "No space left on device")
    with pytest.raises(safetensors.SafetensorError), weights.reading("the model"):
        raise safetensors.SafetensorError("I/O error: Permission denied (os error 13)")
    with pytest.raises(RuntimeError), weights.reading("the model"):
        raise RuntimeError("unable to mmap 4096 bytes from file <last.pt>: Cannot allocate memory (12)")


def test_a_checkpoint_is_read_with_its_plain_values_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    path = saved(tmp_path, "pt", {"step": 3, "kept": None, "prior": {"weight": torch.ones(4)}})
    assert weights.read_checkpoint(path)["step"] == 3
    content = path.read_bytes()
    path.write_bytes(content.replace(torch.ones(4).numpy().tobytes(), torch.zeros(4).numpy().tobytes()))
    assert hashlib.md5(content).digest() != hashlib.md5(path.read_bytes()).digest()
    with pytest.raises(BrainhiveError, match="was changed"):
        weights.read_checkpoint(path)


@pytest.mark.parametrize("value", ["", "none", "sha256:" + "0" * 64, "0" * 64, "0" * 31])
def test_what_others_keep_under_our_key_is_no_digest_of_ours(tmp_path: Path, value: str) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"weight": torch.ones(3)}, path, {"digest": value})
    assert weights.read(path).keys() == {"weight"}


@pytest.fixture
def no_crc():
    torch.serialization.set_crc32_options(False)
    yield
    torch.serialization.set_crc32_options(True)


@pytest.mark.usefixtures("no_crc")
def test_an_archive_whose_records_have_no_crc32_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, "pt", {"weight": torch.arange(9.0)})
    assert torch.equal(weights.read(path)["weight"], torch.arange(9.0))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(MissingData, match=DAMAGED):
        weights.read(path)


def most_memory() -> int:
    """Return the most memory since it was last asked for, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    Path("/proc/self/clear_refs").write_text("5")
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads what Linux says of the process")
def test_a_file_is_verified_without_being_held_in_memory(tmp_path: Path) -> None:
    size = 2**28
    weights.save(path := tmp_path / "weights.safetensors", {"weight": torch.ones(size // 4)})
    most_memory()
    before = most_memory()
    weights.verify(path)
    assert most_memory() - before < size / 4
    with path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"!")
    with pytest.raises(MissingData, match="digest"):
        weights.verify(path)


def test_a_mistake_in_a_users_own_network_is_not_called_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_allowed: None
) -> None:
    (tmp_path / "own_network.py").write_text("def build():\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = foreign_code.import_module("own_network", "own_network", "the network own_network")
    with pytest.raises(ZeroDivisionError), weights.reading(tmp_path):
        module.build()
    with pytest.raises(MissingData, match="is damaged"), weights.reading(tmp_path):
        int("1.5")


@pytest.mark.parametrize("mask", [0o002, 0o027])
def test_weights_have_the_mode_of_other_files(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        weights.save(tmp_path / "model.safetensors", {"a": torch.ones(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_names_are_read_without_what_wrappers_put_before_them(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"model.{ending}"

    def write(*names: str) -> None:
        state = {name: torch.full((2,), float(n)) for n, name in enumerate(names)}
        safetensors.torch.save_file(state, path) if ending == "safetensors" else torch.save(
            {"state_dict": state}, path
        )

    write("module._orig_mod.a", "module.b._orig_mod.c")
    assert {*weights.read(path)} == {"a", "b.c"} and weights.read(path)["b.c"][0] == 1

    # a part that is called so, and a folder of plain names
    write("module.a", "b.module.c")
    assert {*weights.read(path)} == {"module.a", "b.module.c"}

    write("a", "_orig_mod.a")
    with pytest.raises(MissingData, match="one name with and without"):
        weights.read(path)
