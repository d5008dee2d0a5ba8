"""Embeddings and latents of a prior's training, stored or computed when needed."""

import shutil

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.targets.targets import OnlineTargets, StoreTargets
from brainhive_cli.models.generators.sdxl import SDXL
from brainhive_cli.training.prior.examples import load_examples

TIMM = "{kind: timm, source: random, architecture: test_vit}"
COLOURS = "python:brainhive_cli.models.encoders.python:example"
BOTH = f"encoders=['{COLOURS}', {TIMM}]"
ROUNDING = 1e-5
"""Batches of other sizes round differently in float32."""


def embeddings(training):
    batch = next(
        load_examples(training.pictures, range(1), 4, 1, 0, 0, training.launch)
    )
    return training.gather_embeddings(batch)


def test_what_a_prior_cannot_learn_from_is_refused(
    prior_overrides, begin_training, run_command, prior, monkeypatch
):
    with pytest.raises(
        MissingData, match="no train embeddings of local--random"
    ) as caught:
        begin_training(*prior_overrides, BOTH)
    assert "brainhive embed" in caught.value.hint
    assert "--embed-missing" in caught.value.hint
    run_command("embed", prior_overrides[0], f"encoders=[{TIMM}]")
    with pytest.raises(
        BrainhiveError, match=r"takes the encoders brainhive_cli-\S+, not \{kind: timm"
    ):
        own_encoders = [
            prior_override
            for prior_override in prior_overrides
            if not prior_override.startswith("prior=")
        ]
        begin_training(*own_encoders, f"encoders=[{TIMM}]", f"continue_from={prior}")
    monkeypatch.setattr(
        StimulusSet,
        "__post_init__",
        lambda stimuli: vars(stimuli).update(medium="clip"),
    )
    with pytest.raises(RecipeError, match=r"pictures\b.*clips"):
        begin_training(*prior_overrides)


def test_computed_embeddings_are_those_that_a_store_would_hold(
    prior_overrides, begin_training, run_command
):
    dataset = prior_overrides[0]
    # one is stored, the other is not
    missing = begin_training(*prior_overrides, BOTH, "embed_missing=true")
    computed = embeddings(missing)
    none_stored = embeddings(
        begin_training(*prior_overrides, f"encoders=[{TIMM}]", "embed_missing=true")
    )

    run_command("embed", dataset, BOTH)
    stored = embeddings(begin_training(*prior_overrides, BOTH))

    assert [type(source) for source in missing.pictures.targets.sources.values()] == [
        StoreTargets,
        OnlineTargets,
    ]
    assert computed.keys() == stored.keys()
    assert len(stored) == 2
    for name, values in stored.items():
        assert torch.allclose(values, computed[name], atol=ROUNDING), name
    assert all(
        torch.allclose(values, stored[name], atol=ROUNDING)
        for name, values in none_stored.items()
    )


CACHED = "cache_latents=true"


def loss(training):
    return training.compute_loss(
        next(load_examples(training.pictures, range(1), 4, 1, 0, 0, training.launch))
    )


def latents_of(training):
    pictures = training.pictures
    return np.stack(
        [pictures.latents(index)[0].numpy() for index in range(len(pictures.images))]
    )


def stores(home):
    return sorted((home / "latents").rglob("*.h5*"))


def test_training_on_kept_latents_is_training_on_the_pictures(
    prior_overrides, begin_training, home, pictures
):
    from PIL import Image

    resize = Image.open(sorted(pictures.rglob("*.png"))[0]).resize((48, 16))
    resize.save(sorted(pictures.rglob("*.png"))[0])  # so that it is cropped

    uncached_run, cached = (
        begin_training(*prior_overrides),
        begin_training(*prior_overrides, CACHED),
    )

    _, pixels, sizes, _ = uncached_run.pictures.read([0])
    _, latents, cached_sizes, _ = cached.pictures.read([0])
    assert cached_sizes[0].tolist() == sizes[0].tolist() == [16, 48, 0, 32, 32, 32]
    assert pixels[0].shape == (3, 32, 32)
    assert latents[0].shape == (4, 8, 8)
    assert torch.allclose(loss(uncached_run), loss(cached), rtol=ROUNDING)
    shutil.rmtree(pictures / "concept_0")  # nothing is decoded any more
    assert torch.isfinite(loss(cached))
    assert len(stores(home)) == 1


def test_an_interrupted_store_is_completed_and_then_only_read(
    prior_overrides, begin_training, home, monkeypatch
):
    encode, encoded_rows, max_calls = SDXL.encode, list[int](), 1

    def count_call(generator, images, random=None):
        if len(encoded_rows) == max_calls:
            raise KeyboardInterrupt
        encoded_rows.append(len(images))
        return encode(generator, images)

    monkeypatch.setattr(SDXL, "encode", count_call)
    with pytest.raises(KeyboardInterrupt):
        begin_training(*prior_overrides, CACHED)  # after a single batch
    left_stores, max_calls = stores(home), 100
    resumed, second_run = (
        begin_training(*prior_overrides, CACHED),
        begin_training(*prior_overrides, CACHED),
    )

    assert [path.suffix for path in left_stores] == [".part"]
    assert [path.suffix for path in stores(home)] == [".h5"]
    assert encoded_rows == [4, 4, 4]  # of twelve pictures, none was encoded twice
    shutil.rmtree(home / "latents")
    straight = latents_of(begin_training(*prior_overrides, CACHED))
    assert np.array_equal(latents_of(resumed), straight)
    assert np.array_equal(latents_of(second_run), straight)
