"""Clips that a chain of generators draws from heads that were decoded from EEG."""

import json

import pytest
from PIL import Image

from brainhive_cli.core.results.measurements import NORMALISED_BY_TESTED, SIMULATED
from brainhive_cli.demo import joined_generators
from tests.worlds.command_fixtures import use_home

N_TESTED = 6
DATASET = {
    "kind": "demo-films",
    "space": "sensors",
    "subjects": 1,
    "concepts": 16,
    "test_films": N_TESTED,
}
HEADS = {
    "image": {"kind": "demo-tokens", "views": 0},
    "latents": {"kind": "demo-vae", "views": "all", "output": "latent"},
    "text": {"kind": "demo-text-pooled"},
}
NO_CONDITIONS = {"kind": "identity", "texts": [], "images": [], "masks": []}
UNCLIP = {
    "kind": "sdxl-unclip",
    "source": joined_generators.TOKEN_GUIDED,
    "offset_noise": 0,
    "pixel_scale": 0.5,
    "pixel_shift": 0.5,
}
ANIMATEDIFF = {
    "kind": "animatediff",
    "source": joined_generators.TEXT_GUIDED,
    "motion": "demo:films/motion",
    "sparse_control": "demo:films/sparse_control",
    "domain_adapter": None,
    "noise": "source",
    "frames": 6,
    "kept": list(range(6)),
    "prompt_suffix": "",
}
CHAIN = {
    "kind": "chain",
    "stages": [
        {
            "generator": UNCLIP,
            "prior": NO_CONDITIONS | {"embeddings": ["image"], "start": []},
        },
        {
            "generator": ANIMATEDIFF,
            "prior": NO_CONDITIONS | {"embeddings": [], "start": ["latents"]},
            "receives": "images",
            "strength": 0.5,
        },
    ],
}
"""A keyframe from image tokens, and its motion from the decoded latents."""


@pytest.fixture(scope="module")
def home(tmp_path_factory, run_command):
    with use_home(tmp_path_factory.mktemp("clips")) as home:
        for name in (joined_generators.TOKEN_GUIDED, joined_generators.TEXT_GUIDED):
            joined_generators.assemble_generator(name, home / name)
        encoders = json.dumps(list(HEADS.values()))
        run_command("embed", f"dataset={json.dumps(DATASET)}", f"encoders={encoders}")
        yield home


def draw_clips(run_command, *overrides):
    """Train a ridge of three heads on simulated EEG, and draw the test films."""
    trained = run_command(
        "train-align",
        f"dataset={json.dumps(DATASET)}",
        f"heads={json.dumps(HEADS)}",
        "head=image",
        "backbone={kind: ridge, alpha: auto}",
        "signal.normalise=channel",
        "seeds=1",
        *overrides,
    )
    return run_command(
        "reconstruct",
        f"align_run={trained.folder}",
        "prior=identity",
        f"generator={json.dumps(CHAIN)}",
        "resolution_px=64",
        "steps=4",
        "scheduler=ddim",
        "repeats=1",
        "sources=brain,shuffled,nearest",
        "metrics=frame_pixcorr,frame_ssim,motion_direction",
        "metric_encoders=[]",
        "sheet_rows=0",
    )


def test_clips_resemble_the_films_that_were_seen(home, run_command):
    clips = draw_clips(run_command)

    scopes = clips.metrics.scopes
    pixcorr = {name: scopes[name]["frame_pixcorr"].value for name in scopes}
    assert pixcorr["brain"] > pixcorr["shuffled"] + 0.3
    assert scopes["brain"]["frame_ssim"].n == N_TESTED
    assert clips.metrics.caveats == [SIMULATED]
    files = sorted(clips.folder.glob("samples/sub-01*/**/*.png"))
    assert len(files) == N_TESTED
    with Image.open(files[0]) as clip:
        assert (clip.n_frames, clip.size) == (6, (64, 64))


@pytest.mark.nightly
def test_shuffled_trainings_draw_other_films_with_every_stamp(home, run_command):
    """Labels are shuffled, and test films are normalised by themselves."""
    clips = draw_clips(
        run_command, "train.shuffled_labels=true", "signal.normalise_by=tested_trials"
    )

    scopes = clips.metrics.scopes
    assert scopes["brain"]["frame_pixcorr"].value < 0.4
    assert NORMALISED_BY_TESTED in clips.metrics.caveats
    for name in ("brain", "shuffled", "nearest"):
        for metric in scopes[name].values():
            assert NORMALISED_BY_TESTED in metric.caveats
