"""Weights: sound files are read as they are; whatever is wrong with one is an error
that names it.
"""

import os
from dataclasses import dataclass

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.runs import weights

STATE = {
    "weight": torch.arange(6.0).view(2, 3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "scale": torch.tensor(2.0),
    "count": torch.arange(3).to(torch.uint64),
    "none": torch.zeros(0, 4),
    "numpy's": torch.as_tensor(np.empty(0, np.uint64)),
    'ä/"\x07': torch.zeros(2, dtype=torch.bool),
}
DAMAGED = "damaged"


def saved(folder, kind, state=STATE):
    path = folder / f"weights.{kind}"
    if kind == "safetensors":
        weights.save(path, state)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "pt")
    return path


@pytest.mark.parametrize("kind", ["safetensors", "pt", "pth"])
def test_tensors_are_read_as_they_were_written(tmp_path, kind):
    state = {
        name: value
        for name, value in STATE.items()
        if kind != "pth" or value.dtype != torch.uint64
    }
    tensors = weights.read(saved(tmp_path, kind, state))
    assert tensors.keys() == state.keys()
    for name, value in state.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value)


def test_saved_weights_have_a_digest_and_reproducible_bytes(
    tmp_path,
):
    contents = {saved(tmp_path, "safetensors").read_bytes() for _ in range(8)}
    assert len(contents) == 1
    path = tmp_path / "weights.safetensors"
    assert torch.equal(safetensors.torch.load_file(path)["weight"], STATE["weight"])
    with safetensors.safe_open(path, "pt") as weights_file:
        assert weights_file.metadata()["format"] == "pt"
        assert len(weights_file.metadata()["digest"]) == 32


@pytest.mark.parametrize(
    "other_tensors",
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
def test_the_digest_is_of_names_dtypes_shapes_and_values(tmp_path, other_tensors):
    state = {"a": torch.arange(6.0), "b": torch.zeros(2)}
    digests = []
    for number, tensors in enumerate(
        (state, dict(reversed(state.items())), other_tensors)
    ):
        path = tmp_path / f"{number}.safetensors"
        weights.save(path, tensors, {"number": str(number)})
        digests.append(weights.read_digest(path))
    assert digests[0] == digests[1] != digests[2]


def test_tensors_under_each_others_names_are_damage(tmp_path):
    state = {"a": torch.arange(4.0), "b": torch.arange(4.0, 8)}
    path = saved(tmp_path, "safetensors", state)
    with safetensors.safe_open(path, "pt") as weights_file:
        metadata = weights_file.metadata()
    swapped = {"a": state["b"], "b": state["a"]}
    safetensors.torch.save_file(swapped, path, metadata)
    with pytest.raises(MissingData, match=DAMAGED):
        weights.read(path)
    # what another program wrote has no digest of ours
    safetensors.torch.save_file(swapped, path, {"digest": "its own"})
    assert torch.equal(weights.read(path)["a"], state["b"])


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_changed_bytes_and_truncated_weights_are_found(tmp_path, kind):
    state = {"weight": torch.arange(1.0, 9.0)}
    path = saved(tmp_path, kind, state)
    content = path.read_bytes()
    position = content.index(state["weight"].numpy().tobytes()) + 5
    changed = (
        content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
    )
    for damaged in (changed, b"") + tuple(
        content[:size] for size in range(0, len(content) - 1, 137)
    ):
        path.write_bytes(damaged)
        with pytest.raises(MissingData, match=DAMAGED):
            weights.read(path)
    path.unlink()
    with pytest.raises(MissingData, match=path.name):
        weights.read(path)


class Runs:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("kind", ["pt", "pth"])
def test_a_checkpoint_with_foreign_objects_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    for content in ({"weight": Runs()}, 7):
        with pytest.raises(MissingData, match=DAMAGED):
            weights.read(saved(tmp_path, kind, content))
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_model_are_refused_with_a_count():
    fit = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    for change, facts in (
        ({"bias": None}, ["bias", "none"]),
        ({"more": torch.ones(1)}, ["more", "none"]),
        ({"weight": torch.ones(3, 2)}, ["weight", "(3, 2)", "(2, 3)", "1 of 2"]),
        ({"weight": torch.ones(2, 3).long()}, ["weight", "torch.int64"]),
    ):
        state = {
            name: value
            for name, value in {**fit, **change}.items()
            if value is not None
        }
        for device in ("cpu", "meta"):
            with pytest.raises(BrainhiveError) as caught:
                weights.fill(nn.Linear(3, 2, device=device), state, "here")
            assert caught.value.message.startswith("here")
            assert all(fact in caught.value.message for fact in facts)


def test_names_are_read_without_what_wrappers_put_before_them(tmp_path):
    path = tmp_path / "model.pt"

    def write(*names):
        torch.save(
            {
                "state_dict": {
                    name: torch.full((2,), float(n)) for n, name in enumerate(names)
                }
            },
            path,
        )

    write("module._orig_mod.a", "module.b._orig_mod.c")
    assert set(weights.read(path)) == {"a", "b.c"}
    assert weights.read(path)["b.c"][0] == 1

    # a part that is called so, and a folder of plain names
    write("module.a", "b.module.c")
    assert set(weights.read(path)) == {"module.a", "b.module.c"}

    write("a", "_orig_mod.a")
    with pytest.raises(MissingData, match="_orig_mod"):
        weights.read(path)


def test_weights_are_found_in_each_format_and_in_wrappers(
    tmp_path,
):
    state = {"a": torch.ones(2), "b": torch.zeros(1)}
    for kind in ("safetensors", "pt", "pth"):
        assert sorted(weights.list_names(saved(tmp_path, kind, state))) == ["a", "b"]
    path = saved(tmp_path, "pt", {"model": {"state_dict": state, "epoch": 3}})
    assert set(weights.read(path)) == {"a", "b"} == set(weights.list_names(path))
    path = saved(tmp_path, "pt", {"teacher": {"a": torch.ones(2), "step": 3}})
    assert list(weights.read(path)) == ["a"]
    for content in ([torch.ones(1)], {"model": 3}):
        with pytest.raises(MissingData):
            weights.read(saved(tmp_path, "pt", content))
    with pytest.raises(BrainhiveError):
        weights.read_checkpoint(saved(tmp_path, "pt", [1]))


@pytest.mark.parametrize(
    ("names", "expected_names"),
    [
        (["_orig_mod.a", "b._orig_mod.c"], ["a", "b.c"]),
        (["module.a", "module.b"], ["a", "b"]),
        (["module.module.a", "module.module.b"], ["a", "b"]),
        (["module._orig_mod.a"], ["a"]),
        (["module.a", "b"], ["module.a", "b"]),
        (["x_orig_mod.a"], ["x_orig_mod.a"]),
        ([], []),
    ],
)
def test_wrappers_of_names_are_taken_off(names, expected_names):
    assert weights.strip_wrapper_names(names) == dict(
        zip(names, expected_names, strict=True)
    )
    if names:
        with pytest.raises(ValueError):
            weights.strip_wrapper_names(["a", "_orig_mod.a"])


def test_a_file_says_who_wrote_it(tmp_path):
    path = tmp_path / "a.safetensors"
    weights.save(path, {"a": torch.ones(2)}, {"more": "x"})
    metadata = weights.read_metadata(path)
    assert metadata["more"] == "x"
    assert metadata["format"] == "pt"
    digest = weights.read_digest(path)
    assert digest == metadata["digest"]
    assert len(digest) == 32
    safetensors.torch.save_file({"a": torch.ones(2)}, path, {"digest": "theirs"})
    weights.verify(path)
    assert weights.read_digest(path) == "theirs"
    safetensors.torch.save_file({"a": torch.ones(2)}, path, {"digest": "0" * 32})
    with pytest.raises(MissingData):
        weights.verify(path)
    safetensors.torch.save_file({"a": torch.ones(2)}, path)
    assert weights.read_digest(path) == ""
    assert weights.read_metadata(path) == {}
    assert weights.read_metadata(saved(tmp_path, "pt")) == {}


def test_a_saved_file_has_the_rights_that_the_user_gives_files(tmp_path):
    initial_umask = os.umask(0o027)
    try:
        weights.save(tmp_path / "a.safetensors", {"a": torch.ones(2)})
    finally:
        os.umask(initial_umask)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640


def test_weights_match_by_name_size_and_kind_of_number():
    module = nn.Linear(2, 3)
    state = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    weights.fill(module, state, "here")
    assert torch.equal(module.weight.data, state["weight"])
    required_weights = module.state_dict()
    cases = {
        "weight": {**state, "weight": torch.ones(2, 3)},
        "bias": {"weight": state["weight"]},
        "extra": {**state, "extra": torch.ones(1)},
    }
    for name, changed in cases.items():
        with pytest.raises(MissingData) as caught:
            weights.fill(module, changed, "here", "do", MissingData)
        assert f"here: {name} has shape" in caught.value.message
        unmatched = weights.find_unmatched(required_weights, changed)
        assert unmatched == ([name] if name in required_weights else [])
    with pytest.raises(BrainhiveError):
        weights.fill(module, {**state, "bias": torch.zeros(3, dtype=torch.int64)}, "x")
    assert weights.describe_match(["b", "a"], 5).startswith("3 of 5")
    assert weights.describe_match(["b", "a"], 5).endswith(" a")
    assert weights.describe_match([], 2).startswith("2 of 2")
    # a module without memory takes weights as they are
    with torch.device("meta"):
        hollow = nn.Linear(2, 3)
    half_precision = {name: value.half() for name, value in state.items()}
    weights.fill(hollow, half_precision, "here")
    assert hollow.weight.dtype == torch.float16
    assert not hollow.weight.is_meta
    weights.fill(module, half_precision, "here")
    assert module.weight.dtype == torch.float32


@dataclass(frozen=True)
class Curve:
    """A value of a cell."""

    name: str
    values: np.ndarray


def test_a_cell_is_read_back_as_it_was_measured(tmp_path):
    path = tmp_path / "cell.safetensors"
    backwards = np.arange(3)[::-1]
    result = {
        3: (1, [Curve("a", backwards), Curve("b", np.ones((2, 0)))]),
        "x": {"y": None, "z": np.float32(0.5)},
        "list": [],
    }
    weights.save_cell(path, result)
    cell = weights.load_cell(path, Curve)
    assert list(cell) == [3, "x", "list"]
    assert cell["list"] == []
    assert cell["x"] == {"y": None, "z": 0.5}
    assert type(cell["x"]["z"]) is float
    assert type(cell[3]) is tuple
    assert type(cell[3][1]) is list
    first_row, second = cell[3][1]
    assert first_row.name == "a"
    assert first_row.values.tolist() == [2, 1, 0]
    assert second.values.shape == (2, 0)
    with pytest.raises(BrainhiveError):
        weights.load_cell(path)
    weights.save(path, {"0": torch.ones(1)})
    with pytest.raises(BrainhiveError):
        weights.load_cell(path, Curve)


def test_a_long_reason_is_cut_and_an_error_of_the_machine_passes():
    with pytest.raises(MissingData) as caught, weights.reading("here", "do"):
        raise ValueError("x" * 201)
    assert caught.value.hint == "do"
    assert caught.value.message.endswith("x" * 200 + "…")
    with pytest.raises(MissingData) as caught, weights.reading("here", "do"):
        raise ValueError("x" * 200)
    assert caught.value.message.endswith(" " + "x" * 200)
    with pytest.raises(MissingData) as caught, weights.reading("here"):
        raise KeyError
    assert caught.value.message.endswith("KeyError")
    for error in (OSError(28, "full"), MemoryError(), BrainhiveError("ours")):
        with pytest.raises(type(error)) as passed, weights.reading("here"):
            raise error
        assert passed.value is error


def test_arrays_and_their_digest_are_read_by_numpy_as_by_torch(tmp_path):
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.zeros(0, 4, dtype=torch.int64),
        "c": torch.tensor([True, False]),
    }
    weights.save(tmp_path / "arrays.safetensors", tensors)
    arrays = weights.read_arrays(tmp_path / "arrays.safetensors")
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "a": "float32",
        "b": "int64",
        "c": "bool",
    }
    assert all((arrays[name] == tensors[name].numpy()).all() for name in tensors)

    # a dtype that NumPy lacks is verified by torch
    tensors["d"] = torch.ones(3, dtype=torch.bfloat16)
    file = tmp_path / "weights.safetensors"
    weights.save(file, tensors)
    weights.verify(file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(MissingData, match="digest"):
        weights.verify(file)
