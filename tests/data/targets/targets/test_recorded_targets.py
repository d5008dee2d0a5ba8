"""Targets, splits by them, and what is found of them, beside recorded numbers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media import StimulusSet, crop_centre, use_crop_of_original
from brainhive_cli.data.stores import StorePlan, TargetStore, TargetWriter, health
from brainhive_cli.data.stores.health import measure_health
from brainhive_cli.data.targets import (
    OnlineTargets,
    encoder_groups,
    find_features,
    likeness,
    picture_splits,
    targets,
)
from brainhive_cli.data.targets.embedding import embed_stimuli
from brainhive_cli.data.targets.encoder_groups import Network
from brainhive_cli.data.targets.picture_splits import (
    hold_out_clusters,
    match_neighbours,
)
from tests.tools.recorded_numbers import FLOAT32

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


def test_splits_of_pictures(recorded, monkeypatch):
    monkeypatch.setattr(picture_splits, "DRAWS", 30)
    unit = vectors() / np.linalg.norm(vectors(), axis=1, keepdims=True)
    concepts = [f"c{row // 5}" for row in range(COUNT)]
    clusters = hold_out_clusters(unit, concepts, 3)
    neighbours, facts = match_neighbours(unit[::2], 4)
    recorded(
        digits=4,
        clusters=[np.sort(rows) for fold in clusters for rows in fold],
        neighbours=[np.sort(rows) for fold in neighbours for rows in fold],
        facts=facts,
    )


def test_features_of_pictures(recorded, tmp_path, monkeypatch):
    stores = {
        "test": {
            "a": store(tmp_path / "a.h5", vectors(), (4, 31)),
            "b": store(tmp_path / "b.h5", vectors(1, 12).reshape(COUNT, 3, 4)),
        }
    }
    whole_test = find_features(stores)["test"]
    monkeypatch.setattr(likeness, "PICTURES", 16)
    monkeypatch.setattr(likeness, "PICTURES_PER_COMPONENT", 8)
    monkeypatch.setattr(likeness, "COMPONENTS", 3)
    test = find_features(stores)["test"]
    # signs of components are free
    recorded(
        digits=3,
        rounding=FLOAT32,
        whole=whole_test @ whole_test.T,
        found=test @ test.T,
        sizes=list(whole_test.shape) + list(test.shape),
        spread=test.std(0),
    )


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
    assert features["test"].any() and not features["train"].any()


def test_health(recorded, monkeypatch):
    values = vectors(2, 8)
    values[:, 3] = 0.5
    values[11] = values[12] = values[30]
    values[20, 1] = np.nan
    values[40:42] = 0
    rows = np.arange(2, COUNT)
    whole_health = measure_health(values, rows)
    monkeypatch.setattr(health, "MAX_CHECKED_VECTORS", 20)
    monkeypatch.setattr(health, "MAX_PAIRED_VECTORS", 30)
    constant = measure_health(np.ones((COUNT, 2, 3), np.float32), rows)
    figures = [
        [figure for figure, _ in each.list_problems((0.0, 0.2), 0.01, 0)]
        for each in (whole_health, constant)
    ]
    recorded(
        digits=5,
        whole=whole_health,
        sampled=measure_health(values, rows),
        constant=constant,
        figures=figures,
    )


def test_crops(recorded):
    pixels = np.random.default_rng(0).integers(0, 256, (31, 47, 3), np.uint8)
    image = Image.fromarray(pixels)
    crops = [
        crop_centre(picture, 17, resize)
        for picture in (image, image.transpose(Image.Transpose.ROTATE_90))
        for resize in ("lanczos", "bilinear")
    ]
    sizes = torch.stack([size for _, size in crops])
    recorded(
        digits=5,
        pixels=[crop for crop, _ in crops],
        sizes=sizes,
        original=[use_crop_of_original(sizes), use_crop_of_original(sizes / 3)],
    )


def test_views_are_combined(recorded):
    random = torch.Generator().manual_seed(0)
    outputs = torch.randn(2, 4, 3, generator=random)
    views = torch.randn(2, 4, 5, generator=random)
    views[0, 2] = views[0, 0]
    views[1, 1:] = views[1, 0]
    recorded(
        digits=5,
        combined=[
            encoder_groups._combine(outputs, views, name)
            for name in ("first", "average", "all")
        ],
        chosen=targets._choose(outputs, torch.tensor([3, 1])),
        first=targets._choose(outputs, None),
    )


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
    assert not bad and (counts[0], sum(counts[1:])) == (-2, 6)
