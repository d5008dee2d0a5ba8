"""Every shipped recipe of train-align that names published data takes a step on signals of their shape.

The stores that are written are those that its plan lists: the run opens no other. Tiny are the number of
pictures and voxels, D of token grids, and the widths of brain models whose published ones fit into no test.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from worlds import at_home

from brainhive_cli.commands import embed, train_align
from brainhive_cli.core import parts
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import shipped_recipes
from brainhive_cli.core.sweep import variants
from brainhive_cli.data.datasets import list_stimuli
from brainhive_cli.data.published import PUBLISHED
from brainhive_cli.data.spaces import Sensors, Voxels
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.stores.target_store import Blank, filling, finish_stores, path_of
from brainhive_cli.data.targets.encoder_groups import alternatives, shape_of
from brainhive_cli.data.trials import Trials
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment.job import Job

HERE = Launch(0, 1, torch.device("cpu"))
RECIPES = sorted(
    path.parent.relative_to(shipped_recipes()).as_posix()
    for path in shipped_recipes().rglob("*/train-align.yaml")
)
ELSEWHERE = {"demo-real": "test_demo_real", "digits69": "test_digits69", "own-fmri": "test_own_fmri"} | {
    name: f"test_{name.replace('-', '_')}" for name in ("demo", "demo-havir", "demo-neurons")
}
"""Recipes of other data, and the test files that train them."""
ELSEWHERE |= dict.fromkeys(("demo-neurons-brain", "demo-neurons-captions"), "test_demo_neurons")
ELSEWHERE |= {"demo-protocols": "test_guides"}
OF_EACH_SORT = (
    *(
        "havir-24gb",
        "papers/alignvis-inter",
        "papers/alignvis-meg",
        "papers/bridge",
        "papers/brainhive-intra",
    ),
    *("papers/lora-b32", "papers/mindeye2-blurry", "papers/neurobridge", "papers/samga", "papers/svtl"),
    "papers/visual-blur-perception",
)
"""One recipe of each brain encoder, fuser, mode and data set of those that `test_published_workflows.py` does
not train; `tools.follow_recipes` trains all."""
PICTURES, REPETITIONS, VOXELS = 12, 3, 24
WIDTHS = {"clip-b32": 768, "intern-vit": 3200, "timm": 1536}
"""D of what blocks give. Source: config.json of the published weights; timm's vit_pe_core_gigantic."""
TOKEN_DIM = 16
"""D of a grid of tokens in place of 1664 or 768."""
SMALL_PRIOR = ("depth=1", "heads=2", "dim_head=4", "timesteps=3")
HAVIR = ("hidden=8", "blocks=1", "features=8", "decoder_channels=[8,8,8]", "decoder_groups=4")
SMALLER: Mapping[str, Sequence[str]] = {
    "havir": [*HAVIR, "projector=8"],
    "mindeye2-blurry": ["backbone.hidden=8", *(f"prior.{key}" for key in SMALL_PRIOR)],
}
"""Keys of the backbone, by the recipe's name without its folder or card."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with some pictures of THINGS."""
    with at_home(tmp_path_factory.mktemp("home")) as home:
        for dataset, split in product(("things-eeg", "things-meg"), ("train", "test")):
            for row, name in enumerate(names_of(split)):
                path = home / f"data/{dataset}/{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (32, 32), (row, 9 * row, 200)).save(path)
        yield home


def write_signals(job: Job, subjects: Sequence[int]) -> None:
    """Write random signals of a few published pictures, with all published channels and samples."""
    dataset, rng = job.dataset, np.random.default_rng(0)
    for subject in subjects:
        path = job.signals(job.recipe).path(subject)
        if path.is_file():
            continue
        if dataset.recorded_as in ("nsd", "cc2017"):
            masks = {"nsdgeneral": np.ones(VOXELS, bool), "prf-visualrois": np.arange(VOXELS) % 2 == 0}
            space: Any = Voxels(masks)
            times_s, rate_hz, unit = np.zeros(1), None, "z-score"
        else:
            built = job.recipe.dataset
            count = 250 if dataset.name == "things-eeg" else 201
            space, rate_hz, unit = Sensors(built.montage), built.rate_hz, built.unit
            times_s = np.arange(count) / built.rate_hz
        width = VOXELS if rate_hz is None else len(space.names)
        recordings = {}
        for split in ("train", "test"):
            signal = rng.normal(size=(PICTURES, REPETITIONS, width, len(times_s))).astype(np.float32)
            sessions = np.tile(np.arange(REPETITIONS, dtype=np.int8), (PICTURES, 1))
            if rate_hz is None:  # forty sessions, as of NSD, however few trials each has
                sessions = np.arange(PICTURES * REPETITIONS, dtype=np.int8).reshape(PICTURES, REPETITIONS)
            ids = names_of(split)
            recordings[split] = Trials(signal, ids, space, times_s, rate_hz, unit, sessions=sessions)
        SignalStore.write(path, recordings)


def names_of(split: str) -> list[str]:
    """Name some pictures of a split, two of a concept, in the order of their paths."""
    folder = {"train": "training_images", "test": "test_images"}[split]
    return [f"{folder}/concept_{row // 2}/{row:02d}" for row in range(PICTURES)]


def write_targets(job: Job, config: EncoderConfig, split: str = "train") -> None:
    """Write random targets of an encoder, of its published shape, for the same pictures."""
    path = path_of(Path("embeddings"), job.dataset.name, split, config.name)
    if path.is_file():
        return
    shape = config.known_shape or (WIDTHS[config.kind],)
    shape = (*shape[:-1], TOKEN_DIM) if len(shape) == 2 and shape[-1] > 256 else shape
    images, rng = list_stimuli(job.dataset, split), np.random.default_rng(1)
    whole, views = shape_of(config, shape, images), alternatives(config, images)
    values = rng.normal(size=(PICTURES, *([] if views is None else [views]), *whole)).astype(np.float32)
    values = rng.integers(0, 9, values.shape).astype(config.store_dtype) if config.store_dtype else values
    ids = names_of(split)
    place = {"encoder": config.name, "split": split, "dataset": job.dataset.name}
    place |= {"config": config.model_dump(mode="json"), "weights": {}, "preprocessing": ""}
    place |= {} if views is None else {"alternatives": views}
    blank = Blank(path, ids, [name.split("/")[1] for name in ids], values.shape[1:], str(values.dtype), place)
    with filling([blank], HERE) as writers:
        writers[0].write(np.arange(PICTURES), values)
        finish_stores(writers, HERE)


def test_recipes_of_other_data_are_trained_by_another_test() -> None:
    named = {name: parts.resolve("datasets", resolve(name).dataset).kind for name in RECIPES}
    assert {name for name, kind in named.items() if kind not in PUBLISHED} == ELSEWHERE.keys()


def resolve(name: str, *overrides: str) -> train_align.Recipe:
    return train_align.Recipe.resolve("train-align", name, {}, overrides)


def shortened(name: str, recipe: train_align.Recipe) -> list[str]:
    """Write the overrides of a recipe that make it short and small; the brain model and data stay its own."""
    short = [f"backbone.{key}" for key in SMALLER.get(name.rpartition("/")[2].removesuffix("-24gb"), ())]
    chosen = {"inter": ["subjects=1", "trained_on=2,3"], "joint": ["subjects=2,3"]}
    short += ["seeds=1", *chosen.get(recipe.mode, ["subjects=1"])]
    short += ["sweep={}"] if len(variants(recipe)) > 3 else []
    if recipe.backbone.is_closed_form:
        return short
    train = recipe.train
    stages = [f"stages.{stage}.epochs=1" for stage in range(len(train.stages))] or ["epochs=1"]
    smaller = {"epoch_trials": 8, "warmup_steps": 0, "validation": 0.2, "start_from": {}}
    stages += [f"{key}={value}" for key, value in smaller.items() if getattr(train, key)]
    return [*short, *(f"train.{key}" for key in ("batch_size=4", "precision=fp32", *stages))]


def train(name: str, *overrides: str) -> tuple[Job, Path]:
    """Train a recipe with nothing but the stores that its job lists; give it and the run."""
    recipe = resolve(name, *shortened(name, resolve(name, *overrides)), *overrides)
    job = Job.resolve(recipe)
    write_signals(job, (1, 2, 3))
    for config in job.stored_encoders():
        write_targets(job, config)
    return job, train_align.run(recipe, HERE).folder


@pytest.mark.parametrize("name", OF_EACH_SORT)
def test_a_recipe_trains_on_signals_of_the_published_shape(name: str, home: Path) -> None:
    overrides: list[str] = []
    if resolve(name).train.lora.encoders:  # a network runs: a small one
        network = {"kind": "timm", "source": "random", "architecture": "test_vit"}
        encoders = f"encoders={json.dumps([network])}"
        embed.run(embed.Recipe.resolve("embed", None, {}, [encoders]), HERE)
        overrides = [encoders, "dim=64", f"train.lora.encoders=[{parts.resolve('encoders', network).name}]"]

    job, run = train(name, *overrides)

    inputs = train_align.inputs(resolve(name, *shortened(name, resolve(name)), *overrides))
    stores = [one.name.removesuffix(".h5") for one in inputs if one.name.startswith("embeddings")]
    listed = {name.rpartition("/")[2] for name in stores}
    assert describe_missing(inputs) == [] and listed == {config.name for config in job.stored_encoders()}
    assert len([*run.glob("cells/**/model/config.json")]) == len(job.list_cells())
