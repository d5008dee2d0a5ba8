"""Targets of any shape: held on the device, gathered from the file, or computed."""

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.stores import StorePlan, TargetStore, TargetWriter
from brainhive_cli.data.targets import (
    OnlineTargets,
    StoreTargets,
    Targets,
    group_encoders,
    targets,
)
from brainhive_cli.models.encoders import timm

ALONE = Launch(0, 1, torch.device("cpu"))
IDS = [f"p{number}" for number in range(6)]


def write_store(path, shape, dtype="float32", **attributes):
    StorePlan(
        path, IDS, IDS, shape, dtype, {"encoder": path.stem, **attributes}
    ).create()
    writer = TargetWriter(path)
    writer.write(
        np.arange(6), np.random.default_rng(0).normal(size=(6,) + tuple(shape))
    )
    writer.close()
    writer.finish()
    return TargetStore.open(path)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((5,), "float32"), ((4, 2, 2), "float16")]
)
def test_targets_are_equal_on_the_device_and_in_the_file(tmp_path, shape, dtype):
    store = write_store(tmp_path / "one.h5", shape, dtype)
    rows = np.array([4, 0, 0])

    for on_device in (True, False):
        sources = Targets.from_stores({"one": store}, ALONE, {"one": "key"}, on_device)
        assert sources.shapes == {"key": shape}
        for index in (rows, torch.from_numpy(rows)):
            values = sources.gather(index)["key"]
            assert values.dtype == torch.float32
            assert np.array_equal(values, store.embedding[rows].astype(np.float32))


@pytest.mark.parametrize(("spare_bytes", "is_on_device"), [(0, True), (-4, False)])
def test_targets_above_half_of_the_free_memory_stay_on_disk(
    tmp_path, monkeypatch, spare_bytes, is_on_device
):
    store = write_store(tmp_path / "one.h5", (5,))
    monkeypatch.setattr(
        targets,
        "count_free_bytes",
        lambda device: 2 * store.embedding.nbytes + spare_bytes,
    )

    source = Targets.from_stores({"one": store}, ALONE).sources["one"]

    assert isinstance(source, StoreTargets)
    assert isinstance(source.values, torch.Tensor) == is_on_device


def test_tokens_are_refused_where_vectors_are_fused(tmp_path):
    tokens = Targets.from_stores(
        {name: write_store(tmp_path / f"{name}.h5", (3, 4)) for name in ("a",)}, ALONE
    )
    with pytest.raises(BrainhiveError, match=r"\ba\b.*\[3, 4\]"):
        _ = tokens.dims
    assert Targets.from_stores(
        {"b": write_store(tmp_path / "b.h5", (5,))}, ALONE
    ).dims == {"b": 5}


def test_online_targets_of_several_outputs_take_one_forward_pass():
    configs = [
        timm.TINY.model_copy(update={"output": output})
        for output in ("class", "patches")
    ]
    pictures = [
        Image.new("RGB", (40, 40), colour) for colour in ("red", "green", "blue")
    ]
    names = Names.of(["red", "green", "blue"])
    stimuli = StimulusSet("colours", "train", names, names, pictures.__getitem__)
    (group,) = group_encoders(configs, "fp32", ALONE)
    online = Targets(
        {name: OnlineTargets(stimuli, group, name) for name in group.names}
    )
    passes = []
    group.network.module.register_forward_hook(lambda *_: passes.append(1))

    gathered = online.gather(np.array([2, 0]))

    assert len(passes) == 1
    assert online.groups == [group]
    for config in configs:
        encoder = config.build()
        views = torch.stack([encoder.preprocess(pictures[row]) for row in (2, 0)])
        with torch.no_grad():
            torch.testing.assert_close(gathered[config.name], encoder.module(views))
    assert {len(shape) for shape in online.shapes.values()} == {1, 2}


@pytest.mark.parametrize("on_device", [True, False])
def test_each_row_takes_the_alternative_that_is_named(tmp_path, on_device):
    several_store = write_store(tmp_path / "several.h5", (3, 5), alternatives=3)
    store = write_store(tmp_path / "further.h5", (5,))
    source = StoreTargets.from_store(several_store, ALONE.device, on_device, [store])
    assert source.shape == (5,)
    assert source.alternatives == 4

    gathered = source.gather(np.array([1, 0, 5, 5]), torch.tensor([2, 0, 3, 1]))

    expected = [
        several_store.embedding[1, 2],
        several_store.embedding[0, 0],
        store.embedding[5],
        several_store.embedding[5, 1],
    ]
    assert np.array_equal(gathered, np.stack(expected))
    assert np.array_equal(source.gather(np.array([4])), several_store.embedding[[4], 0])
