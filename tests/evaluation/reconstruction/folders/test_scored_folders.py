"""Tests of `reconstruct --score` for folders of pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.results.measurements import ONE_COLOUR
from brainhive_cli.measurement.metrics import image as metrics

PIXELS = "metrics=pixcorr,ssim"


@pytest.fixture
def folders(home):
    """Folders of reconstructions and of three true pictures.

    Two pictures have reconstructions. Another reconstruction has no picture.
    """
    random = np.random.default_rng(0)
    made, truth = home / "made", home / "truth"
    for name in (
        "truth/a/dog.jpg",
        "truth/b/cat.png",
        "truth/b/cow.png",
        "made/dog_0.png",
        "made/dog_1.png",
    ):
        save(home / name, random)
    for name in ("made/cat/0.png", "made/stranger.png"):
        save(home / name, random)
    return made, truth


def save(path, random):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = random.integers(0, 256, (5, 5, 3), np.uint8)
    Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).save(path)


def asked(folders, *arguments):
    return (f"score={folders[0]}", f"truth={folders[1]}") + tuple(arguments)


def test_folders_are_scored_by_name_and_unmatched_files_listed(
    run_command, folders, capsys
):
    result = run_command("reconstruct", *asked(folders, PIXELS, "protocol=mindeye2"))

    def prepared(name):
        return metrics.prepare(
            pil_to_tensor(Image.open(folders[0].parent / name).convert("RGB"))[None]
            / 255
        )

    items = result.metrics.items["scored · made"]
    dog = [
        metrics.pixcorr(prepared("truth/a/dog.jpg"), prepared(f"made/dog_{n}.png"))
        for n in range(2)
    ]
    cat = metrics.pixcorr(prepared("truth/b/cat.png"), prepared("made/cat/0.png"))
    assert items["image_ids"] == ["a/dog", "b/cat"]
    assert items["pixcorr"] == pytest.approx(
        [float(sum(dog)) / 2, float(cat)], abs=1e-6
    )
    assert (result.metrics.facts.unmatched, result.metrics.facts.without) == (
        ["stranger"],
        ["b/cow"],
    )
    warned = capsys.readouterr().err
    assert "stranger" in warned
    assert "b/cow" in warned
    overall = result.metrics.overall["pixcorr"]
    assert (overall.n, overall.protocol) == (2, "mindeye2, 1–2 repeats")
    assert (overall.low, overall.high, overall.interval) == (
        None,
        None,
        "none: 2 pictures are too few",
    )
    assert len((result.folder / "values.csv").read_text().splitlines()) == 1 + 3


def test_true_pictures_among_the_scored_are_left_out_and_named(
    run_command, folders, capsys
):
    """Public code may write the original as sample 0, in another format and size."""
    made, truth = folders
    plain_overall = run_command("reconstruct", *asked(folders, PIXELS)).metrics.overall
    original = Image.open(truth / "a/dog.jpg")
    original.resize((64, 64), Image.Resampling.BICUBIC).save(made / "dog_2.png")
    Image.open(truth / "b/cow.png").save(made / "cow_0.webp", lossless=True)
    capsys.readouterr()

    metrics = run_command("reconstruct", *asked(folders, PIXELS)).metrics

    assert metrics.facts.originals == ["dog_2.png", "cow_0.webp"]
    assert metrics.facts.without == ["b/cow"]
    assert "dog_2.png, cow_0.webp" in capsys.readouterr().err
    assert metrics.overall == plain_overall
    with pytest.raises(BrainhiveError, match=r"\b3 .* b/cat\.png"):
        run_command("reconstruct", f"score={truth}", f"truth={truth}", PIXELS)


def test_pictures_of_one_colour_are_counted_beside_every_number(
    run_command, folders, capsys
):
    Image.new("RGB", (40, 40)).save(folders[0] / "dog_1.png")
    metrics = run_command("reconstruct", *asked(folders, PIXELS)).metrics
    assert [Path(name).name for name in metrics.facts.one_colour] == ["dog_1.png"]
    assert metrics.overall["pixcorr"].caveats == (ONE_COLOUR,)
    assert metrics.facts.caveats == [ONE_COLOUR]
    assert "dog_1.png" in capsys.readouterr().err


def test_metrics_with_new_weights_are_added_by_the_same_command(
    run_command, folders, image_networks_absent, image_weights
):
    several = asked(folders, "metrics=pixcorr,effnet")
    first_result = run_command("reconstruct", *several)
    assert list(first_result.metrics.overall) == ["pixcorr"]
    assert list(first_result.metrics.missing) == ["effnet"]
    assert "Eff ↓" in first_result.tables[0].note

    image_networks_absent.mkdir(parents=True)
    (image_networks_absent / "efficientnet_b1-c27df63c.pth").symlink_to(
        image_weights / "efficientnet_b1-c27df63c.pth"
    )

    second = run_command("reconstruct", *several)
    assert second.folder == first_result.folder
    assert list(second.metrics.overall) == ["effnet", "pixcorr"]
    assert not second.metrics.missing


def test_one_picture_has_its_own_metrics_and_no_identification(
    run_command, folders, home, image_networks_absent, capsys
):
    alone = [f"score={folders[0] / 'cat'}", f"truth={home / 'one'}"]
    save(home / "one" / "0.png", np.random.default_rng(1))
    encoder = "metric_encoders=['python:brainhive_cli.models.encoders.python:example']"

    result = run_command("reconstruct", *alone, encoder, PIXELS)
    assert list(result.metrics.overall) == ["pixcorr", "ssim"]
    scope = result.metrics.facts.scope
    assert scope
    assert result.tables[0].note.startswith(f"for {scope}. ")
    assert "Protocol: brainhive, 1 repeat" in result.tables[0].note
    assert "identification" in capsys.readouterr().err
    with pytest.raises(BrainhiveError) as caught:
        run_command("reconstruct", *alone, encoder, "metrics=swav")
    assert "curl" in caught.value.hint


def test_what_cannot_be_scored_is_refused(run_command, folders, home):
    with pytest.raises(RecipeError) as caught:
        run_command("reconstruct", f"score={folders[0]}")
    assert "--truth" in caught.value.hint
    save(home / "others" / "x.png", np.random.default_rng(0))
    with pytest.raises(MissingData, match=r"'x' .*'a/dog'"):
        run_command("reconstruct", f"score={home / 'others'}", f"truth={folders[1]}")
    (folders[0] / "dog_1.png").write_bytes(b"no picture")
    with pytest.raises(BrainhiveError, match=r"dog_1\.png"):
        run_command("reconstruct", *asked(folders, PIXELS))
