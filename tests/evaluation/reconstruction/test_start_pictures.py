"""Pictures that sampling starts from: of a folder, or decoded from signals."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reconstructions import embedding, gap, generate

from brainhive_cli.commands import reconstruct
from brainhive_cli.core.errors import MissingData
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.demo.pictures import scenes
from brainhive_cli.evaluation.reconstruction.conditions import DecodedSet
from brainhive_cli.evaluation.reconstruction.folders import list_media
from brainhive_cli.evaluation.reconstruction.generation import FromFolder, find_start_pictures, seed_of
from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.heads import Decoded
from brainhive_cli.training.alignment.recipe import Cell


def test_a_shuffled_signal_starts_from_the_picture_of_its_own_item(tmp_path):
    for name, grey in (("a", 10), ("b", 200)):
        Image.new("RGB", (8, 8), (grey,) * 3).save(tmp_path / f"{name}.png")
    cell = Cell("sub-01_seed-1", (1,), (1,), 1)
    shuffled = DecodedSet("shuffled", cell, 1, ["a", "b"], ["b", "a"], Decoded({"token": torch.zeros(2, 3)}))

    start = FromFolder(str(tmp_path), list_media(str(tmp_path)), 16)

    greys = start.pictures(shuffled, [0, 1], None).mean((1, 2, 3)) * 255
    assert greys.tolist() == pytest.approx([200, 10])


def test_sampling_starts_from_the_pictures_of_a_folder(
    go, world, aligned, drawing, generator, prior, tmp_path
):
    ids = sorted(scene.image_id for scene in scenes("test"))
    for image_id in ids:
        file = tmp_path / "first" / f"{Path(image_id).name}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (50, 40), (250, 80, 0)).save(file)
    start = (f"initial.folder={tmp_path / 'first'}", "strength=0.5", "sources=images", "repeats=1")

    result = go("reconstruct", *drawing, *start)

    file = min((result.folder / "samples/images").rglob("00.png"))
    image_id = file.parent.relative_to(result.folder / "samples/images").as_posix()
    embedded, seed = embedding(world, image_id), [seed_of(0, image_id, 0)]
    colour = torch.tensor([250, 80, 0]).view(1, 3, 1, 1).expand(-1, -1, 32, 32) / 255
    (expected,) = generate(generator, prior, embedded, seed, initial=colour, strength=0.5)
    (without,) = generate(generator, prior, embedded, seed)
    assert gap(expected, Image.open(file)) <= 1 < gap(without, Image.open(file))
    assert "from pictures at strength 0.5" in result.tables[0].note
    assert go("reconstruct", *drawing, *start).folder == result.folder
    for left in (tmp_path / "first").iterdir():
        Image.new("RGB", (50, 40), (0, 80, 250)).save(left)
    assert go("reconstruct", *drawing, *start).folder != result.folder  # they start otherwise now
    last = max((result.folder / "samples/images").rglob("00.png")).parent.name
    (tmp_path / "first" / f"{last}.png").unlink()
    with pytest.raises(MissingData, match=f"has no picture of .*{last}"):
        go("reconstruct", *drawing, *start, "seed=1", "batch_size=1")
    assert len([run for run in result.folder.parent.iterdir() if (run / "samples").is_dir()]) == 2


def test_sampling_starts_from_latents_decoded_from_signals(go, world, drawing, runs, aligned, generator):
    architecture = "{block_out_channels: [8], norm_num_groups: 4}"
    vae = f"{{kind: diffusers_vae, source: random, resolution_px: 8, architecture: {architecture}}}"
    go(
        "embed",
        *drawing[:1],
        "dataset={kind: demo, noise: 0.3, subjects: 2, concepts: 40}",
        f"encoders=[{vae}]",
    )
    small = (
        "dataset={kind: demo, noise: 0.3, subjects: 2, concepts: 40}",
        f"encoders=[{vae}]",
        "subjects=1",
        "seeds=1",
    )
    latents = go(
        "train-align",
        *small,
        runs,
        "fuser.kind=concatenation",
        "dim=256",
        "train.epochs=1",
        "train.selection=test",
        "train.precision=fp32",
    ).folder
    start = (f"initial.align_run={latents}", "strength=0.5", "sources=images,brain", "repeats=1")

    result = go("reconstruct", *drawing, *start, f"align_run={aligned}")

    root = result.folder / "samples/images"
    image_ids = [file.parent.relative_to(root).as_posix() for file in sorted(root.rglob("00.png"))]
    recipe = reconstruct.Recipe.resolve("reconstruct", None, {}, [*drawing, *start])
    initial = find_start_pictures(recipe)
    made = sdxl.Config(source=str(generator)).build()
    tokens = Decoded({"token": torch.zeros(3, 32)})
    ceiling = DecodedSet("images", None, None, image_ids, image_ids, tokens)
    brain = DecodedSet("brain", Cell("sub-01_seed-1", (1,), (1,), 1), 1, image_ids, image_ids, tokens)
    (path,) = (world / "embeddings").glob("demo*/test/local--random*.h5")
    store = TargetStore.open(path)
    true = torch.from_numpy(np.array(store.embedding[store.rows(image_ids)]))
    assert torch.allclose(
        initial.pictures(ceiling, [1], made), made.decode(true[1].view(1, 4, 8, 8)), atol=1e-5
    )
    decoded = made.encode(initial.pictures(brain, [0, 1, 2], made))
    assert decoded.isfinite().all() and not torch.allclose(decoded[0], decoded[1])
    dealt = dataclasses.replace(brain, origin_ids=image_ids[1:] + image_ids[:1])  # as shuffled signals are
    assert torch.equal(initial.pictures(dealt, [0, 1], made), initial.pictures(brain, [1, 2], made))
    usual = np.linalg.norm(np.array(store.embedding), axis=1).mean()
    assert "selected on test" in result.tables[0].note  # as the run of the first guesses was
    lengths = torch.stack(list(initial._latents[brain.name].values())).norm(dim=1)
    assert torch.allclose(lengths, torch.tensor(float(usual)), rtol=0.2)  # those of the training pictures
