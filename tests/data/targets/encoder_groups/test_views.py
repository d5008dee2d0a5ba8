"""Groups of encoders encode a view of a stimulus, all views or their average."""

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.base import BrainhiveError, MissingData, console
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media.stimuli import Clip, StimulusSet
from brainhive_cli.data.stores import StorePlan, TargetStore, TargetWriter
from brainhive_cli.data.targets.embedding import embed_stimuli
from brainhive_cli.data.targets.encoder_groups import (
    Network,
    _combine,
    count_alternatives,
    count_views,
    encode,
    get_target_shape,
    group_encoders,
    open_pictures,
)
from brainhive_cli.data.targets.targets import OnlineTargets, Targets
from brainhive_cli.models.encoders import timm
from brainhive_cli.models.encoders.python import Config as Python

ALONE = Launch(0, 1, torch.device("cpu"))
COLOURS = "python:brainhive_cli.models.encoders.python:example"
FRAMES = 3


def encoder(views="each", **knobs):
    return Python(source=COLOURS, views=views, **knobs)


def clips(count=4, frames=FRAMES, **facts):
    """Make different clips of noise, or pictures if `frames` is None."""

    def read_clip(row):
        random = np.random.default_rng(row)
        pixels = random.integers(0, 256, (frames or 1, 8, 8, 3), np.uint8)
        return Clip(pixels, None) if frames else Image.fromarray(pixels[0])

    names = Names.of(f"p{row}" for row in range(count))
    return StimulusSet("set", "train", names, names, read_clip, frames=frames, **facts)


def encode_frames(stimuli, row):
    """Encode each frame without the others, as [F, 12]."""
    clip = stimuli.open(row)
    built = encoder().build()
    pictures = clip.to_pictures() if isinstance(clip, Clip) else [clip]
    return torch.stack(
        [built.module(built.preprocess(picture)[None])[0] for picture in pictures]
    )


def online(configs, stimuli):
    groups = group_encoders(configs, "fp32", ALONE)
    sources = {
        name: OnlineTargets(stimuli, group, name)
        for group in groups
        for name in group.names
    }
    return Targets(sources)


ROWS = np.array([2, 0, 2])


@pytest.mark.parametrize("views", ["each", "all", "average", 2])
def test_frames_are_targets_of_their_own_or_one(code_allowed, views):
    stimuli, config = clips(), encoder(views)
    stacked = torch.stack([encode_frames(stimuli, row) for row in ROWS])
    expected = {
        "each": stacked[:, 0],
        "all": stacked,
        "average": stacked.mean(1),
        2: stacked[:, 2],
    }[views]

    targets = online([config], stimuli)

    (target,) = targets.gather(ROWS).values()
    torch.testing.assert_close(target, expected)
    assert targets.shapes == {config.name: tuple(expected.shape[1:])}
    counts = {config.name: FRAMES} if views == "each" else {}
    assert targets.alternatives == counts
    assert targets.done.tolist() == [True] * 4
    if views == "each":
        alternatives = {config.name: torch.tensor([2, 0, 1])}
        (target,) = targets.gather(ROWS, choices=alternatives).values()
        torch.testing.assert_close(target, stacked[range(3), [2, 0, 1]])


def test_encoders_that_see_the_same_share_a_pass(code_allowed):
    stimuli = clips()
    configs = [encoder("average"), encoder("each"), encoder(1)]
    groups = group_encoders(configs, "fp32", ALONE)
    assert len({id(group.network) for group in groups}) == 1
    targets = online(configs, stimuli).gather(ROWS)
    stacked = torch.stack([encode_frames(stimuli, row) for row in ROWS])
    for config, expected in zip(
        configs, (stacked.mean(1), stacked[:, 0], stacked[:, 1]), strict=True
    ):
        torch.testing.assert_close(targets[config.name], expected)


@pytest.mark.parametrize("block", [2, 512])
def test_many_stimuli_are_encoded_in_blocks(code_allowed, monkeypatch, block):
    from brainhive_cli.data.targets import targets

    monkeypatch.setattr(targets, "MAX_ONLINE_STIMULI", block)
    stimuli, config = clips(5), encoder()
    tensor, rows = torch.tensor([1, 0, 2, 1, 2]), np.arange(5)
    (target,) = (
        online([config], stimuli).gather(rows, None, {config.name: tensor}).values()
    )
    expected = [encode_frames(stimuli, row)[tensor[row]] for row in rows]
    torch.testing.assert_close(target, torch.stack(expected))


def test_pictures_have_one_view(code_allowed):
    pictures = clips(frames=None)
    assert count_views(encoder(), pictures) is None
    for views in ("all", "average", 0):
        with pytest.raises(MissingData):
            count_views(encoder(views), pictures)
    (target,) = online([encoder()], pictures).gather(ROWS).values()
    expected = torch.cat([encode_frames(pictures, row) for row in ROWS])
    torch.testing.assert_close(target, expected)


@pytest.mark.parametrize(
    ("views", "views_each", "count", "shape"),
    [
        ("each", 3, 3, (12,)),
        ("all", 3, None, (3, 12)),
        ("average", None, None, (12,)),
        (0, None, None, (12,)),
        (2, None, None, (12,)),
    ],
)
def test_views_of_a_clip_are_counted(views, views_each, count, shape):
    config, stimuli = encoder(views), clips()
    assert count_views(config, stimuli) == views_each
    assert count_alternatives(config, stimuli) == count
    assert get_target_shape(config, (12,), stimuli) == shape
    with pytest.raises(MissingData):
        count_views(encoder(3), stimuli)


def test_what_a_data_set_lacks_is_refused():
    captioned = clips(frames=None, captions=lambda row: ["a"], captions_each=5)
    texts = encoder(reads="captions")
    assert count_views(texts, captioned) == count_alternatives(texts, captioned) == 5
    assert count_views(encoder(), captioned) is None
    for reads in ("captions", "masks"):
        with pytest.raises(MissingData):
            count_views(encoder(reads=reads), clips())
    masked = clips(masks=lambda row: np.zeros((FRAMES, 2, 2), np.uint8))
    assert count_views(encoder(reads="masks"), masked) == FRAMES


def test_equal_views_count_once_in_an_average():
    views = torch.tensor([[[1.0], [2.0], [1.0]], [[3.0], [4.0], [5.0]]])
    targets = torch.tensor([[[2.0], [8.0], [2.0]], [[3.0], [6.0], [9.0]]])
    assert _combine(targets, views, "average").tolist() == [[5.0], [6.0]]
    assert _combine(targets, views, "first").tolist() == [[2.0], [3.0]]
    assert _combine(targets, views, "all") is targets
    assert _combine(targets, views, "") is targets


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_weights_are_cast_as_autocast_would(precision, dtype):
    module = Network([timm.TINY], precision, ALONE).module
    kinds = {
        type(layer): parameter.dtype
        for layer in module.modules()
        for parameter in layer.parameters(recurse=False)
    }
    cast = [
        expected_kind
        for kind, expected_kind in kinds.items()
        if issubclass(kind, torch.nn.Linear | torch.nn.Conv2d)
    ]
    other_weights = [
        expected_kind
        for kind, expected_kind in kinds.items()
        if issubclass(kind, torch.nn.LayerNorm)
    ]
    assert set(cast) == {dtype}
    assert set(other_weights) == {torch.float32}
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize(
    "output", ["text", torch.ones(3), torch.ones(2, 4), [torch.ones(3, 2), None]]
)
def test_outputs_that_are_not_one_a_picture_are_refused(output):
    class Module(torch.nn.Module):
        def forward(self, pictures):
            return output

    with pytest.raises(BrainhiveError):
        encode(Module(), torch.ones(3, 3, 4, 4), "fp32", ALONE)


def test_outputs_are_copies_and_carry_gradients_if_asked():
    pictures = torch.ones(2, 3, 1, 1, requires_grad=True)
    network = torch.nn.Flatten()
    (frozen,) = encode(network, pictures, "fp32", ALONE)
    (learning,) = encode(network, pictures, "fp32", ALONE, is_frozen=False)
    assert not frozen.requires_grad
    assert learning.requires_grad
    assert frozen.dtype == torch.float32
    assert frozen.data_ptr() != pictures.data_ptr()


def test_other_pictures_are_found_by_the_ends_of_ids(tmp_path):
    stimuli = clips(2)
    for name, level in (("made/p1.png", 90), ("p0.jpg", 30), ("more.txt", 0)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith("txt"):
            (tmp_path / name).touch()
        else:
            Image.new("L", (4, 4), level).save(tmp_path / name)
    pictures = open_pictures(str(tmp_path), stimuli)
    assert [pictures(row).getpixel((0, 0))[0] for row in (0, 1)] == [30, 90]
    with pytest.raises(MissingData):
        open_pictures(str(tmp_path), clips(3))
    with pytest.raises(MissingData):
        open_pictures(str(tmp_path / "none"), stimuli)


def begin(path, count, finished_rows):
    ids = [f"p{row}" for row in range(count)]
    StorePlan(path, ids, ids, (12,), "float32", {}, has_pixels=True).create()
    writer = TargetWriter(path)
    rows = np.array(finished_rows, int)
    zeros = np.zeros((len(rows), 12), np.float32)
    writer.write(rows, zeros, pixels=np.zeros((len(rows), 25), np.uint64))
    writer.close()
    return TargetWriter(path)


def test_only_what_a_store_lacks_is_written(code_allowed, tmp_path):
    """The second encoder needs none of the pictures of the first batch."""
    stimuli = clips(5, frames=None)
    configs = [encoder(), encoder(degrade="noise-1")]
    groups = group_encoders(configs, "fp32", ALONE)
    finished_rows = {configs[0].name: [1], configs[1].name: [0, 1, 2]}
    writers = {
        name: begin(tmp_path / f"{number}.h5", 5, rows)
        for number, (name, rows) in enumerate(finished_rows.items())
    }

    with console.progress("embedding", 5) as bar:
        bad = embed_stimuli(stimuli, groups, writers, 2, 0, ALONE, bar)

    assert bad == []
    for number, (name, rows) in enumerate(finished_rows.items()):
        writers[name].close()
        writers[name].finish()
        store = TargetStore.open(tmp_path / f"{number}.h5")
        values = np.asarray(store.embedding[:])
        assert np.flatnonzero(~values.any(1)).tolist() == rows
        assert store.done.all()
        assert store.pixels is not None
        assert np.flatnonzero(~store.pixels.any(1)).tolist() == rows
        if number == 0:
            expected = encode_frames(stimuli, 4)[0].numpy()
            assert values[4] == pytest.approx(expected)
