"""Clips go the way of pictures: from a generator to files, and from files to metrics and sheets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.facts import ReconstructionFacts
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.datasets import Clip
from brainhive_cli.data.media import media_files
from brainhive_cli.evaluation.reconstruction.evaluation import measure_run
from brainhive_cli.evaluation.reconstruction.generation import DecodedSet, Sampler, generate
from brainhive_cli.evaluation.reconstruction.recipe import Output, Scoring
from brainhive_cli.evaluation.reconstruction.scoring import GeneratedSet, Stimuli
from brainhive_cli.models import priors
from brainhive_cli.models.generators import Sampling, sdxl
from brainhive_cli.models.heads import Conditioning, Decoded
from brainhive_cli.training.alignment.recipe import Cell

HERE = Launch(0, 1, torch.device("cpu"))
FRAMES, IDS = 4, ["a", "b", "c"]
WIDTH = sdxl.TINY.build().unet.config.cross_attention_dim


class Panning:
    """A generator of clips: a picture of the tiny generator that moves to the right, frame by frame."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._pictures = sdxl.TINY.build(device, dtype)

    def spare_memory(self, offload_to: torch.device | None, tile: bool) -> None:
        self._pictures.spare_memory(offload_to, tile)

    def generate(self, conditioning: Conditioning, seeds: Sequence[int], *more: Any, **options: Any) -> Any:
        first = self._pictures.generate(conditioning, seeds, *more, **options)  # [B, 3, H, W]
        return torch.stack([first.roll(2 * frame, -1) for frame in range(FRAMES)], 1)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, GeneratedSet]:
    """Two clips of each of three items, generated through the identity prior."""
    folder = RunFolder(tmp_path_factory.mktemp("clips"))
    tokens = 5 * torch.randn(len(IDS), WIDTH, generator=torch.Generator().manual_seed(0))
    brain = DecodedSet("brain", Cell("intra", (1,), (1,), 1), 1, IDS, Decoded({"token": tokens}))
    output, sampling = Output(resolution_px=32, batch_size=4), Sampling(steps=1)
    sampler = Sampler(Panning, priors.load("identity"), output, sampling, HERE.device)
    generate(sampler, brain, folder, HERE, 2, 0)
    files = {i: [folder.path / brain.file(i, repeat) for repeat in range(2)] for i in IDS}
    return folder, GeneratedSet("brain", brain.name, (1,), files, 1, "2 repeats")


def stimuli(made: GeneratedSet) -> Stimuli:
    """Stimuli that equal the first clip of each item."""
    return Stimuli(lambda i: media_files.read(made.files[i][0]), str)


def test_a_clip_is_one_file_with_all_its_frames(generated):
    _, made = generated

    clips = [media_files.read(file) for _, file in made.media]

    assert all(isinstance(clip, Clip) and clip.frames.shape == (FRAMES, 32, 32, 3) for clip in clips)
    for clip in clips:
        assert np.abs(clip.frames[1].astype(int) - np.roll(clip.frames[0], 2, 1)).max() <= 1
    assert len({clip.frames.tobytes() for clip in clips}) == len(clips)


def test_clips_are_measured_frame_by_frame_and_shown_on_sheets(generated):
    folder, made = generated

    scoring = Scoring(metrics=["frame_pixcorr", "frame_ssim"], sheet_rows=2)

    measure_run(folder, scoring, [made], stimuli(made), "test", HERE, {}, ReconstructionFacts())

    found = folder.measurements()
    assert list(found.overall) == ["frame_pixcorr", "frame_ssim"]
    rows = (folder.path / "values.csv").read_text().splitlines()[1:]
    assert [row.split(",")[-1] for row in rows[::2]] == ["1.0"] * 3  # the first of each is the stimulus
    assert all(float(row.split(",")[-1]) < 0.99 for row in rows[1::2])
    assert Image.open(folder.path / "contact_sheet.png").size[0] > 0


def test_clips_of_other_lengths_are_refused_in_one_line(generated):
    folder, made = generated
    lengths = {i: 2 + place for place, i in enumerate(IDS)}
    seen = Stimuli(lambda i: Clip(np.zeros((lengths[i], 32, 32, 3), np.uint8), 8), str)

    refusal = r"a clip of \d frames cannot be compared with clips of 2"
    with pytest.raises(BrainhiveError, match=refusal) as caught:
        measure_run(
            folder,
            Scoring(metrics=["frame_ssim"], sheet_rows=0),
            [made],
            seen,
            "test",
            HERE,
            {},
            ReconstructionFacts(),
        )
    assert caught.value.hint == "bring all clips to one number of frames"


def test_metrics_of_pictures_are_refused_for_clips(generated):
    folder, made = generated

    with pytest.raises(RecipeError, match="ssim does not compare clips") as caught:
        measure_run(
            folder, Scoring(metrics=["ssim"]), [made], stimuli(made), "test", HERE, {}, ReconstructionFacts()
        )
    assert "frame_ssim" in caught.value.hint


def test_a_keyframe_counts_as_a_clip_that_holds_it_still(generated, tmp_path):
    _, made = generated
    stills, frames = {}, {}
    for image_id, files in made.files.items():
        first = media_files.read(files[1]).frames[:1]
        stills[image_id], frames[image_id] = [tmp_path / f"{image_id}.png"], [tmp_path / f"{image_id}-s.png"]
        media_files.save(first[0], stills[image_id][0])
        media_files.save(np.repeat(first, FRAMES, 0), frames[image_id][0])
    keys, held = (GeneratedSet("brain", f"{n}", (1,), files, 1) for n, files in enumerate([stills, frames]))

    scoring = Scoring(metrics=["frame_pixcorr"], sheet_rows=1)
    folder = RunFolder(tmp_path)
    measure_run(folder, scoring, [keys, held], stimuli(made), "test", HERE, {}, ReconstructionFacts())

    items = folder.measurements().items
    assert items["brain · 0"]["frame_pixcorr"] == items["brain · 1"]["frame_pixcorr"]
