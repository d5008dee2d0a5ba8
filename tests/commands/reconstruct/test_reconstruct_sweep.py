"""Tests of ablations of a reconstruction, which are values of a workflow's axis."""

import json

import numpy as np
import torch
from PIL import Image

from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.evaluation.reconstruction.generation import derive_noise_seed
from brainhive_cli.models.priors._fusion_network import FusionPrior
from tests.worlds.reconstructions import (
    COLOURS,
    generate_pictures,
    measure_max_difference,
)

ABLATIONS = {
    "full": [],
    "ceiling": ["sources=images"],
    "average": ["sources=mean_embedding"],
    "two": ["steps=1"],
}


def test_ablations_are_runs_compared_with_the_full_run(
    run_command, prior_align_run, reconstruct_overrides
):
    full_run = run_command("reconstruct", *reconstruct_overrides).folder
    modified_ns = (full_run / "metrics.json").stat().st_mtime_ns
    paths = [text for text in reconstruct_overrides if text.startswith("paths.")]
    step = {
        "for": ["ablation"],
        "compare": "full",
        "overrides": [text for text in reconstruct_overrides if text not in paths],
    }

    result = run_command(
        "workflow",
        *paths,
        f"matrix={json.dumps({'ablation': ABLATIONS})}",
        f"steps={json.dumps({'reconstruct': step})}",
    )

    names = [f"reconstruct · {label}" for label in ABLATIONS]
    table, differences = result.printed_tables
    assert [row[1] for row in table.rows] == list(ABLATIONS)
    assert len(differences.rows) == 2 * 3
    facts = result.metrics.facts
    assert list(facts.compared) == names
    compared = dict.fromkeys(pair.second for pair in facts.comparisons)
    assert list(compared) == names[1:]
    for pair in facts.comparisons:
        assert pair.first == names[0]
        assert pair.tests_of.startswith("2 metrics × 3 variants")

    # the run without ablations is used again
    runs = facts.step_runs
    assert runs[names[0]] == f"reconstruct/{full_run.name}"
    assert len(set(runs.values())) == 4
    assert (full_run / "metrics.json").stat().st_mtime_ns == modified_ns


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
    assert len(files) == 3
    assert len({file.read_bytes() for file in files}) == 3
    image_id = files[0].parent.relative_to(root).as_posix()
    seeds = [derive_noise_seed(0, image_id, 0)]
    (expected,) = generate_pictures(generator, prior, None, seeds, token=mean)
    assert measure_max_difference(expected, Image.open(files[0])) <= 1
