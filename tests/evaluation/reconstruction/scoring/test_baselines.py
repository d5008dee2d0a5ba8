"""Tests of the baselines of a reconstruction."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from brainhive_cli import aligner
from brainhive_cli.data.media.views import to_pictures
from brainhive_cli.data.stores import SignalStore, TargetStore
from brainhive_cli.demo.pictures import draw_scene, list_scenes
from brainhive_cli.evaluation.reconstruction.generation import derive_noise_seed
from brainhive_cli.models.generators import Sampling, sdxl
from brainhive_cli.models.priors._fusion_network import FusionPrior

COLOURS = "brainhive_cli-models-encoders-python-example"
CELL = "sub-01_seed-1/sub-01"


def pixels(picture):
    picture = Image.open(picture) if isinstance(picture, Path) else picture
    return np.asarray(picture.convert("RGB"), np.int16)


def by_hand(world, run_folder, prior):
    """Find the training picture nearest to each token, from the files of the run."""
    model = aligner.load(run_folder / "cells/sub-01_seed-1/model")
    (signals,) = (world / "signals/demo-noise-0.3-40-concepts").rglob("sub-01.h5")
    recording = SignalStore.open(signals)["test"]
    averaged = torch.from_numpy(recording.averages * 0.2)
    (path,) = world.glob("embeddings/demo-noise-0.3-40-concepts/train/*example.h5")
    store = TargetStore.open(path)
    with torch.inference_mode():
        brain = model.encode_signal(
            averaged, torch.zeros(len(averaged), dtype=torch.long)
        )
        fused = FusionPrior.load(str(prior)).fuser(
            {COLOURS: torch.from_numpy(np.array(store.embedding))}
        )
    closest = (normalize(brain, dim=1) @ normalize(fused, dim=1).T).argmax(1)
    return {
        i: store.image_ids[n]
        for i, n in zip(recording.pictures, closest.tolist(), strict=True)
    }


@pytest.mark.nightly
def test_nearest_is_the_training_picture_closest_to_the_token(
    world, shared_prior_align_run, reconstruct_result, prior
):
    result = reconstruct_result
    root = result.folder / "baselines/nearest" / CELL
    files_by_name = {
        file.relative_to(root).with_suffix("").as_posix(): file
        for file in root.rglob("*.png")
    }
    nearest, pictures = (
        by_hand(world, shared_prior_align_run, prior),
        {s.image_id: draw_scene(s) for s in list_scenes("train")},
    )
    assert len(files_by_name) == 3
    for image_id, file in files_by_name.items():
        expected = pictures[nearest[image_id]].resize(
            (32, 32), Image.Resampling.BILINEAR
        )
        assert np.abs(pixels(file) - pixels(expected)).max() <= 1
    metric = result.metrics.scopes["nearest"]["ssim"]
    assert (metric.n, metric.seeds) == (3, (1,))
    assert metric.protocol.startswith(
        "brainhive, the nearest of 240 training pictures by decoded head"
    )
    assert "SSIM" in result.tables[0].columns
    assert "nearest training picture" in [row[0] for row in result.tables[0].rows]


def test_mean_averages_training_pictures_at_the_scoring_size(
    run_command, prior_align_run, reconstruct_overrides
):
    result = run_command(
        "reconstruct", *reconstruct_overrides, "sources=brain,mean", "protocol=mindeye2"
    )

    mean = (
        np.mean(
            [pixels(draw_scene(scene)) for scene in list_scenes("train")[:240]], axis=0
        )
        .round()
        .astype(np.uint8)
    )
    expected = Image.fromarray(mean).resize((256, 256), Image.Resampling.BILINEAR)
    assert (
        np.abs(pixels(result.folder / "baselines/mean.png") - pixels(expected)).max()
        <= 2
    )
    metric = result.metrics.scopes["mean"]["pixcorr"]
    assert metric.protocol == "mindeye2, the mean of 240 training pictures"
    assert (metric.n, metric.seeds) == (3, ())


def test_zeroed_is_generated_without_a_token_from_noise_alone(
    run_command, prior_align_run, reconstruct_overrides, generator, prior
):
    result = run_command("reconstruct", *reconstruct_overrides, "sources=zeroed")

    files = sorted((result.folder / "samples/zeroed").rglob("*.png"))
    image_id = files[0].parent.relative_to(result.folder / "samples/zeroed").as_posix()
    made, fusion = (
        sdxl.Config(source=str(generator)).build(),
        FusionPrior.load(str(prior)),
    )
    fusion.attach(made)
    with torch.inference_mode():
        drawn = made.generate(
            fusion.null(1, [0]),
            [derive_noise_seed(0, image_id, 0)],
            32,
            Sampling(steps=2),
        )
    assert len(files) == 6
    assert np.abs(pixels(files[0]) - pixels(to_pictures(drawn)[0])).max() <= 1
    assert "strength" not in result.metrics.overall["ssim"].protocol
    assert result.metrics.overall["ssim"].seeds == ()
