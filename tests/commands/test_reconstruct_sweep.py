"""Ablations of a reconstruction: each a run of its own, all in one table."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from reconstructions import COLOURS, gap, generate

from brainhive_cli.commands import reconstruct
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.core.sweep import FULL
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.evaluation.reconstruction.generation import seed_of
from brainhive_cli.models import priors
from brainhive_cli.models.priors.fusion_prior import FusionPrior

ABLATIONS = "ablations={ceiling: {sources: images}, average: {sources: mean_embedding}, two: {steps: 1}}"


def test_ablations_are_runs_of_their_own_in_one_table_and_compared_with_the_full_one(go, aligned, drawing):
    alone = go("reconstruct", *drawing)
    made = (alone.folder / "metrics.json").stat().st_mtime_ns

    result = go("reconstruct", *drawing, ABLATIONS, "published={source: a paper, values: {pixcorr: 0.5}}")

    table, published = result.tables
    assert [row[0] for row in table.rows] == [
        FULL,
        "ceiling",
        "average",
        "two",
    ]
    found = result.metrics
    assert table.rows[0][1].value == found.scopes[f"{FULL} · brain"]["pixcorr"].value
    compared = dict.fromkeys(row.second for row in found.facts.comparisons)
    assert list(compared) == ["ceiling", "average", "two"]
    assert all(row.tests_of.startswith("2 metrics × 3 variants") for row in found.facts.comparisons)
    runs = {label: variant.run for label, variant in found.facts.variants.items()}
    assert runs[FULL] == alone.folder.name and len(set(runs.values())) == 4
    assert (alone.folder / "metrics.json").stat().st_mtime_ns == made  # nothing is done twice
    assert published.columns == ["PixCorr", "differs, as its recipe says"]
    assert published.rows == ((0.5, "–"),)
    with pytest.raises(RecipeError, match="is a sweep: name the run of a variant"):
        go("reconstruct", *drawing, f"against={result.folder.name}")


def missing_of(*overrides: str) -> list[str]:
    recipe = reconstruct.Recipe.resolve("reconstruct", None, {}, overrides)
    return describe_missing(reconstruct.inputs(recipe))


def test_variants_share_the_prior_and_the_run_that_their_keys_choose(aligned, drawing, monkeypatch):
    opened: list[str] = []
    load, open_run = priors.load, reconstruct.open_model
    monkeypatch.setattr(priors, "load", lambda *a, **more: opened.append("prior") or load(*a, **more))
    monkeypatch.setattr(
        reconstruct, "open_model", lambda *a, **more: opened.append("run") or open_run(*a, **more)
    )
    adapted = ABLATIONS.replace("two:", "adapted: {adapter: apply}, two:")

    assert not missing_of(*drawing, ABLATIONS) and sorted(opened) == ["prior", "run"]

    opened.clear()
    assert not missing_of(*drawing, adapted) and opened.count("prior") == 2


def test_ablations_take_variants_of_one_training(go, world, small, runs, prior, drawing):
    sweep = (f"prior={prior}", "sweep={train.lr: [1.0e-3, 1.0e-4]}")
    run = go("train-align", *small, "subjects=1", "train.epochs=1", runs, *sweep).folder.name

    result = go(
        "reconstruct", *drawing, "align_run=':lr=0.001'", "ablations={slow: {align_run: ':lr=0.0001'}}"
    )

    folders = [result.folder.parent / each.run for each in result.metrics.facts.variants.values()]
    used = [yaml.safe_load((folder / "recipe.yaml").read_text())["align_run"] for folder in folders]
    assert used == [f"{run}:lr=0.001", f"{run}:lr=0.0001"]
    with pytest.raises(MissingData, match="the variant 'none'"):
        go("reconstruct", *drawing, "align_run=':none'")


def test_the_mean_embedding_is_one_condition_for_all_pictures_which_differ_by_their_noise(
    go, aligned, drawing, prior, world, generator
):
    result = go("reconstruct", *drawing, "sources=mean_embedding")

    (path,) = world.glob("embeddings/demo-noise-0.3-40-concepts/train/*example.h5")
    every = torch.from_numpy(np.array(TargetStore.open(path).embedding))
    fusion = FusionPrior.load(str(prior))
    with torch.inference_mode():
        mean = fusion.fuser({COLOURS: every}).mean(0, keepdim=True)
    root = result.folder / "samples/mean_embedding"
    files = sorted(root.rglob("00.png"))
    assert len(files) == 3 and len({file.read_bytes() for file in files}) == 3
    image_id = files[0].parent.relative_to(root).as_posix()
    seeds = [seed_of(0, image_id, 0)]
    (expected,) = generate(generator, prior, None, seeds, token=mean)
    assert gap(expected, Image.open(files[0])) <= 1


def test_pictures_of_all_variants_count_and_what_any_lacks_is_missing(aligned, drawing):
    recipe = reconstruct.Recipe.resolve("reconstruct", None, {}, [*drawing, ABLATIONS])
    jobs, work = reconstruct.resolve_variants(recipe), reconstruct.work(recipe)

    counts = {label: job.work.count for label, job in jobs.items()}
    assert counts == {"full": 6, "ceiling": 6, "average": 6, "two": 6}
    assert work is not None and (work.count, work.cells) == (24, 4)
    assert not missing_of(*drawing, ABLATIONS)
    (told,) = missing_of(*drawing, "ablations={a: {align_run: no-such}}")
    assert "no train-align run 'no-such'" in told
    with pytest.raises(RecipeError, match="unknown recipe key 'stepss'"):
        missing_of(*drawing, "ablations={a: {stepss: 1}}")


def test_a_sweep_of_what_others_made_is_refused(tmp_path):
    given = [f"score={tmp_path}", f"truth={tmp_path}", "ablations={a: {steps: 1}}"]
    with pytest.raises(RecipeError, match="ablations has no effect on pictures that others made"):
        reconstruct.Recipe.resolve("reconstruct", None, {}, given)
