"""reconstruct: which run it takes, what it draws, and what it measures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from brainhive_cli import encoders
from brainhive_cli.demo.pictures import draw, scenes
from brainhive_cli.errors import BrainhiveError, MissingData
from brainhive_cli.metrics import image as metrics

COLOURS = "python:brainhive_cli.encoders.python:example"


@pytest.fixture
def runs(tmp_path: Path) -> str:
    """An override that gives this test runs of its own."""
    return f"paths.runs={tmp_path / 'runs'}"


@pytest.fixture
def settings(world: Path, runs: str, generator: Path, prior: Path) -> tuple[str, ...]:
    """Overrides that draw three pictures twice, at 32 px."""
    return (
        runs,
        f"prior={prior}",
        f"generator={{kind: sdxl, source: {generator}}}",
        "items=3",
        "repeats=2",
        "resolution_px=32",
        "steps=2",
    )


@pytest.fixture
def aligned(world: Path, runs: str, small, go, prior: Path) -> Path:
    """An align run against the prior."""
    return align(go, small, runs, f"prior={prior}")


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


def test_without_a_fitting_run_the_line_that_makes_one_is_given(go, world, settings, small, runs, prior):
    align(go, small, runs)

    with pytest.raises(MissingData, match="no finished align run") as caught:
        go("reconstruct", *settings)

    encoder = "brainhive_cli-encoders-python-example"
    assert caught.value.hint == f"brainhive train-align --prior {prior} --encoders {encoder}"


def test_tokens_of_another_size_are_refused_with_both_sizes(go, world, settings, small, runs, prior):
    run = align(go, small, runs)

    with pytest.raises(BrainhiveError, match=r"have 64 dimensions, those of .* 32") as caught:
        go("reconstruct", *settings, f"align_run={run.name}")
    assert caught.value.hint == f"brainhive train-align --prior {prior}"


def test_tokens_of_another_fusion_encoder_are_warned_of(go, world, settings, small, runs, capsys):
    run = align(go, small, runs, "dim=32", "fuser.intermediate_size=64")

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
    assert "not measured: clip" in page and "pixcorr" in page


def test_an_unknown_seed_is_named_with_the_known_ones(go, aligned, settings):
    with pytest.raises(MissingData, match=r"no cell of seeds \[7\]") as caught:
        go("reconstruct", *settings, "seeds=7")
    assert "[1]" in caught.value.hint
