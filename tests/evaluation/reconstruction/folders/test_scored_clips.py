"""Tests of `reconstruct --score` for folders of clips."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.data.media import media_files
from brainhive_cli.evaluation.reconstruction.metric_parts import CLIP_METRICS
from tests.worlds.clips import (
    draw_clip,
    place_side_by_side,
    save_animation,
    save_frames,
)

FAST = "metrics=frame_ssim,frame_psnr"
NAMES = ("0", "1", "2")


def noisy(frames):
    noise = np.random.default_rng(0).normal(0, 12, frames.shape)
    return (frames + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture
def truth(home):
    """Folder of three true clips, each a folder of frames."""
    for number, name in enumerate(NAMES):
        save_frames(home / "truth" / name, draw_clip(number))
    return home / "truth"


def scored(path, truth, *arguments):
    return (f"score={path}", f"truth={truth}", "sheet_rows=0") + tuple(arguments)


@pytest.mark.nightly
def test_folders_of_frames_are_scored_with_floor_and_still(run_command, home, truth):
    for number in range(4):
        save_frames(truth / f"{number}", draw_clip(number))
        save_frames(home / "made" / f"{number}", noisy(draw_clip(number)))

    result = run_command(
        "reconstruct", *scored(home / "made", truth, FAST, "medium=clip")
    )

    metrics = result.metrics
    assert metrics.facts.sources == ["scored", "shuffled", "still"]
    values = {
        source: metrics.scopes[source]["frame_ssim"].value
        for source in metrics.facts.sources
    }
    assert values["scored"] > 0.5
    assert values["scored"] > max(values["shuffled"], values["still"]) + 0.05
    ours, still = (
        metrics.items[scope]["frame_psnr"]
        for scope in ("scored · made", "still · made")
    )
    assert all(our > b for our, b in zip(ours, still, strict=True))
    psnr = metrics.overall["frame_psnr"]
    few = (
        "none: all items are of one unit (a block of fewer than 360 neighbouring clips)"
    )
    assert (psnr.n, psnr.interval) == (4, few)
    stills = [
        media_files.read(file)
        for file in sorted(result.folder.rglob("baselines/**/*.png"))
    ]
    assert len(stills) == 4
    assert all((each.frames == each.frames[:1]).all() for each in stills)


def test_neurons_two_columns_are_cut_at_their_border(run_command, home):
    for number, name in enumerate(NAMES):
        true_clip = draw_clip(number)
        save_animation(
            home / "gifs" / f"{name}-a square moves.gif",
            place_side_by_side(true_clip, true_clip),
        )

    metrics = run_command("reconstruct", *scored(home / "gifs", "left", FAST)).metrics

    # equal, to the pixel
    assert metrics.overall["frame_psnr"].value == pytest.approx(58.92, abs=0.01)
    columns = [
        media_files.read_animation(home / "gifs/0-a square moves.gif").frames[
            :, :, half
        ]
        for half in (slice(0, 27), slice(27, 54))
    ]
    assert not np.array_equal(*columns)  # as cut in the middle: a single column apart


def test_clips_with_other_frames_or_names_are_refused(run_command, home, truth):
    save_frames(home / "long/0", draw_clip(0, frames=16))
    with pytest.raises(BrainhiveError, match=r"\b16 frames .*\b6 frames"):
        run_command("reconstruct", *scored(home / "long", truth, FAST, "medium=clip"))

    save_animation(home / "others/9.gif", draw_clip(0))
    with pytest.raises(MissingData, match=r"'9' .*'0'"):
        run_command("reconstruct", *scored(home / "others", truth, FAST))


@pytest.mark.nightly
def test_clips_have_all_metrics_with_chance_beside_the_stimuli(
    run_command, home, truth, clip_networks
):
    for number, name in enumerate(NAMES):
        save_frames(home / "made" / name, noisy(draw_clip(number)))
    # which take seconds
    names = [name for name in CLIP_METRICS if "ssim" not in name and name != "epe"]
    names += ["video_40way", "frame_40way_strict"]

    result = run_command(
        "reconstruct",
        *scored(home / "made", truth, "medium=clip", f"metrics={','.join(names)}"),
    )

    metrics = result.metrics
    assert set(metrics.overall) == set(names)
    assert not metrics.missing
    chances = {
        name: metric.chance
        for name, metric in metrics.overall.items()
        if metric.chance is not None
    }
    assert chances == {
        **{f"{what}_2way": 0.75 for what in ("video", "frame")},
        **{f"{what}_50way": pytest.approx(3 / 52) for what in ("video", "frame")},
        **{f"{what}_2way_strict": 0.5 for what in ("video", "frame")},
        **{f"{what}_50way_strict": 0.02 for what in ("video", "frame")},
        "video_40way": pytest.approx(3 / 42),
        "frame_40way_strict": 1 / 40,
        "videomae": 0.5,
    }
    assert metrics.overall["video_50way"].pool == 50
    assert metrics.overall["videomae"].pool == 3
    assert set(metrics.scopes["truth"]) == {"clip_pcc", "clip_pcc_neighbours"}
    assert metrics.scopes["still"]["clip_pcc"].value == pytest.approx(1, abs=1e-6)
    truth_less = [
        row.metric for row in metrics.facts.comparisons if row.second == "truth"
    ]
    assert set(truth_less) == {"clip_pcc", "clip_pcc_neighbours"}
    assert "stimuli themselves" in result.tables[0].columns
    assert "40-way (video)" in str(result.tables[0].rows)
