"""Inputs of the shipped recipes where nothing is present: each is named, and how it is had, offline."""

import importlib
import json
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import fetch
from brainhive_cli.core.inputs import Input, describe_missing
from brainhive_cli.core.recipe import shipped_recipes

PAPERS = ("mindeye2", "neurons", "havir-ablations")
LINES = {
    f"papers/{paper}": [file.stem for file in sorted((shipped_recipes() / "papers" / paper).glob("*"))]
    for paper in PAPERS
}
"""The commands that have a recipe of a paper."""
MINDEYE2 = "datasets/pscotti/mindeyev2/train_logs/final_subj01_pretrained_40sess_24bs/last.pth"
BIGG = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.fixture(autouse=True)
def nothing(home: Path, image_networks_absent: Path) -> Path:
    """A home without files, and empty caches of weights."""
    return home


def inputs_of(command: str, recipe: str, *overrides: str) -> list[Input]:
    """List the inputs of a command as `--check` does."""
    module: Any = importlib.import_module(f"brainhive_cli.commands.{command.replace('-', '_')}")
    listed: list[Input] = module.inputs(module.Recipe.resolve(command, recipe, {}, overrides))
    return listed


def missing(inputs: Sequence[Input]) -> set[str]:
    """Name what is missing: stores by their data set and name, runs by the recipe that makes them."""
    names = {one.name for one in inputs if one.is_missing}
    names = {NO_RUN.sub(r"run \1", name) for name in names}
    return {STORE.sub(r"\1 \2", name) for name in names}


NO_RUN = re.compile(r"no finished train-align run under \S+ has the recipe (\S+)")
STORE = re.compile(r"^(signals|embeddings)[ /](.*?)(?:\.h5)?$")


def signals(dataset: str, *subjects: int) -> set[str]:
    return {f"signals {dataset}/default/sub-{subject:02d}" for subject in subjects}


def stores(dataset: str, split: str, *encoders: str) -> set[str]:
    return {f"embeddings {dataset}/{split}/{encoder}" for encoder in encoders}


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
    | {MINDEYE2, "openai-community/gpt2", "papers/neurons-brain"},
    ("reconstruct", "neurons"): OF_CLIPS | {"run papers/neurons", "Salesforce/blip2-opt-2.7b"},
    ("reconstruct", "neurons-enhance"): OF_CLIPS | {"run papers/neurons"},
    ("train-align", "mindeye2-1h"): {"run papers/mindeye2"},
    ("train-align", "mindeye2"): signals("nsd", *range(2, 9))
    | stores("nsd-1-2-3-4-5-6-7-8", "train", "clip-bigg-tokens"),
    ("train-align", "havir"): signals("nsd", 1, 2, 5, 7)
    | stores("nsd-1-2-5-7", "train", "vd-vae", "vd-image", "vd-text"),
    ("reconstruct", "havir"): OF_VERSATILE | {"run papers/havir"},
    ("embed", "havir"): NSD_PICTURES
    | {"data/nsd/COCO_73k_annots_curated.npy"}
    | {f"shi-labs/versatile-diffusion/{name}" for name in ("image_encoder", "text_encoder", "vae")},
    ("eval-retrieval", "mindeye2"): {"run papers/mindeye2"},
    ("prepare", "neurons"): {
        f"data/cc2017/subj0{subject}_{split}_fmri.pt" for subject in (1, 2, 3) for split in ("train", "test")
    },
}


@pytest.mark.parametrize(("command", "paper"), EXPECTED)
def test_all_that_is_missing_is_named(command: str, paper: str) -> None:
    assert missing(inputs_of(command, f"papers/{paper}")) == EXPECTED[command, paper]


@pytest.mark.parametrize("recipe", LINES)
def test_no_check_proposes_itself_another_data_set_or_a_whole_large_repository(recipe: str) -> None:
    for command in LINES[recipe]:
        shown = CliRunner().invoke(app, [command, "--recipe", recipe, "--check", "--json"])
        document = json.loads(shown.stdout)
        assert shown.exit_code == 3 and document["missing"]

        proposed = " ".join(document["missing"])
        other = "cc2017" if "neurons" not in recipe else "nsd"
        assert not re.search(rf"--from {other}|fetch {other}|things-eeg", proposed)
        for line in document["missing"]:
            way = line.rpartition("(")[2].removesuffix(")")
            assert not re.fullmatch(rf"brainhive {command} --recipe {recipe}", way), line
            assert way != "brainhive train-align" and not way.startswith("brainhive train-align --dataset")
            if "hf download " in way:
                repository, *words = shlex.split(way.partition("hf download ")[2])
                named = [word for word in words if not word.startswith("--") and word != "dataset"]
                assert named, f"all of {repository}"


def test_what_is_present_is_no_longer_missing(nothing: Path, hub_cache: Callable[..., Path]) -> None:
    before = missing(inputs_of("train-align", "papers/neurons-brain"))
    (nothing / "data/cc2017").mkdir(parents=True)
    torch.save({"proj": torch.zeros(2, 2)}, nothing / "data/cc2017/coco_tokens_avg_proj.pth")
    weights = hub_cache("pscotti/mindeyev2", "dataset") / MINDEYE2.partition("mindeyev2/")[2]
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")

    after = missing(inputs_of("train-align", "papers/neurons-brain"))

    assert before - after == {MINDEYE2, "data/cc2017/coco_tokens_avg_proj.pth"}


def test_clips_that_are_present_are_no_longer_missing(nothing: Path) -> None:
    import cc2017_files

    root = cc2017_files.write(nothing / "data/cc2017")
    assert not missing(inputs_of("prepare", "papers/neurons"))
    (root / "subj02_test_fmri.pt").unlink()
    assert missing(inputs_of("prepare", "papers/neurons")) == {"data/cc2017/subj02_test_fmri.pt"}


def test_fetch_lists_the_captions_of_nsd_and_both_repositories_of_cc2017() -> None:
    (nsd,) = describe_missing(fetch.inputs(fetch.Recipe(names=["nsd"])))
    assert "hf download pscotti/naturalscenesdataset COCO_73k_annots_curated.npy --repo-type dataset" in nsd
    first, second = describe_missing(fetch.inputs(fetch.Recipe(names=["cc2017"])))
    assert "hf download gongzx/cc2017_dataset" in first and "--local-dir" in first
    assert "hf download McGregorW/NEURONS --include 'masks/*' --include 'qwen_annotation/*'" in second


def test_sizes_are_written_only_where_they_are_published() -> None:
    sizes = {one.name: one.size for one in inputs_of("prepare", "papers/neurons")}
    assert sizes["data/cc2017/subj01_train_fmri.pt"] == 4 * 4320 * 2 * 13447
    assert all(one.size is None for one in inputs_of("embed", "papers/neurons") if one.is_missing)
