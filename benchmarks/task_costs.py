"""Cost of common tasks, from which `brainhive doctor` estimates their time.

    python benchmarks/task_costs.py           # all but the demo, from shapes
    python benchmarks/task_costs.py --demo    # also the demo, which runs on a CPU

Networks run on the device "meta", which computes shapes alone. The result is written to
brainhive_cli/core/runs/task_costs.json.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from embed import FULL
from harness import CHECKOUT
from memory import MANY_VOXELS
from shapes import peak, sampling_bytes
from synthetic import Model, eeg_model, mindeye2_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from brainhive_cli import api
from brainhive_cli.core.base.device_memory import count_bytes
from brainhive_cli.models import encoders
from brainhive_cli.models.generators import Sampling, sdxl
from brainhive_cli.models.heads import Conditioning
from brainhive_cli.models.priors import fusion_prior

PATH = CHECKOUT / "brainhive_cli" / "core/runs/task_costs.json"
THINGS_PICTURES = 16_740
"""Training and test pictures of THINGS-EEG2."""
ADAM_ACCESSES = 7
"""Reads and writes of a weight's size in a step of AdamW: weight, gradient and two
averages are read, all but the gradient are written.
"""
MIN_INTENSITY = 64
"""FLOP per byte from which only the FLOP are counted."""
EMBED_BATCH = 64
THINGS_STEPS = 25 * 16_540 / 1024
"""Steps of papers/brainhive-intra, in batches of 1,024."""
THINGS_SIGNALS_GB = 0.5
"""Averaged signals of a subject, and embeddings, on the device."""
THINGS_PICTURES_GB = 1.6
"""Archives and pictures of THINGS-EEG2."""
NSD_TRIALS = 30_000
"""Trials in an epoch of MindEye2."""
NSD_GB = 400
"""39.6 GB of pictures, 37 sessions of 1 GB of eight people, and 62 GB of tokens."""
IMAGENET_GB = 145
PRIOR_STEPS = 100_000
DEMO_STARTS = 10
"""Statistics and pages of the demo, which Python computes, in starts of a command."""
SDXL_GB = 6
"""U-Net and autoencoder of SDXL Turbo in float16, and a prior."""
COUNTS = ("matmul", "conv", "bytes", "operators")


class Counter(TorchDispatchMode):
    """Counter of the operators of torch, and of their work.

    Attributes:
        counts: FLOPs of matrix products ("matmul") and convolutions ("conv"), bytes
            that are read or written ("bytes"), and number of operators ("operators").
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = dict.fromkeys(COUNTS, 0.0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operator, and count it."""
        result = func(*args, **(kwargs or {}))
        # views only describe memory
        if func.is_view:
            return result
        self.counts["operators"] += 1
        flops = 0
        packet = func.overloadpacket
        if packet in flop_registry:
            kind = "conv" if "conv" in str(packet) else "matmul"
            flops = flop_registry[packet](*args, **(kwargs or {}), out_val=result)
            self.counts[kind] += flops
        n_bytes = 0
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, torch.Tensor):
                n_bytes += tensor.nbytes
        # memory is not the limit of large matrix products
        if flops < MIN_INTENSITY * n_bytes:
            self.counts["bytes"] += n_bytes
        return result


def count(work: Callable[[], object], times: float = 1) -> dict[str, float]:
    """Count the work of a function, multiplied by its number of calls."""
    counter = Counter()
    with counter:
        work()
    return {name: value * times for name, value in counter.counts.items()}


def add(*counts: dict[str, float]) -> dict[str, float]:
    """Add counts."""
    return {name: sum(each[name] for each in counts) for name in COUNTS}


def scale(counts: dict[str, float], times: float) -> dict[str, float]:
    """Multiply counts."""
    return {name: value * times for name, value in counts.items()}


def count_training(model: Model) -> tuple[dict[str, float], float]:
    """Count a step of a brain model with its optimiser, and its memory in GB."""
    aligner, step = model.build_step()
    step()  # compute what later steps reuse
    counts = count(step)
    n_trained = sum(each.numel() for each in aligner.parameters() if each.requires_grad)
    counts["bytes"] += n_trained * 4 * ADAM_ACCESSES
    return counts, model.estimate_memory()[0]


def count_embedding() -> tuple[dict[str, float], float]:
    """Count a picture of clip-h14 and vae, and the memory in GB of a batch."""
    with torch.device("meta"):
        clip = encoders.resolve(FULL["vit_h14"]).build().module
        clip_pictures = torch.empty(EMBED_BATCH, 3, 224, 224)
        vae_pictures = torch.empty(EMBED_BATCH, 3, 128, 128)
    vae = sdxl.Config(source=sdxl.RANDOM).build("meta", torch.float32).vae
    with torch.no_grad():
        counts = add(
            count(lambda: clip(clip_pictures)),
            count(lambda: vae.encode(vae_pictures)),
        )
        n_bytes = count_bytes(clip) + peak(lambda: clip(clip_pictures), clip)
    return scale(counts, 1 / EMBED_BATCH), n_bytes / 1e9


def count_generation() -> tuple[dict[str, float], float]:
    """Count a picture of SDXL Turbo at 512 pixels, and the memory in GB of 20."""
    generator = sdxl.Config(source=sdxl.RANDOM).build("meta", torch.float16)
    latents = torch.empty((1, 4, 64, 64), device="meta", dtype=torch.float16)
    decoded = torch.empty((1, 4, 64, 64), device="meta", dtype=generator.vae.dtype)
    timesteps = torch.empty(1, device="meta")
    sizes = torch.empty(1, 6, device="meta")
    with torch.no_grad():
        step = count(
            lambda: generator.predict(latents, timesteps, Conditioning(), sizes)
        )
        decoding = count(lambda: generator.vae.decode(decoded))
    memory_gb = sampling_bytes(generator, 20, 512) / 1e9
    return add(scale(step, Sampling().steps), decoding), memory_gb


def count_prior(
    batch: int, accumulate: int, cached: bool, checkpointing: bool
) -> tuple[dict[str, float], float]:
    """Count an optimiser step of a Fusion Prior on SDXL, and its memory in GB.

    Args:
        batch: Pictures in a backward pass.
        accumulate: Backward passes in a step.
        cached: If True, latents were computed before.
        checkpointing: If True, activations are computed twice.
    """
    generator = sdxl.Config(source=sdxl.RANDOM).build("meta", torch.bfloat16)
    generator.prepare_training(checkpointing)
    with torch.device("meta"):
        prior = fusion_prior.Config().build({"clip-h14": 1024, "vae": 1024}, generator)
        prior.attach(generator)
        embeddings = {name: torch.empty(batch, 1024) for name in ("clip-h14", "vae")}
        latents = torch.empty(batch, 4, 64, 64, dtype=torch.bfloat16)
        pictures = torch.empty(batch, 3, 512, 512, dtype=generator.vae.dtype)
        timesteps = torch.empty(batch)
        sizes = torch.empty(batch, 6)
    prior.to("meta").train()

    def step() -> None:
        conditioning = prior.condition_on_embeddings(embeddings)
        predicted = generator.predict(latents, timesteps, conditioning, sizes)
        predicted.float().square().mean().backward()

    counts = count(step, accumulate)
    if not cached:
        with torch.no_grad():
            counts = add(counts, count(lambda: generator.vae.encode(pictures)))
    n_bytes = sum(count_bytes(network) for network in generator.networks)
    n_bytes += 4 * count_bytes(prior) + peak(step, *generator.networks, prior)
    counts["bytes"] += count_bytes(prior) * ADAM_ACCESSES
    return counts, n_bytes / 1e9


def count_window() -> dict[str, float]:
    """Count the decoding of a window of EEG."""
    model = eeg_model("brain_mlp")
    aligner = model.build_aligner(torch.device("meta")).eval()
    spec = model.layout.spec
    signal = torch.empty(1, spec.widths[0], spec.samples, device="meta")
    subject = torch.zeros(1, dtype=torch.long, device="meta")
    with torch.no_grad():
        return count(lambda: aligner.encode_signal(signal, subject))


def count_demo() -> dict[str, float]:
    """Count the work of `brainhive demo`, which runs for minutes."""
    with tempfile.TemporaryDirectory() as home, Counter() as counter:
        os.environ["BRAINHIVE_HOME"] = home
        api.run("demo")
    return counter.counts


def write_task(
    task: str,
    command: str,
    counts: dict[str, float],
    memory_gb: float,
    disk_gb: float,
    precision: str = "bf16",
    **others: float,
) -> dict[str, Any]:
    """Write a task as `brainhive_cli.core.runs.machine_speed` reads it.

    Args:
        task: Name in tables.
        command: Arguments of `brainhive`.
        counts: Counted work.
        memory_gb: Memory of the device, without the reserve.
        disk_gb: Downloads and files that the task needs.
        precision: Precision of matrix products and convolutions.
        others: Amounts of other work, such as pictures that are decoded.
    """
    amounts = {}
    for name, value in (counts | others).items():
        if value:
            amounts[name] = float(f"{value:.3g}")
    return {
        "task": task,
        "command": command,
        "precision": precision,
        "counts": amounts,
        "memory_gb": round(memory_gb, 1),
        "disk_gb": disk_gb,
    }


def list_tasks() -> list[dict[str, Any]]:
    """Count all tasks but the demo."""
    embedding, embedding_gb = count_embedding()
    cell, cell_gb = count_training(eeg_model("brain_mlp", batch=1024))
    cell = scale(cell, THINGS_STEPS)
    paper, paper_gb = count_training(mindeye2_model(4096, 42, MANY_VOXELS))
    small, small_gb = count_training(mindeye2_model(1024, 14, MANY_VOXELS))
    prior, prior_gb = count_prior(16, 1, cached=False, checkpointing=False)
    small_prior, small_prior_gb = count_prior(8, 2, cached=True, checkpointing=True)
    picture, picture_gb = count_generation()
    n_steps = 150 * NSD_TRIALS
    return [
        write_task(
            "embed things-eeg, clip-h14,vae",
            "embed --dataset things-eeg --encoders clip-h14,vae",
            scale(embedding, THINGS_PICTURES),
            embedding_gb,
            THINGS_PICTURES_GB + 4.3,
            "fp32",
            pictures=THINGS_PICTURES,
            starts=1,
        ),
        write_task(
            "brainhive-intra, 1 model",
            "train-align --recipe papers/brainhive-intra subjects=1 seeds=2025",
            cell,
            cell_gb + THINGS_SIGNALS_GB,
            5.2,
            read=2.6e9,
            starts=1,
        ),
        write_task(
            "brainhive-intra, 30 models",
            "train-align --recipe papers/brainhive-intra",
            scale(cell, 30),
            cell_gb + THINGS_SIGNALS_GB,
            52,
            read=2.6e10,
            starts=1,
        ),
        write_task(
            "train-align mindeye2",
            "train-align --recipe papers/mindeye2",
            scale(paper, n_steps // 42),
            paper_gb,
            NSD_GB,
            starts=1,
        ),
        write_task(
            "train-align mindeye2-24gb",
            "train-align --recipe papers/mindeye2-24gb",
            scale(small, n_steps // 14),
            small_gb,
            NSD_GB,
            starts=1,
        ),
        write_task(
            "train-prior brainhive-prior",
            "train-prior --recipe papers/brainhive-prior",
            scale(prior, PRIOR_STEPS),
            prior_gb,
            IMAGENET_GB,
            pictures=PRIOR_STEPS * 16,
            starts=1,
        ),
        write_task(
            "train-prior prior-24gb",
            "train-prior --recipe prior-24gb",
            scale(small_prior, PRIOR_STEPS),
            max(small_prior_gb, 17 * 1.074),
            IMAGENET_GB + 84,
            starts=1,
        ),
        write_task(
            "reconstruct, 1 picture",
            "reconstruct items=1 repeats=1",
            picture,
            picture_gb,
            SDXL_GB,
            read=SDXL_GB * 1e9,
            starts=1,
        ),
        write_task(
            "reconstruct, 200 pictures",
            "reconstruct repeats=1",
            scale(picture, 200) | {"operators": picture["operators"] * 10},
            picture_gb,
            SDXL_GB,
            read=SDXL_GB * 1e9,
            starts=1,
        ),
        write_task("live, a decoded window", "live", count_window(), 1, 0.1, "fp32"),
    ]


def main() -> None:
    """Write the costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", action="store_true", help="count the demo again")
    args = parser.parse_args()
    tasks = list_tasks()
    if args.demo:
        demo = write_task(
            "demo", "demo", count_demo(), 3, 0.1, "fp32", starts=DEMO_STARTS
        )
    else:
        demo = json.loads(PATH.read_text())[0]
    PATH.write_text(json.dumps([demo] + tasks, indent=1) + "\n")


if __name__ == "__main__":
    main()
