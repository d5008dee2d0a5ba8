"""Plans of the fMRI papers where nothing is present: each lists all that it needs, and how it is had."""

import importlib
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import fetch
from brainhive_cli.core.recipe import shipped_recipes
from brainhive_cli.core.results import Need, Plan

PAPERS = (
    *("mindeye2", "mindeye2-1h", "neurons", "neurons-brain", "neurons-enhance", "havir", "havir-ablations"),
    *("brain-diffuser", "mindeye1-lowlevel"),
)
LINES = [
    (file.stem, f"papers/{paper}")
    for paper in PAPERS
    for file in sorted((shipped_recipes() / "papers" / paper).glob("*"))
]
MINDEYE2 = "datasets/pscotti/mindeyev2/train_logs/final_subj01_pretrained_40sess_24bs/last.pth"
BIGG = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.fixture(autouse=True)
def nothing(home: Path, image_networks_absent: Path) -> Path:
    """A home without files, and empty caches of weights."""
    return home


def planned(command: str, recipe: str, *overrides: str) -> Plan:
    """Plan a command as `--check` does."""
    pipeline: Any = importlib.import_module(f"brainhive_cli.commands.{command.replace('-', '_')}")
    found: Plan = pipeline.plan(pipeline.Recipe.resolve(command, recipe, {}, overrides))
    return found


def missing(plan: Plan) -> set[str]:
    return {need.name for need in plan.needs if need.is_missing}


def signals(dataset: str, *subjects: int) -> set[str]:
    return {f"signals/{dataset}/default/sub-{subject:02d}.h5" for subject in subjects}


def stores(dataset: str, split: str, *encoders: str) -> set[str]:
    return {f"embeddings/{dataset}/{split}/{encoder}.h5" for encoder in encoders}


NEURONS_STORES = (
    *("clip-bigg-tokens-view-2", "clip-bigg-text", "key-object-mask-all", "sd15-vae-all-4c55484d"),
    *("concepts", "caption-tokens", "clip-bigg-tokens-all"),
)
OF_SD15 = {f"{SD15}/{name}" for name in ("unet", "vae", "text_encoder")}
OF_CLIPS = {
    *OF_SD15,
    *("guoyww/animatediff-motion-adapter-v1-5-3", "guoyww/animatediff-sparsectrl-rgb"),
    *("guoyww/animatediff/v3_sd15_adapter.ckpt", "datasets/pscotti/mindeyev2/unclip6_epoch0_step110000.ckpt"),
}
OF_VERSATILE = {
    f"shi-labs/versatile-diffusion/{name}"
    for name in (
        *(f"{part}/diffusion_pytorch_model.bin" for part in ("image_unet", "text_unet", "vae")),
        *(f"{part}/pytorch_model.bin" for part in ("image_encoder", "text_encoder")),
    )
}
NSD_PICTURES = {"data/nsd/nsd_stimuli.hdf5", "data/nsd/nsd_stim_info_merged.csv"}
EXPECTED = {
    ("train-align", "neurons-brain"): signals("cc2017", 1, 2, 3)
    | stores("cc2017", "train", "clip-bigg-tokens-view-2", "clip-bigg-tokens-view-3", "clip-bigg-text")
    | {MINDEYE2, "data/cc2017/coco_tokens_avg_proj.pth"},
    ("train-align", "neurons"): signals("cc2017", 1, 2, 3)
    | stores("cc2017", "train", *NEURONS_STORES)
    | {MINDEYE2, "openai-community/gpt2", "run papers/neurons-brain"},
    ("reconstruct", "neurons"): signals("cc2017", 1, 2, 3)
    | OF_CLIPS
    | {"run papers/neurons", "Salesforce/blip2-opt-2.7b", "data/cc2017/GT_test_3fps.pt"},
    ("reconstruct", "neurons-enhance"): signals("cc2017", 1, 2, 3)
    | OF_CLIPS
    | {"run papers/neurons", "data/cc2017/GT_test_3fps.pt"},
    ("train-align", "mindeye2-1h"): signals("nsd", 1)
    | stores("nsd-1-2-3-4-5-6-7-8", "train", "clip-bigg-tokens")
    | {"run papers/mindeye2"},
    ("train-align", "havir"): signals("nsd", 1, 2, 5, 7)
    | stores("nsd-1-2-5-7", "train", "vd-vae", "vd-image", "vd-text"),
    ("reconstruct", "havir"): signals("nsd", 1, 2, 5, 7) | OF_VERSATILE | NSD_PICTURES | {"run papers/havir"},
    ("embed", "havir"): NSD_PICTURES
    | {"data/nsd/COCO_73k_annots_curated.npy"}
    | {f"shi-labs/versatile-diffusion/{name}" for name in ("image_encoder", "text_encoder", "vae")},
    ("eval-retrieval", "mindeye2"): signals("nsd", *range(2, 9))
    | stores("nsd-1-2-3-4-5-6-7-8", "test", "clip-bigg-tokens")
    | {"run papers/mindeye2"},
    ("prepare", "neurons"): {
        f"data/cc2017/subj0{subject}_{split}_fmri.pt" for subject in (1, 2, 3) for split in ("train", "test")
    },
}


@pytest.mark.parametrize(("command", "paper"), EXPECTED)
def test_a_plan_names_all_that_is_missing(command: str, paper: str) -> None:
    assert missing(planned(command, f"papers/{paper}")) == EXPECTED[command, paper]


@pytest.mark.parametrize(("command", "recipe"), LINES)
def test_no_plan_proposes_itself_another_data_set_or_a_whole_large_repository(
    command: str, recipe: str
) -> None:
    shown = CliRunner().invoke(app, [command, "--recipe", recipe, "--check", "--json"])
    plan = json.loads(shown.stdout)
    assert shown.exit_code == 3 and plan["missing"]

    proposed = " ".join(plan["missing"])
    other = "cc2017" if "neurons" not in recipe else "nsd"
    assert not re.search(rf"--from {other}|fetch {other}|things-eeg", proposed)
    for line in plan["missing"]:
        way = line.rpartition("(")[2].removesuffix(")")
        assert not re.fullmatch(rf"brainhive {command} --recipe {recipe}", way), line
        assert way != "brainhive train-align" and not way.startswith("brainhive train-align --dataset")
        if "hf download " in way:
            repository, *words = shlex.split(way.partition("hf download ")[2])
            named = [word for word in words if not word.startswith("--") and word != "dataset"]
            assert named, f"all of {repository}"
    if command in ("train-align", "reconstruct"):
        assert " GB " in plan["plan"]["memory, estimated"]


def test_what_is_present_is_no_longer_missing(nothing: Path, hub_cache: Callable[..., Path]) -> None:
    before = missing(planned("train-align", "papers/neurons-brain"))
    (nothing / "data/cc2017").mkdir(parents=True)
    torch.save({"proj": torch.zeros(2, 2)}, nothing / "data/cc2017/coco_tokens_avg_proj.pth")
    weights = hub_cache("pscotti/mindeyev2", "dataset") / MINDEYE2.partition("mindeyev2/")[2]
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")

    after = missing(planned("train-align", "papers/neurons-brain"))

    assert before - after == {MINDEYE2, "data/cc2017/coco_tokens_avg_proj.pth"}


def test_clips_that_are_present_are_no_longer_missing(nothing: Path) -> None:
    import cc2017_files

    root = cc2017_files.write(nothing / "data/cc2017")
    assert not missing(planned("prepare", "papers/neurons"))
    (root / "subj02_test_fmri.pt").unlink()
    assert missing(planned("prepare", "papers/neurons")) == {"data/cc2017/subj02_test_fmri.pt"}


@pytest.mark.parametrize("paper", ["brain-diffuser", "havir", "mindeye1-lowlevel"])
def test_a_workflow_lacks_nothing_that_its_steps_make(paper: str) -> None:
    lacking = missing(planned("workflow", f"papers/{paper}"))
    assert lacking and not any(name.startswith(("signals/", "embeddings/", "run ")) for name in lacking)


@pytest.mark.parametrize("paper", ["mindeye2", "neurons"])
def test_a_workflow_says_of_each_step_what_it_needs_and_which_step_makes_it(paper: str) -> None:
    plan = planned("workflow", f"papers/{paper}")

    steps = {need.name: need.step for need in plan.needs if need.step}
    first = min(name for name in steps if name.startswith("signals/"))
    assert steps[first] == "prepare" and {*steps.values()} >= {"prepare", "embed", "train-align"}
    assert all(step == "embed" for name, step in steps.items() if name.startswith("embeddings/"))
    lacking = missing(plan)
    assert "datasets/pscotti/mindeyev2/unclip6_epoch0_step110000.ckpt" in lacking and BIGG in lacking
    assert not any(name.startswith(("signals/", "embeddings/", "run ")) for name in lacking)
    assert not any("brainhive train-align" in line or "brainhive embed" in line for line in plan.missing)
    titles = [table.title for table in plan.tables]
    assert titles[-1] == "Plan of reconstruct" and "Plan of train-align" in titles
    if paper == "neurons":
        assert steps["run <brain model>"] == "brain model"
        assert {MINDEYE2, "data/cc2017/coco_tokens_avg_proj.pth", "openai-community/gpt2"} <= lacking
    else:  # one model of seven subjects, fitted to another, who alone is decoded
        (pictures,) = [row[1] for row in plan.tables[-1].rows if row[0] == "pictures"]
        assert pictures.startswith("1000: 1000 items × 1 repeats × 1 cells")


def test_a_training_that_continues_another_comes_after_it_and_its_data() -> None:
    sessions, nice = (planned("workflow", f"papers/{name}").items for name in ("mindeye2-sessions", "nice"))

    assert [*sessions][:3] == [f"{step} of mindeye2-inter" for step in ("prepare", "embed", "train-align")]
    assert "'finetune.run=<train-align of mindeye2-inter>'" in sessions["train-align"]
    assert nice["embed"] == "brainhive embed dataset=things-eeg 'encoders=[clip-l14]'"
    assert nice["eval-retrieval"] == "brainhive eval-retrieval 'align_run=<train-align>'"


def test_the_ablations_say_how_many_pictures_each_variant_samples() -> None:
    items = planned("reconstruct", "papers/havir-ablations").items
    assert "full (4000 pictures), swapped-regions (4000 pictures)" in items["variants"]
    assert "best-of-16 (4000 pictures, of 64000 generated)" in items["variants"]
    assert items["in all"] == "98,000 pictures"  # 8 × 4000, two of no cell, and 16 × 4000


def test_memory_is_that_of_the_published_sizes() -> None:
    brain = planned("train-align", "papers/neurons-brain").items["memory, estimated"]
    havir = planned("train-align", "papers/havir").items["memory, estimated"]
    # the recipes' heads state 1754 and 1338 million weights; the ridge of the first cell is of 13447 voxels
    assert (int(brain.split()[4].replace(",", "")), int(havir.split()[4].replace(",", ""))) == (1811, 1338)


def test_fetch_lists_the_captions_of_nsd_and_both_repositories_of_cc2017() -> None:
    (nsd,) = fetch.plan(fetch.Recipe(names=["nsd"])).missing
    assert "hf download pscotti/naturalscenesdataset COCO_73k_annots_curated.npy --repo-type dataset" in nsd
    first, second = fetch.plan(fetch.Recipe(names=["cc2017"])).missing
    assert "hf download gongzx/cc2017_dataset" in first and "--local-dir" in first
    assert "hf download McGregorW/NEURONS --include 'masks/*' --include 'qwen_annotation/*'" in second


def test_sizes_are_written_only_where_they_are_published() -> None:
    sizes = {need.name: need.size for need in planned("prepare", "papers/neurons").needs}
    assert sizes["data/cc2017/subj01_train_fmri.pt"] == 4 * 4320 * 2 * 13447
    needs: list[Need] = [*planned("embed", "papers/neurons").needs]
    assert all(need.size is None for need in needs if need.is_missing)


@pytest.mark.parametrize(
    ("recipe", "way"),
    [
        ("own-fmri", "mkdir -p {0} && ln -s /FOLDER {0}/image-folder  # one sub-folder a concept"),
        ("digits69", "brainhive fetch digits69"),
    ],
)
def test_a_workflow_lists_its_steps_and_one_way_to_begin(recipe: str, way: str, nothing: Path) -> None:
    plan = planned("workflow", recipe)
    assert {"prepare", "embed", "train-align", "eval-retrieval"} <= plan.items.keys()
    (line,) = plan.missing
    assert line.endswith(f"({way.format(nothing / 'data')})")
