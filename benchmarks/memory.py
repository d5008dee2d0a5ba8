"""The most memory of each command at THINGS-EEG's size, and of models and generators as
their shapes say.

Commands are watched from outside: the peak of the largest process (VmHWM, which is
ru_maxrss without that of the process that started it), and what all of them held
together that no file does. Signals, embeddings and pictures are random, networks tiny:
what weights take is estimated.
"""

import json
import os
from typing import Any

import raw_recordings
import synthetic
import torch
from generate import CARD
from harness import Bench, main, prepare_command, run_command
from shapes import sampling_bytes
from synthetic import havir_model, make_things_ids, neurons_model

from brainhive_cli.models.generators import (
    animatediff,
    sdxl,
    sdxl_unclip,
    versatile_diffusion,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "--subjects": {
        "type": int,
        "default": 1,
        "help": "of `commands`; each takes 2.6 GB of disk",
    },
}
ENCODERS = {"clip-h14": 1024, "clip-b32": 512, "vae": 1024}
COLOURS = "python:brainhive_cli.models.encoders.python:example"


def commands(on: Bench) -> None:
    """Run every command on subjects of THINGS-EEG's size, one after the other."""
    subjects = on.options.get("subjects", 1)
    concepts = {"train": on.pick(8, 1654, 1654), "test": on.pick(8, 200, 200)}
    ids = {split: make_things_ids(split, count) for split, count in concepts.items()}
    for subject in range(1, subjects + 1):
        synthetic.write_published(on.home, subject, ids)
    images = on.home / "data/things-eeg/Image_set"
    painted = synthetic.write_pictures(on.make_folder() / "pictures", 32)
    for row, name in enumerate([*ids["train"], *ids["test"]]):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(painted[row % 32], images / f"{name}.jpg")
    for split, names in ids.items():
        synthetic.write_targets(on.home, "things-eeg", split, names, ENCODERS)
    numbers = ",".join(map(str, range(1, subjects + 1)))
    training = [
        f"subjects={numbers}",
        "seeds=1",
        "train.epochs=1",
        "train.warmup_steps=0",
    ]
    architecture = json.dumps(sdxl.TINY.architecture)
    generator = (
        f"generator={{kind: sdxl, source: random, architecture: {architecture}}}"
    )
    few = ["resolution_px=64", f"items={on.pick(2, 200, 200)}", "repeats=1"]
    prior = [
        "train.steps=4",
        "train.batch_size=2",
        "sampler=null",
        "validation_items=0",
        "fid_items=0",
    ]
    prior += [
        "prior.start_from=null",
        "resolution_px=64",
        "dataset=things-eeg",
        "encoders=clip-h14,vae",
    ]

    def fitting_prior() -> str:
        return f"prior={next(on.home.glob('runs/train-prior/*/model'))}"

    for words in (
        ["train-align", f"encoders={','.join(ENCODERS)}", *training],
        ["eval-retrieval"],
        ["explain"],
        ["train-prior", *prior, generator],
        ["train-align", fitting_prior, *training],
        ["reconstruct", fitting_prior, *few, generator],
        ["report"],
        ["embed", "dataset=things-eeg", f"encoders=[{COLOURS}]", "run.workers=2"],
    ):
        used = run_command(
            **prepare_command(
                [word if isinstance(word, str) else word() for word in words], on.home
            )
        )
        note = f"{used.own_gib:.2f} held by no file; {used.cpu_s:.0f} s"
        on.show(str(words[0]), used.peak_gib, unit="GiB", note=note)


def prepare(on: Bench) -> None:
    """Prepare a raw session of THINGS-EEG2: 7 GB of disk."""
    few = raw_recordings.Size(1, 4, 3, (2, 4), (3, 2), (2, 1))
    raw_recordings.write(
        on.home / "data/things-eeg",
        on.pick(few, raw_recordings.Size(1), raw_recordings.Size(1)),
    )
    used = run_command(
        **prepare_command(
            ["prepare", "preparation.sessions=[1]"], on.home, OMP_NUM_THREADS="1"
        )
    )
    note = f"{used.own_gib:.2f} held by no file; {used.cpu_s:.0f} s"
    on.show(
        "prepare, a session of THINGS-EEG2",
        used.peak_gib,
        unit="GiB",
        target=2,
        at_most=True,
        note=note,
    )


def models(on: Bench) -> None:
    """Estimate brain models from shapes: weights, gradients, AdamW's averages,
    activations in float32.
    """
    card = CARD / 1e9
    for what, model, most in (
        ("papers/brainhive-intra", synthetic.eeg_model(), None),
        ("papers/havir", havir_model("full"), None),
        ("havir-24gb", havir_model("full", 1024), card),
        ("hidden 4096, head_rank 512", havir_model("full", head_rank=512), None),
        (
            "papers/neurons-brain",
            neurons_model("full", batch=120, is_first_training=True),
            None,
        ),
        ("papers/neurons", neurons_model("full"), None),
        (
            "neurons-brain-24gb",
            neurons_model("full", 1024, 120, is_first_training=True),
            card,
        ),
        ("neurons-24gb", neurons_model("full", 1024, 6), card),
    ):
        needed_gb, millions = model.estimate_memory()
        note = f"{millions:.0f} M weights"
        what = f"train-align, estimated: {what}"
        on.show(what, needed_gb, unit="GB", target=most, at_most=True, note=note)


def generators(on: Bench) -> None:
    """Estimate generators from shapes, in fp16, one item and four at once."""
    keyframe, clip = (
        sdxl_unclip.Config(source="random"),
        animatediff.Config(source="random"),
    )
    for what, config, px, guidance in (
        ("SDXL", sdxl.Config(source="random"), 512, 0.0),
        ("HAVIR's", versatile_diffusion.Config(source="random"), 512, 7.5),
        ("NEURONS' keyframe", keyframe, 768, 5.0),
        ("NEURONS' clip", clip, 256, 8.5),
    ):
        generator = config.build("meta", torch.float16)
        for size in (1, 4):
            needed_gb = sampling_bytes(generator, size, px, guidance) / 1e9
            shown = f"reconstruct, estimated: {what}, {size} at once"
            on.show(shown, needed_gb, unit="GB", target=CARD / 1e9, at_most=True)


CASES = (models, generators, prepare, commands)

if __name__ == "__main__":
    main(__doc__, CASES, OPTIONS)
