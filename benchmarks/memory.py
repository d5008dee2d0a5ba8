"""Peak memory of commands at THINGS-EEG's size, and of models and generators.

Commands are watched from outside: the peak of the largest process (VmHWM, which leaves
out the parent process, unlike ru_maxrss), and the memory of all processes that no file
holds. Signals, embeddings and pictures are random. Networks are tiny, and the memory of
full weights is estimated from shapes.
"""

import json
import os
from typing import Any

import raw_recordings
import synthetic
import torch
from generate import CARD
from harness import Bench, Usage, main, prepare_command, run_command
from shapes import sampling_bytes
from synthetic import (
    havir_model,
    make_things_ids,
    mindeye2_model,
    neurons_model,
)

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
        "help": "subjects of `commands`; each takes 2.6 GB of disk",
    },
}
ENCODERS = {"clip-h14": 1024, "clip-b32": 512, "vae": 1024}
MANY_VOXELS = 100_671
"""Voxels of NSD's subjects 2 to 8 in `nsdgeneral`."""
ONE_VOXELS = 15_724
"""Voxels of NSD's subject 1 in `nsdgeneral`."""
COLOURS = "python:brainhive_cli.models.encoders.python:example"


def commands(bench: Bench) -> None:
    """Run every command in turn on subjects of THINGS-EEG's size."""
    subjects = bench.options.get("subjects", 1)
    _write_dataset(bench, subjects)
    numbers = ",".join(str(subject) for subject in range(1, subjects + 1))
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

    def measure(command: str, *overrides: str) -> None:
        arguments = prepare_command((command,) + overrides, bench.home)
        _show_usage(bench, command, run_command(**arguments))

    measure("train-align", f"encoders={','.join(ENCODERS)}", *training)
    measure("eval-retrieval")
    measure("explain")
    measure(
        "train-prior",
        "train.steps=4",
        "train.batch_size=2",
        "sampler=null",
        "validation_items=0",
        "fid_items=0",
        "prior.start_from=null",
        "resolution_px=64",
        "dataset=things-eeg",
        "encoders=clip-h14,vae",
        generator,
    )
    prior = f"prior={next(bench.home.glob('runs/train-prior/*/model'))}"
    measure("train-align", prior, *training)
    items = f"items={bench.pick(2, 200, 200)}"
    measure("reconstruct", prior, "resolution_px=64", items, "repeats=1", generator)
    measure("report")
    measure("embed", "dataset=things-eeg", f"encoders=[{COLOURS}]", "run.workers=2")


def _write_dataset(bench: Bench, subjects: int) -> None:
    """Write signals, pictures and embeddings in the layout of THINGS-EEG."""
    ids = {
        "train": make_things_ids("train", bench.pick(8, 1654, 1654)),
        "test": make_things_ids("test", bench.pick(8, 200, 200)),
    }
    for subject in range(1, subjects + 1):
        synthetic.write_published(bench.home, subject, ids)
    images = bench.home / "data/things-eeg/Image_set"
    pictures = synthetic.write_pictures(bench.make_folder() / "pictures", 32)
    for row, name in enumerate(ids["train"] + ids["test"]):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(pictures[row % 32], images / f"{name}.jpg")
    for split, names in ids.items():
        synthetic.write_targets(bench.home, "things-eeg", split, names, ENCODERS)


def _show_usage(bench: Bench, label: str, usage: Usage, **options: Any) -> None:
    """Show the peak memory of a command."""
    note = f"{usage.own_gib:.2f} held by no file; {usage.cpu_s:.0f} s"
    bench.show(label, usage.peak_gib, unit="GiB", note=note, **options)


def prepare(bench: Bench) -> None:
    """Prepare a raw session of THINGS-EEG2, which takes 7 GB of disk."""
    tiny_size = raw_recordings.Size(1, 4, 3, (2, 4), (3, 2), (2, 1))
    full_size = raw_recordings.Size(1)
    size = bench.pick(tiny_size, full_size, full_size)
    raw_recordings.write(bench.home / "data/things-eeg", size)
    arguments = prepare_command(
        ["prepare", "preparation.sessions=[1]"], bench.home, OMP_NUM_THREADS="1"
    )
    usage = run_command(**arguments)
    label = "prepare, a session of THINGS-EEG2"
    _show_usage(bench, label, usage, target=2, at_most=True)


def models(bench: Bench) -> None:
    """Estimate float32 trainings of brain models from shapes.

    Weights, gradients, AdamW's averages and activations are added.
    """
    card = CARD / 1e9
    for name, model, limit in (
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
        ("papers/mindeye2", mindeye2_model(4096, 42, MANY_VOXELS), None),
        ("papers/mindeye2-1h", mindeye2_model(4096, 24, ONE_VOXELS), None),
        ("mindeye2-24gb", mindeye2_model(1024, 14, MANY_VOXELS), card),
        ("mindeye2-24gb, one hour", mindeye2_model(1024, 16, ONE_VOXELS), card),
    ):
        peak_gb, millions = model.estimate_memory()
        note = f"{millions:.0f} M weights"
        label = f"train-align, estimated: {name}"
        bench.show(label, peak_gb, unit="GB", target=limit, at_most=True, note=note)


def generators(bench: Bench) -> None:
    """Estimate sampling in fp16 from shapes, with a batch of 1 and of 4."""
    keyframe = sdxl_unclip.Config(source="random")
    clip = animatediff.Config(source="random")
    for name, config, size_px, guidance in (
        ("SDXL", sdxl.Config(source="random"), 512, 0.0),
        ("HAVIR's", versatile_diffusion.Config(source="random"), 512, 7.5),
        ("NEURONS' keyframe", keyframe, 768, 5.0),
        ("NEURONS' clip", clip, 256, 8.5),
    ):
        generator = config.build("meta", torch.float16)
        for batch in (1, 4):
            peak_gb = sampling_bytes(generator, batch, size_px, guidance) / 1e9
            label = f"reconstruct, estimated: {name}, {batch} at once"
            bench.show(label, peak_gb, unit="GB", target=CARD / 1e9, at_most=True)


CASES = (models, generators, prepare, commands)

if __name__ == "__main__":
    main(__doc__, CASES, OPTIONS)
