"""Tests of the choice of the best candidate."""

import numpy as np
import torch
from PIL import Image

from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.evaluation.reconstruction.generation import (
    Sampler,
    StimulusHeads,
    derive_noise_seed,
)
from brainhive_cli.models.heads import Decoded
from brainhive_cli.models.priors._fusion_network import FusionPrior
from brainhive_cli.training.alignment.trained import open_model, open_test_set
from tests.worlds.reconstructions import (
    generate_pictures,
    measure_max_difference,
    read_embedding,
)


def test_the_best_of_several_is_most_similar_to_its_token(
    run_command, world, prior_align_run, reconstruct_overrides, generator, prior
):
    result = run_command(
        "reconstruct",
        *reconstruct_overrides,
        "sources=images",
        "best_of=3",
        "items=2",
        "repeats=1",
    )

    file = min((result.folder / "samples/images").rglob("00.png"))
    image_id = file.parent.relative_to(result.folder / "samples/images").as_posix()
    embedded = read_embedding(world, image_id)
    candidates = generate_pictures(
        generator,
        prior,
        embedded,
        [derive_noise_seed(0, image_id, 0, c) for c in range(3)],
    )
    fusion = FusionPrior.load(str(prior))
    launch = Launch(0, 1, torch.device("cpu"))
    align = open_model(str(prior_align_run), Paths())
    tests = open_test_set(align, "test")
    heads = StimulusHeads.from_prior(tests, align.open_first(), fusion)
    pixels = np.stack([np.asarray(candidate) for candidate in candidates])
    token = fusion.fuser({"brainhive_cli-models-encoders-python-example": embedded})
    similarity = heads.build_reranker(launch)(
        pixels, Decoded({"token": token.expand(3, -1)})
    )
    gaps = [
        measure_max_difference(candidate, Image.open(file)) for candidate in candidates
    ]
    assert gaps[int(similarity.argmax())] <= 1
    assert sorted(gaps)[1] > 1
    assert "each the best of 3 by its decoded head" in result.tables[0].note


def test_without_decoded_heads_a_single_candidate_is_generated(
    run_command, prior_align_run, reconstruct_overrides, monkeypatch
):
    sample, seeds = Sampler.sample, []

    def count(self, decoded, drawn, *arguments, **fields):
        seeds.extend(drawn)
        return sample(self, decoded, drawn, *arguments, **fields)

    monkeypatch.setattr(Sampler, "sample", count)
    result = run_command(
        "reconstruct",
        *reconstruct_overrides,
        "sources=images,zeroed",
        "best_of=3",
        "items=2",
        "repeats=1",
    )

    assert len(seeds) == result.work.count == 2 * 3 + 2
    protocols = {
        name: scope["pixcorr"].protocol for name, scope in result.metrics.scopes.items()
    }
    assert "best of 3" in protocols["images"]
    assert "best of" not in protocols["zeroed"]
