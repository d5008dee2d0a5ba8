"""Inputs of the shipped recipes where nothing is present: each is named, and how it is
had, offline.
"""

import importlib
import re

import pytest
import torch

from brainhive_cli.core.runs.jobs import list_inputs

MINDEYE2 = (
    "datasets/pscotti/mindeyev2/train_logs/final_subj01_pretrained_40sess_24bs/last.pth"
)


@pytest.fixture(autouse=True)
def empty_home(home, image_networks_absent):
    """A home without files, and empty caches of weights."""
    return home


def inputs_of(command, recipe, *overrides):
    """List the inputs of a command as `--check` does."""
    module = importlib.import_module(
        f"brainhive_cli.commands.{command.replace('-', '_')}"
    )
    inputs = list_inputs(module, module.Recipe.resolve(command, recipe, {}, overrides))
    return inputs


def missing(inputs):
    """Name what is missing: stores by their data set and name, runs by the recipe that
    makes them.
    """
    names = {input_row.name for input_row in inputs if input_row.is_missing}
    names = {NO_RUN.sub(r"run \1", name) for name in names}
    return {STORE.sub(r"\1 \2", name) for name in names}


NO_RUN = re.compile(r"no finished train-align run under \S+ has the recipe (\S+)")
STORE = re.compile(r"^(signals|embeddings)[ /](.*?)(?:\.h5)?$")


def signals(dataset, *subjects):
    return {f"signals {dataset}/default/sub-{subject:02d}" for subject in subjects}


def stores(dataset, split, *encoders):
    return {f"embeddings {dataset}/{split}/{encoder}" for encoder in encoders}


EXPECTED = {
    ("train-align", "neurons-brain"): signals("cc2017", 1, 2, 3)
    | stores(
        "cc2017",
        "train",
        "clip-bigg-tokens-view-2",
        "clip-bigg-tokens-view-3",
        "clip-bigg-text",
    )
    | {MINDEYE2, "data/cc2017/coco_tokens_avg_proj.pth"},
    ("train-align", "mindeye2-1h"): {"run papers/mindeye2"},
    ("train-align", "havir"): signals("nsd", 1, 2, 5, 7)
    | stores("nsd-1-2-5-7", "train", "vd-vae", "vd-image", "vd-text"),
    ("embed", "havir"): {
        "data/nsd/nsd_stimuli.hdf5",
        "data/nsd/nsd_stim_info_merged.csv",
    }
    | {"data/nsd/COCO_73k_annots_curated.npy"}
    | {
        f"shi-labs/versatile-diffusion/{name}"
        for name in ("image_encoder", "text_encoder", "vae")
    },
    ("prepare", "neurons"): {
        f"data/cc2017/subj0{subject}_{split}_fmri.pt"
        for subject in (1, 2, 3)
        for split in ("train", "test")
    },
}


def test_all_that_is_missing_is_named():
    for (command, paper), expected in EXPECTED.items():
        assert missing(inputs_of(command, f"papers/{paper}")) == expected


def test_what_is_present_is_no_longer_missing(empty_home, hub_cache):
    initial_missing = missing(inputs_of("train-align", "papers/neurons-brain"))
    (empty_home / "data/cc2017").mkdir(parents=True)
    torch.save(
        {"proj": torch.zeros(2, 2)}, empty_home / "data/cc2017/coco_tokens_avg_proj.pth"
    )
    weights = (
        hub_cache("pscotti/mindeyev2", "dataset") / MINDEYE2.partition("mindeyev2/")[2]
    )
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")

    final_missing = missing(inputs_of("train-align", "papers/neurons-brain"))

    assert initial_missing - final_missing == {
        MINDEYE2,
        "data/cc2017/coco_tokens_avg_proj.pth",
    }
