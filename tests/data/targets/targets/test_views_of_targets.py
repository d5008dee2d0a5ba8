"""Views of targets, their rows in stores, and features of all splits."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media import StimulusSet
from brainhive_cli.data.stores import StorePlan, TargetStore, TargetWriter
from brainhive_cli.data.targets import (
    OnlineTargets,
    find_features,
    likeness,
)
from brainhive_cli.data.targets.embedding import embed_stimuli
from brainhive_cli.data.targets.encoder_groups import Network

HERE = Launch(0, 1, torch.device("cpu"))
COUNT = 60


def vectors(seed=0, width=6):
    """Draw vectors of twelve concepts, some of which are nearly equal."""
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(12, width)), 5, 0)
    noisy = centres + 0.5 * random.normal(size=centres.shape) + 0.2
    noisy[7] = noisy[3] * 2
    return noisy.astype(np.float32)


def store(path, values, lacks=()):
    """Write vectors, and skip some."""
    ids = [f"c{row // 5}/{row}" for row in range(COUNT)]
    concepts = [f"c{row // 5}" for row in range(COUNT)]
    StorePlan(
        path, ids, concepts, values.shape[1:], "float32", {"encoder": "e"}
    ).create()
    writer = TargetWriter(path)
    rows = np.array([row for row in range(COUNT) if row not in lacks])
    writer.write(rows, values[rows])
    writer.close()
    writer.finish()
    return TargetStore.open(path)


def test_features_of_all_splits_have_common_axes(tmp_path, monkeypatch):
    """They come from the encoder with the fewest values."""
    few_vectors, other_vectors, many_vectors = vectors(), vectors(3), vectors(1, 12)
    stores = {
        "test": {
            "many": store(tmp_path / "many.h5", many_vectors),
            "few": store(tmp_path / "few.h5", few_vectors),
        },
        "train": {
            "many": store(tmp_path / "many_train.h5", many_vectors),
            "few": store(
                tmp_path / "few_train.h5",
                np.vstack([other_vectors[:30], few_vectors[30:]]),
            ),
        },
    }

    features = find_features(stores)

    assert features["test"].shape == features["train"].shape == (COUNT, 6)
    np.testing.assert_allclose(features["test"][30:], features["train"][30:])
    assert not np.allclose(features["test"][:30], features["train"][:30])

    # a further split that is too large is not read
    monkeypatch.setattr(likeness, "MAX_VALUES", 6 * COUNT - 1)
    features = find_features(stores)
    assert features["test"].any()
    assert not features["train"].any()


@pytest.mark.parametrize(("count", "has_several"), [(1, False), (3, True)])
def test_one_of_several_views_is_chosen(count, has_several):
    values = torch.arange(12.0).reshape(2, 3, 2)
    online = SimpleNamespace(alternatives=count, combines=True)
    online_targets = OnlineTargets.choose(online, values, torch.tensor([2, 0]))
    expected = torch.stack([values[0, 2], values[1, 0]]) if has_several else values
    assert torch.equal(online_targets, expected)
    online.combines = False
    assert torch.equal(OnlineTargets.choose(online, values, None), values)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_that_autocast_would_cast_are_cast_once(precision):
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm(4), nn.Linear(4, 4))
    network = Network((), precision, HERE)
    vars(network)["encoder"] = SimpleNamespace(module=module)

    cast = network.module

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    assert [layer.weight.dtype for layer in cast] == [dtype, torch.float32, dtype]
    assert not any(weight.requires_grad for weight in cast.parameters())


def test_each_store_gets_the_rows_that_it_lacks():
    """In batches of which one lacks nothing for an encoder."""
    names = Names.of(map(str, range(8)))
    images = StimulusSet(
        "greys", "train", names, names, lambda row: Image.new("RGB", (2, 2), (row,) * 3)
    )
    written_rows = {"a": {}, "b": {}, "b2": {}}

    def group(*members, factor):
        return SimpleNamespace(
            name=members[0],
            names=members,
            view=lambda picture: torch.tensor([float(picture.getpixel((0, 0))[0])]),
            reader=lambda images: None,
            encode=lambda views: {
                name: factor * views + number for number, name in enumerate(members)
            },
        )

    def writer(name):
        def write(rows, values, **fields):
            assert len(rows) == len(values) == len(fields["pixels"])
            written_rows[name] |= dict(
                zip(rows.tolist(), values[:, 0].tolist(), strict=True)
            )

        return SimpleNamespace(write=write, pending_rows=lacks[name])

    lacks = {"a": [0, 1, 2], "b": [0, 2, 4, 6], "b2": [6, 7]}
    counts = []
    bar = SimpleNamespace(advance=counts.append, expect=counts.append)

    bad = embed_stimuli(
        images,
        [group("a", factor=10), group("b", "b2", factor=100)],
        {name: writer(name) for name in written_rows},
        2,
        0,
        HERE,
        bar,
    )

    assert written_rows == {
        "a": {row: 10.0 * row for row in range(3)},
        "b": {row: 100.0 * row for row in (0, 2, 4, 6)},
        "b2": {row: 100.0 * row + 1 for row in (6, 7)},
    }
    # two rows are there already, the other six are read
    assert not bad
    assert (counts[0], sum(counts[1:])) == (-2, 6)
