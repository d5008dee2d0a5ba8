"""Tests of ablations of a reconstruction, which are runs with a common table."""

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.sweep import FULL_VARIANT
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.evaluation.reconstruction.generation import derive_noise_seed
from brainhive_cli.models.priors._fusion_network import FusionPrior
from tests.worlds.reconstructions import (
    COLOURS,
    generate_pictures,
    measure_max_difference,
)

ABLATIONS = (
    "ablations={ceiling: {sources: images}, average: {sources: mean_embedding}, two: "
    "{steps: 1}}"
)


def test_ablations_are_runs_compared_with_the_full_run(
    run_command, prior_align_run, reconstruct_overrides
):
    full_run = run_command("reconstruct", *reconstruct_overrides).folder
    modified_ns = (full_run / "metrics.json").stat().st_mtime_ns

    result = run_command(
        "reconstruct",
        *reconstruct_overrides,
        ABLATIONS,
        "published={source: a paper, values: {pixcorr: 0.5}}",
    )

    table, published = result.tables
    labels = [FULL_VARIANT, "ceiling", "average", "two", "agreement with people"]
    assert [row[0] for row in table.rows] == labels
    metrics = result.metrics
    pixcorr = metrics.scopes[f"{FULL_VARIANT} · brain"]["pixcorr"]
    assert table.rows[0][1].value == pixcorr.value
    comparisons = metrics.facts.comparisons
    variants = dict.fromkeys(difference.second for difference in comparisons)
    assert list(variants) == ["ceiling", "average", "two"]
    for difference in comparisons:
        assert difference.tests_of.startswith("2 metrics × 3 variants")

    # the run without ablations is used again
    run_of = {label: variant.run for label, variant in metrics.facts.variants.items()}
    assert run_of[FULL_VARIANT] == full_run.name
    assert len(set(run_of.values())) == 4
    assert (full_run / "metrics.json").stat().st_mtime_ns == modified_ns
    assert published.columns[0] == "PixCorr"
    assert published.rows == ((0.5, "–"),)
    with pytest.raises(RecipeError, match=result.folder.name):
        run_command(
            "reconstruct", *reconstruct_overrides, f"against={result.folder.name}"
        )


def test_pictures_of_the_mean_embedding_differ_only_by_noise(
    run_command, prior_align_run, reconstruct_overrides, prior, world, generator
):
    result = run_command(
        "reconstruct", *reconstruct_overrides, "sources=mean_embedding"
    )

    (path,) = world.glob("embeddings/demo-noise-0.3-40-concepts/train/*example.h5")
    embedding = torch.from_numpy(np.array(TargetStore.open(path).embedding))
    fusion_prior = FusionPrior.load(str(prior))
    with torch.inference_mode():
        mean = fusion_prior.fuser({COLOURS: embedding}).mean(0, keepdim=True)
    root = result.folder / "samples/mean_embedding"
    files = sorted(root.rglob("00.png"))
    assert len(files) == 3 and len({file.read_bytes() for file in files}) == 3
    image_id = files[0].parent.relative_to(root).as_posix()
    seeds = [derive_noise_seed(0, image_id, 0)]
    (expected,) = generate_pictures(generator, prior, None, seeds, token=mean)
    assert measure_max_difference(expected, Image.open(files[0])) <= 1
