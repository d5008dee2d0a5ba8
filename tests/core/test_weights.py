"""Weights: sound files are read as they are; whatever is wrong with one is one error
that names it.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from brainhive_cli.core import weights
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
    state = {
        name: value
        for name, value in STATE.items()
        if kind != "pth" or value.dtype != torch.uint64
    }
    found = weights.read(saved(tmp_path, kind, state))
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)


def test_what_is_saved_has_a_digest_the_same_bytes_each_time_and_any_reader(
    tmp_path: Path,
) -> None:
    contents = {saved(tmp_path, "safetensors").read_bytes() for _ in range(8)}
    assert len(contents) == 1
    path = tmp_path / "weights.safetensors"
    assert torch.equal(safetensors.torch.load_file(path)["weight"], STATE["weight"])
    with safetensors.safe_open(path, "pt") as opened:
        assert (
            opened.metadata()["format"] == "pt"
            and len(opened.metadata()["digest"]) == 32
        )


@pytest.mark.parametrize(
    "other",
    [
        {"b": torch.arange(6.0), "a": torch.zeros(2)},
        {"a": torch.arange(6.0), "c": torch.zeros(2)},
        {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)},
        {"a": torch.arange(6.0), "b": torch.zeros(2, dtype=torch.int32)},
        {"a": torch.arange(6.0), "b": torch.tensor([0.0, 1.0])},
        {"a": torch.arange(6.0)},
        {"a": torch.arange(6.0), "b": torch.zeros(2), "none": torch.zeros(0, 3)},
    ],
    ids=["swapped", "name", "shape", "dtype", "value", "fewer", "empty"],
)
def test_the_digest_is_of_names_dtypes_shapes_and_values(
    tmp_path: Path, other: dict[str, torch.Tensor]
) -> None:
    state = {"a": torch.arange(6.0), "b": torch.zeros(2)}
    digests = []
    for number, tensors in enumerate((state, dict(reversed(state.items())), other)):
        path = tmp_path / f"{number}.safetensors"
        weights.save(path, tensors, {"number": str(number)})
        digests.append(weights.digest_of(path))
    assert digests[0] == digests[1] != digests[2]


def test_tensors_under_each_others_names_are_damage(tmp_path: Path) -> None:
    state = {"a": torch.arange(4.0), "b": torch.arange(4.0, 8)}
    path = saved(tmp_path, "safetensors", state)
    with safetensors.safe_open(path, "pt") as opened:
        about = opened.metadata()
    swapped = {"a": state["b"], "b": state["a"]}
    safetensors.torch.save_file(swapped, path, about)
    with pytest.raises(MissingData, match=DAMAGED):
        weights.read(path)
    # what another program wrote has no digest of ours
    safetensors.torch.save_file(swapped, path, {"digest": "its own"})
    assert torch.equal(weights.read(path)["a"], state["b"])


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_a_changed_byte_of_a_tensor_and_a_file_that_is_cut_short_are_found(
    tmp_path: Path, kind: str
) -> None:
    state = {"weight": torch.arange(1.0, 9.0)}
    path = saved(tmp_path, kind, state)
    content = path.read_bytes()
    place = content.index(state["weight"].numpy().tobytes()) + 5
    changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    for damaged in (
        changed,
        b"",
        *(content[:size] for size in range(0, len(content) - 1, 137)),
    ):
        path.write_bytes(damaged)
        with pytest.raises(MissingData, match=DAMAGED):
            weights.read(path)
    path.unlink()
    with pytest.raises(MissingData, match="there is no file"):
        weights.read(path)


class Runs:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("kind", ["pt", "pth"])
def test_a_checkpoint_that_holds_anything_but_tensors_and_plain_values_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for content in ({"weight": Runs()}, 7):
        with pytest.raises(MissingData, match=DAMAGED):
            weights.read(saved(tmp_path, kind, content))
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_model_are_named_with_the_count_of_those_that_match() -> (
    None
):
    fit = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    for change, message in (
        ({"bias": None}, "bias has shape none"),
        ({"more": torch.ones(1)}, "more has shape .* none is needed"),
        (
            {"weight": torch.ones(3, 2)},
            r"weight has shape \(3, 2\), \(2, 3\).*; 1 of 2 weights match",
        ),
        ({"weight": torch.ones(2, 3).long()}, "weight is of torch.int64"),
    ):
        state = {
            name: value
            for name, value in {**fit, **change}.items()
            if value is not None
        }
        for device in ("cpu", "meta"):
            with pytest.raises(BrainhiveError, match=f"here: {message}"):
                weights.fill(nn.Linear(3, 2, device=device), state, "here")


def test_names_are_read_without_what_wrappers_put_before_them(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"

    def write(*names: str) -> None:
        torch.save(
            {
                "state_dict": {
                    name: torch.full((2,), float(n)) for n, name in enumerate(names)
                }
            },
            path,
        )

    write("module._orig_mod.a", "module.b._orig_mod.c")
    assert {*weights.read(path)} == {"a", "b.c"} and weights.read(path)["b.c"][0] == 1

    # a part that is called so, and a folder of plain names
    write("module.a", "b.module.c")
    assert {*weights.read(path)} == {"module.a", "b.module.c"}

    write("a", "_orig_mod.a")
    with pytest.raises(MissingData, match="one name with and without"):
        weights.read(path)
