"""reconstruct: which run it takes, what it draws, and what it measures."""

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor
from typer.testing import CliRunner

from brainhive_cli import encoders
from brainhive_cli.alignment.cells import Cell
from brainhive_cli.alignment.learned import Learned, hashes_of
from brainhive_cli.app import app
from brainhive_cli.core.decoded import Decoded
from brainhive_cli.core.errors import BrainhiveError, DeviceError, MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.views import to_pictures
from brainhive_cli.demo.pictures import draw, scenes
from brainhive_cli.generators import Sampling, sdxl
from brainhive_cli.metrics import image as metrics
from brainhive_cli.pipelines import reconstruct
from brainhive_cli.priors.fusion_prior import FusionPrior
from brainhive_cli.reconstruction import sheet_selection
from brainhive_cli.reconstruction.conditions import TokenSet, _shuffled
from brainhive_cli.reconstruction.generation import seed_of
from brainhive_cli.reconstruction.initial_images import Start, initial_of
from brainhive_cli.reconstruction.reranker import Reranker
from brainhive_cli.stores.target_store import TargetStore

COLOURS = "python:brainhive_cli.encoders.python:example"


@pytest.fixture
def settings(drawing: tuple[str, ...]) -> tuple[str, ...]:
    """Overrides that draw three pictures twice, at 32 px, from the brain."""
    return drawing


def align(go, small, *overrides: str) -> Path:
    return go("train-align", *small, "subjects=1", "train.epochs=3", *overrides).folder


def drawn(folder: Path) -> dict[str, np.ndarray]:
    files = sorted((folder / "samples").rglob("*.png"))
    return {file.relative_to(folder).as_posix(): np.asarray(Image.open(file), np.int16) for file in files}


def test_pictures_do_not_depend_on_the_batch_size(go, aligned, settings):
    one, five = (
        drawn(go("reconstruct", *settings, f"batch_size={size}", again=True).folder) for size in (1, 5)
    )

    assert one.keys() == five.keys() and len(one) == 6
    assert max(np.abs(one[name] - five[name]).max() for name in one) <= 1  # rounding to bytes


def test_every_item_and_repeat_has_noise_of_its_own(go, aligned, settings):
    pictures = list(drawn(go("reconstruct", *settings).folder).values())

    for index, picture in enumerate(pictures):
        assert all(np.abs(picture - other).max() > 10 for other in pictures[index + 1 :])
    others = drawn(go("reconstruct", *settings, "seed=1").folder).values()
    assert all(np.abs(one - other).max() > 10 for one, other in zip(pictures, others, strict=True))


def test_the_seed_of_noise_depends_on_item_repeat_candidate_and_the_recipes_seed():
    drawn = [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1)]
    assert len({seed_of(*each) for each in drawn}) == len(drawn)


def test_pictures_of_a_run_that_was_selected_on_test_say_so_also_when_they_are_scored(
    go, settings, small, runs, prior, monkeypatch, tmp_path
):
    titles: list[str] = []
    original = sheet_selection.reconstruction_sheet
    monkeypatch.setattr(
        sheet_selection,
        "reconstruction_sheet",
        lambda title, rows: titles.append(title) or original(title, rows),
    )
    align(go, small, runs, f"prior={prior}", "train.selection=test")

    drawn = go("reconstruct", *settings, "sheet_rows=2")
    page = drawn.files["page"].read_text()
    for file in (drawn.folder / "samples").rglob("00.png"):  # any pictures of these names
        truth = (tmp_path / "truth" / file.parent.name).with_suffix(".png")
        truth.parent.mkdir(exist_ok=True)
        Image.open(file).save(truth)
    scored = go(
        "reconstruct", f"score={drawn.folder}/samples", f"truth={tmp_path}/truth", "metrics=pixcorr", runs
    )

    for caveat in ("simulated", "selected on test"):
        for result in (drawn, scored):
            assert caveat in result.metrics["caveats"]
            assert all(caveat in table.title for table in result.tables)
            assert all(caveat in metric["protocol"] for metric in result.metrics["overall"].values())
        assert titles and all(caveat in title for title in titles)
        assert caveat in re.search("<h1>(.*)</h1>", page)[1]


def test_pictures_that_the_prior_was_trained_to_draw_are_refused(go, aligned, settings, prior, tmp_path):
    shutil.copytree(prior, tmp_path / "seen")
    ids = scenes("test")[0].image_id, "other"
    Learned(pictures=np.sort(hashes_of("demo-noise-0.3", ids))).write(tmp_path / "seen")

    with pytest.raises(BrainhiveError, match="was trained on 1 of the 3 pictures of demo"):
        go("reconstruct", *settings, f"align_run={aligned}", f"prior={tmp_path / 'seen'}")


def test_a_resumed_reconstruct_draws_only_what_is_missing(go, aligned, settings):
    folder = go("reconstruct", *settings).folder
    whole, files = drawn(folder), sorted((folder / "samples").rglob("*.png"))
    (folder / "metrics.json").unlink()
    files[2].unlink()
    inodes = {file: file.stat().st_ino for file in files if file.exists()}

    again = go("reconstruct", *settings).folder

    assert again == folder
    assert {file: file.stat().st_ino for file in inodes} == inodes
    assert all(np.abs(drawn(folder)[name] - whole[name]).max() <= 1 for name in whole)


def test_the_newest_run_that_fits_the_prior_is_taken_and_named(
    go, aligned, settings, small, runs, prior, capsys
):
    newest = align(go, small, runs, f"prior={prior}", "seeds=2")
    align(go, small, runs)  # newer, but with a fusion encoder of its own

    result = go("reconstruct", *settings)

    assert result.folder.name.startswith(newest.name)
    assert f"align run: {newest}" in capsys.readouterr().err


def test_one_variant_of_a_sweep_is_drawn_from_and_a_whole_sweep_is_refused(
    go, world, settings, small, runs, prior
):
    sweep = align(go, small, runs, f"prior={prior}", "train.epochs=1", "sweep.train.lr=1e-3,2e-3")

    for asked in ((), (f"align_run={sweep.name}",)):
        with pytest.raises(RecipeError, match="is a sweep: name one of its variants") as caught:
            go("reconstruct", *settings, *asked)
        assert caught.value.hint == f"{sweep.name}:lr=1e-3 or {sweep.name}:lr=2e-3"
    result = go("reconstruct", *settings, f"align_run={sweep.name}:lr=2e-3")

    assert {path.split("/")[1] for path in drawn(result.folder)} == {"lr=2e-3"}
    assert "lr=2e-3" in result.folder.name


def test_without_a_fitting_run_the_line_that_makes_one_is_given(go, world, settings, small, runs, prior):
    align(go, small, runs)

    with pytest.raises(MissingData, match="no finished align run") as caught:
        go("reconstruct", *settings)

    assert (
        caught.value.hint == f"brainhive train-align --prior {prior} && brainhive reconstruct --prior {prior}"
    )


@pytest.mark.parametrize("is_shipped", [True, False])
def test_that_line_names_the_data_that_the_prior_is_for(home, prior, is_shipped):
    """A shipped recipe's, or those of the training that the prior comes from."""
    own = home / "run" / "model"
    shutil.copytree(prior, own)
    (own.parent / "environment.json").write_text("{}")
    (own.parent / "recipe.yaml").write_text(f"dataset: {{kind: demo, noise: 0.3}}\nencoders: ['{COLOURS}']")

    asked = ["--recipe", "demo"] if is_shipped else ["--prior", str(own)]
    refused = CliRunner().invoke(app, ["reconstruct", *asked])
    line = re.findall("brainhive (train-align .*?)(?: && |$)", refused.stderr, re.MULTILINE)[0]
    what = json.loads(CliRunner().invoke(app, [*shlex.split(line), "--check", "--json"]).stdout)["recipe"]

    assert refused.exit_code == MissingData.exit_code
    assert what["prior"] == ("demo:prior" if is_shipped else str(own))
    assert (what["dataset"]["kind"], what["dataset"]["noise"]) == ("demo", 1.0 if is_shipped else 0.3)


def test_a_plan_reads_the_prior_once_and_tells_the_run_once(aligned, settings, capsys, monkeypatch):
    what = reconstruct.Recipe.resolve("reconstruct", None, {}, settings)
    loaded: list[str] = []
    load = FusionPrior.load
    monkeypatch.setattr(FusionPrior, "load", lambda source: loaded.append(source) or load(source))

    assert not reconstruct.plan(what).missing

    assert len(loaded) == 1
    assert capsys.readouterr().err.count(f"align run: {aligned}") == 1


def test_tokens_of_another_size_are_refused_with_both_sizes(go, world, settings, small, runs, prior):
    run = align(go, small, runs, "dim=32")

    with pytest.raises(BrainhiveError, match=r"have 32 dimensions, those of .* 64") as caught:
        go("reconstruct", *settings, f"align_run={run.name}")
    assert (
        caught.value.hint == f"brainhive train-align --prior {prior} && brainhive reconstruct --prior {prior}"
    )


def test_tokens_of_another_fusion_encoder_are_warned_of(go, world, settings, small, runs, capsys):
    run = align(go, small, runs)

    go("reconstruct", *settings, f"align_run={run.name}")

    assert "trained against another fusion encoder" in capsys.readouterr().err


def test_the_priors_adapter_is_applied_or_skipped(go, aligned, settings):
    applied, skipped = (go("reconstruct", *settings, f"adapter={adapter}") for adapter in ("apply", "skip"))

    pairs = zip(drawn(applied.folder).values(), drawn(skipped.folder).values(), strict=True)
    assert all(np.abs(one - other).max() > 1 for one, other in pairs)
    assert "adapter apply" in applied.metrics["overall"]["ssim"]["protocol"]


def test_metrics_are_those_of_the_pictures_on_disk(go, aligned, settings):
    result = go("reconstruct", *settings, f"metric_encoders=[{COLOURS!r}]")

    by_id = {scene.image_id: draw(scene) for scene in scenes("test")}
    files = sorted((result.folder / "samples" / "sub-01_seed-1" / "sub-01").rglob("00.png"))
    ids = [
        file.parent.relative_to(result.folder / "samples/sub-01_seed-1/sub-01").as_posix() for file in files
    ]
    encoder = encoders.resolve(COLOURS).build()

    def prepared(pictures: list[Image.Image]) -> torch.Tensor:
        return torch.stack([metrics.prepare(pil_to_tensor(p)[None] / 255, "brainhive")[0] for p in pictures])

    def features(pictures: list[Image.Image]) -> torch.Tensor:
        return torch.stack([encoder.preprocess(picture).flatten() for picture in pictures])

    seen, expected = [by_id[image_id] for image_id in ids], []
    for repeat in range(2):
        made = [Image.open(file.with_name(f"{repeat:02d}.png")) for file in files]
        truth, drawn = prepared(seen), prepared(made)
        two_way = metrics.two_way(features(seen), features(made))
        expected.append(torch.stack([metrics.pixcorr(truth, drawn), metrics.ssim(truth, drawn), two_way]))
    items = result.metrics["cells"]["sub-01_seed-1/sub-01"]["items"]
    found = torch.tensor([list(items[image_id].values()) for image_id in ids]).T
    assert torch.allclose(found, torch.stack(expected).mean(0).to(found.dtype), atol=1e-6)
    overall = result.metrics["overall"]
    assert overall["pixcorr"]["value"] == pytest.approx(float(found[0].mean()), abs=1e-6)
    name = "two_way_brainhive_cli-encoders-python-example"
    assert (overall[name]["n"], overall[name]["chance"]) == (3, 0.5)
    assert overall["ssim"]["low"] <= overall["ssim"]["value"] <= overall["ssim"]["high"]


def test_sheets_show_every_subject_and_the_best_and_worst(go, aligned, settings):
    result = go("reconstruct", *settings, "sheet_rows=2", "sources=brain,shuffled")

    sheets = {file.relative_to(result.folder).as_posix() for file in result.folder.glob("**/*.png")}
    cell = "sub-01_seed-1/sub-01"
    wanted = {"contact_sheet.png", "best.png", "worst.png", f"sheets/{cell}.png"}
    assert {name for name in sheets if "samples" not in name} == wanted | {f"sheets/shuffled/{cell}.png"}
    assert {"contact sheet", "best", "worst", "page"} == result.files.keys()
    page = result.files["page"].read_text()
    assert page.count('src="data:image/png;base64,') == page.count("<img") == 5
    assert "pixcorr" in page


def embedding(world: Path, image_id: str) -> torch.Tensor:
    (path,) = world.glob("embeddings/demo-noise-0.3/test/*example.h5")
    store = TargetStore.open(path)
    return torch.from_numpy(np.array(store.embedding[store.rows([image_id])]))


def painted(
    generator: Path, prior: Path, embedded: torch.Tensor, seeds: list[int], **more: Any
) -> list[Image.Image]:
    """Draw pictures of an embedding without the pipeline."""
    made, fusion = sdxl.Config(source=str(generator)).build(), FusionPrior.load(str(prior))
    fusion.attach(made)
    with torch.inference_mode():
        token = fusion.fuse({"brainhive_cli-encoders-python-example": embedded}).expand(len(seeds), -1)
        given = dataclasses.replace(
            fusion.condition(Decoded({"token": token}), seeds), start=more.pop("initial", None)
        )
        return to_pictures(made.generate(given, seeds, 32, Sampling(steps=2, **more)))


def gap(one: Image.Image, other: Any) -> int:
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())


def test_image_tokens_are_the_ceiling_drawn_once_for_all_cells(
    go, world, aligned, settings, generator, prior
):
    result = go("reconstruct", *settings, "sources=images,brain")

    files = sorted((result.folder / "samples/images").rglob("*.png"))
    assert len(files) == 6
    image_id = files[0].parent.relative_to(result.folder / "samples/images").as_posix()
    (expected,) = painted(generator, prior, embedding(world, image_id), [seed_of(0, image_id, 0)])
    assert gap(expected, Image.open(files[0])) <= 1
    assert list(result.metrics["sources"]) == ["images", "brain"]
    assert result.metrics["overall"] == result.metrics["sources"]["images"]
    rows = [row[:2] for row in result.tables[0].rows]
    assert rows == [(m, f) for m in ("pixcorr", "ssim") for f in ("images, ceiling", "brain")]


def test_shuffled_signals_are_dealt_to_other_items_each_once():
    ids = [f"item {n}" for n in range(9)]
    cell = Cell("intra", (1,), (1,), 5)
    take = TokenSet("brain", cell, 1, ids, ids, torch.arange(9.0)[:, None])

    shuffled = _shuffled(take)

    assert sorted(shuffled.made_of) == ids and all(a != b for a, b in zip(ids, shuffled.made_of, strict=True))
    assert [ids[int(n)] for n in shuffled.tokens[:, 0]] == shuffled.made_of
    assert shuffled.made_of == _shuffled(take).made_of
    with pytest.raises(RecipeError, match="one signal cannot be shuffled"):
        _shuffled(take.first(1))


def test_one_item_can_be_drawn_from_a_signal_dealt_from_all(go, aligned, settings):
    result = go("reconstruct", *settings, "sources=shuffled", "items=1", "repeats=1")
    assert len(drawn(result.folder)) == 1


def test_a_shuffled_signal_starts_from_the_picture_of_its_own_item(tmp_path):
    for name, grey in (("a", 10), ("b", 200)):
        Image.new("RGB", (8, 8), (grey,) * 3).save(tmp_path / f"{name}.png")
    take = TokenSet(
        "shuffled", Cell("sub-01_seed-1", (1,), (1,), 1), 1, ["a", "b"], ["b", "a"], torch.zeros(2, 3)
    )

    initial = initial_of(Start(folder=str(tmp_path)), "test", 16, Paths())

    greys = initial.pictures(take, [0, 1], None).mean((1, 2, 3)) * 255
    assert greys.tolist() == pytest.approx([200, 10])


def test_the_best_of_several_is_the_one_most_like_its_token(go, world, aligned, settings, generator, prior):
    result = go("reconstruct", *settings, "sources=images", "best_of=3", "items=2", "repeats=1")

    file = min((result.folder / "samples/images").rglob("00.png"))
    image_id = file.parent.relative_to(result.folder / "samples/images").as_posix()
    embedded = embedding(world, image_id)
    candidates = painted(generator, prior, embedded, [seed_of(0, image_id, 0, c) for c in range(3)])
    fusion = FusionPrior.load(str(prior))
    judge = Reranker([encoders.resolve(COLOURS)], fusion, Launch(0, 1, torch.device("cpu")))
    token = fusion.fuse({"brainhive_cli-encoders-python-example": embedded})
    similarity = judge.similarity(candidates, token.expand(3, -1))
    gaps = [gap(candidate, Image.open(file)) for candidate in candidates]
    assert gaps[int(similarity.argmax())] <= 1 and sorted(gaps)[1] > 1
    assert "each the best of 3 by its token" in result.tables[0].title


def test_a_prior_of_scale_zero_says_nothing(go, aligned, settings):
    result = go("reconstruct", *settings, "prior.scale=0", "sources=brain,shuffled", "repeats=1")

    pictures = drawn(result.folder)
    for name, picture in pictures.items():
        if "shuffled" not in name:
            assert np.abs(picture - pictures[name.replace("samples/", "samples/shuffled/")]).max() <= 1
    assert "scale 0" in result.tables[0].title
    assert reconstruct.Recipe.resolve("reconstruct", None, {"prior": "x"}, ["prior.scale=2"]).prior.scale == 2


def test_drawing_starts_from_the_pictures_of_a_folder(
    go, world, aligned, settings, generator, prior, tmp_path
):
    ids = sorted(scene.image_id for scene in scenes("test"))
    for image_id in ids:
        file = tmp_path / "first" / f"{Path(image_id).name}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (50, 40), (250, 80, 0)).save(file)
    start = (f"initial.folder={tmp_path / 'first'}", "initial.strength=0.5", "sources=images", "repeats=1")

    result = go("reconstruct", *settings, *start)

    file = min((result.folder / "samples/images").rglob("00.png"))
    image_id = file.parent.relative_to(result.folder / "samples/images").as_posix()
    embedded, seed = embedding(world, image_id), [seed_of(0, image_id, 0)]
    colour = torch.tensor([250, 80, 0]).view(1, 3, 1, 1).expand(-1, -1, 32, 32) / 255
    (expected,) = painted(generator, prior, embedded, seed, initial=colour, strength=0.5)
    (without,) = painted(generator, prior, embedded, seed)
    assert gap(expected, Image.open(file)) <= 1 < gap(without, Image.open(file))
    assert "from pictures at strength 0.5" in result.tables[0].title
    assert go("reconstruct", *settings, *start).folder == result.folder
    for left in (tmp_path / "first").iterdir():
        Image.new("RGB", (50, 40), (0, 80, 250)).save(left)
    assert go("reconstruct", *settings, *start).folder != result.folder  # they start otherwise now
    last = max((result.folder / "samples/images").rglob("00.png")).parent.name
    (tmp_path / "first" / f"{last}.png").unlink()
    with pytest.raises(MissingData, match=f"has no picture of .*{last}"):
        go("reconstruct", *settings, *start, "seed=1", "batch_size=1")
    assert len([run for run in result.folder.parent.iterdir() if (run / "samples").is_dir()]) == 2


def test_drawing_starts_from_latents_decoded_from_signals(go, world, settings, runs, aligned, generator):
    architecture = "{block_out_channels: [8], norm_num_groups: 4}"
    vae = f"{{kind: diffusers_vae, source: random, resolution_px: 8, architecture: {architecture}}}"
    go("embed", *settings[:1], "dataset={kind: demo, noise: 0.3, subjects: 2}", f"encoders=[{vae}]")
    small = ("dataset={kind: demo, noise: 0.3, subjects: 2}", f"encoders=[{vae}]", "subjects=1", "seeds=1")
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
    start = (f"initial.align_run={latents}", "initial.strength=0.5", "sources=images,brain", "repeats=1")

    result = go("reconstruct", *settings, *start, f"align_run={aligned}")

    root = result.folder / "samples/images"
    image_ids = [file.parent.relative_to(root).as_posix() for file in sorted(root.rglob("00.png"))]
    what = reconstruct.Recipe.resolve("reconstruct", None, {}, [*settings, *start])
    initial = initial_of(what.initial, "test", 32, what.paths)
    made = sdxl.Config(source=str(generator)).build()
    tokens = torch.zeros(3, 32)
    ceiling = TokenSet("images", None, None, image_ids, image_ids, tokens)
    brain = TokenSet("brain", Cell("sub-01_seed-1", (1,), (1,), 1), 1, image_ids, image_ids, tokens)
    (path,) = (world / "embeddings").glob("demo*/test/local--random*.h5")
    store = TargetStore.open(path)
    true = torch.from_numpy(np.array(store.embedding[store.rows(image_ids)]))
    assert torch.allclose(
        initial.pictures(ceiling, [1], made), made.decode(true[1].view(1, 4, 8, 8)), atol=1e-5
    )
    decoded = made.encode(initial.pictures(brain, [0, 1, 2], made))
    assert decoded.isfinite().all() and not torch.allclose(decoded[0], decoded[1])
    dealt = dataclasses.replace(brain, made_of=image_ids[1:] + image_ids[:1])  # as shuffled signals are
    assert torch.equal(initial.pictures(dealt, [0, 1], made), initial.pictures(brain, [1, 2], made))
    usual = np.linalg.norm(np.array(store.embedding), axis=1).mean()
    assert "selected on test" in result.tables[0].title  # as the run of the first guesses was
    lengths = torch.stack(list(initial._made[brain.name].values())).norm(dim=1)
    assert torch.allclose(lengths, torch.tensor(float(usual)), rtol=0.2)  # those of the training pictures


def refused(*argv: str) -> list[str]:
    """The lines that a command shows when it runs out of memory; its lock goes with its traceback."""
    shown = CliRunner().invoke(app, argv)
    assert shown.exit_code == DeviceError.exit_code
    return shown.stderr.splitlines()[-2:]


def test_out_of_memory_keeps_what_is_drawn_and_the_same_run_goes_on_with_less(
    go, aligned, settings, monkeypatch
):
    from diffusers import UNet2DConditionModel

    forward, calls = UNet2DConditionModel.forward, []

    def full(self: Any, *args: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) > 4:  # two steps a batch
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(UNet2DConditionModel, "forward", full)
        lines = refused("reconstruct", *settings, "batch_size=2")
    assert lines == [
        "error: out of memory: CUDA out of memory. Tried to allocate 2 GiB",
        "  try: batch_size=1, or vae_tiling=true, or offload=true, or metric_batch_size=16; "
        "what is finished is kept",
    ]
    (run,) = (Path(settings[0].removeprefix("paths.runs=")) / "reconstruct").iterdir()
    kept = {file: file.stat().st_ino for file in run.rglob("*.png")}
    assert len(kept) == 4

    assert go("reconstruct", *settings, "batch_size=1").folder == run
    assert {file: file.stat().st_ino for file in kept} == kept and len(drawn(run)) == 6


def test_a_run_of_other_encoders_than_the_priors_is_refused_with_both(go, settings, aligned):
    file = aligned / "recipe.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"encoders": ["demo_clip"]}))

    with pytest.raises(BrainhiveError, match=r"takes the encoders .*python-example, not demo-clip"):
        go("reconstruct", *settings, f"align_run={aligned.name}")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda g, p: (p / "proj" / "config.json").unlink(), r"lacks proj/config\.json"),
        (lambda g, p: shutil.rmtree(p / "attn_adapter"), "lacks attn_adapter/config"),
        (lambda g, p: cut(p / "fusion_encoder/diffusion_pytorch_model.safetensors"), "fusion_encoder"),
        (lambda g, p: cut(g / "unet/diffusion_pytorch_model.safetensors"), "cannot load unet"),
        (lambda g, p: shutil.rmtree(g / "vae"), "has no vae/config"),
        (lambda g, p: unlike(g / "unet/config.json"), "is not SDXL's type"),
    ],
    ids=[
        "a prior's file",
        "a prior's part",
        "a prior cut short",
        "a U-Net cut short",
        "no VAE",
        "another U-Net",
    ],
)
def test_damaged_parts_are_named_in_one_line(
    go, aligned, settings, generator, prior, tmp_path, spoil, message
):
    own = shutil.copytree(generator, tmp_path / "own"), shutil.copytree(prior, tmp_path / "own_prior")
    spoil(*own)

    with pytest.raises(BrainhiveError, match=message) as caught:
        go("reconstruct", *settings, f"generator.source={own[0]}", f"prior={own[1]}")
    assert caught.value.hint and "\n" not in caught.value.message


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def unlike(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "addition_embed_type": None}))


def test_the_plan_counts_pictures_and_estimates_memory_without_loading_weights(
    aligned, settings, generator, tmp_path
):
    own = shutil.copytree(generator, tmp_path / "own")
    cut(own / "unet/diffusion_pytorch_model.safetensors")
    more = (f"generator.source={own}", "sources=brain,images", "best_of=2")

    plan = reconstruct.plan(reconstruct.Recipe.resolve("reconstruct", None, {}, [*settings, *more]))

    assert plan.missing == []
    assert plan.items["pictures"] == "12: 3 items × 2 repeats × 2 cells and sources, of 24 drawn"
    assert plan.items["memory, estimated"].endswith(" MiB")
    shutil.rmtree(own / "unet")
    plan = reconstruct.plan(reconstruct.Recipe.resolve("reconstruct", None, {}, [*settings, *more]))
    assert "has no unet/config.json" in plan.missing[0]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("scheduler=turbo", "no scheduler called 'turbo'"),
        ("metrics=fid", "no image metric called 'fid'"),
        ("negative_prompt=blurry", "negative_prompt has no effect without guidance"),
        ("sources=noise", "sources.0: Input should be 'brain', 'images', 'shuffled', 'zeroed'"),
    ],
)
def test_a_recipe_that_cannot_be_drawn_is_refused_before_anything_is_loaded(asked, message):
    with pytest.raises(RecipeError, match=message):
        reconstruct.Recipe.resolve("reconstruct", None, {}, [asked])


def test_an_unknown_seed_is_named_with_the_known_ones(go, aligned, settings):
    with pytest.raises(MissingData, match=r"no cell of seeds \[7\]") as caught:
        go("reconstruct", *settings, "seeds=1,7")
    assert "[1]" in caught.value.hint


def test_cells_stand_in_a_table_and_an_item_counts_once_over_seeds(go, world, settings, small, runs, prior):
    go("train-align", *small, runs, f"prior={prior}", "subjects=1,2", "seeds=1,2", "train.epochs=1")

    both = go("reconstruct", *settings, "seeds=1,2")
    one = go("reconstruct", *settings, "seeds=2", "subjects=2")

    assert both.tables[0].title == (
        "Reconstruction of test pictures: brainhive, 2 repeats, adapter skip, intra demo-noise-0.3, "
        "simulated, seeds 1, 2"
    )
    assert {metric["n"] for metric in both.metrics["overall"].values()} == {2 * 3}
    cells = ["sub-01_seed-1", "sub-01_seed-2", "sub-02_seed-1", "sub-02_seed-2"]
    assert [row[0] for row in both.tables[1].rows] == cells
    assert both.tables[1].columns == ("cell", "PixCorr", "SSIM", "n")
    name = "sub-02_seed-2/sub-02"
    assert list(one.metrics["cells"]) == [name] and len(one.tables) == 1
    assert one.metrics["cells"][name]["items"] == both.metrics["cells"][name]["items"]
    with pytest.raises(MissingData, match="no subject 3"):
        go("reconstruct", *settings, "subjects=3")


def test_metrics_say_how_their_pictures_were_made():
    how = ("guidance=5", "scheduler=ddim", "prompt=a dog", "negative_prompt=blurry", "repeats=1", "best_of=3")
    what = reconstruct.Recipe.resolve("reconstruct", None, {}, how)

    assert what.made == (
        "1 repeat, each the best of 3 by its token, adapter skip, ddim, guidance 5, "
        "prompt 'a dog', not 'blurry'"
    )
