"""How fast HAVIR trains and reconstructs next to bare loops at the same widths, and how much memory it needs.

    python benchmarks/havir.py                     # small widths on a CPU; on a GPU full ones
    python benchmarks/havir.py --only memory       # estimated from shapes, at full width, on any machine

Data and weights are random and made here. Each ratio comes from one run, its sides in turns.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import peak_bytes, reset_peak, show
from torch import Tensor, nn

from brainhive_cli.core import console
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.memory_estimate import peak, size_of
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.media.media_files import to_bytes
from brainhive_cli.data.responses import Responses, spec_of
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.evaluation.reconstruction.conditions import DecodedSet
from brainhive_cli.evaluation.reconstruction.generation import DTYPES, GenerationJob, Sampler, seed_of
from brainhive_cli.evaluation.reconstruction.recipe import Output
from brainhive_cli.evaluation.reconstruction.scoring import Scorer
from brainhive_cli.measurement.metrics import image
from brainhive_cli.models import backbones, priors
from brainhive_cli.models.backbones import havir
from brainhive_cli.models.generators import Sampling, versatile_diffusion
from brainhive_cli.models.heads import Decoded, Head, Heads
from brainhive_cli.models.losses import LossContext
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.loop import train_cell
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.objective import Objective, Term
from brainhive_cli.training.alignment.settings import Train

VOXELS = {"spatial": 4657, "semantic": 11067}
"""Early and higher voxels of NSD's subject 1, by MindEye2's masks."""
BATCH, ADAM = 32, 8
"""Signals a step; bytes of the optimiser's two averages, a weight."""
CARD = 24e9
"""Bytes of the card that havir-24gb is for."""
SAMPLING = Sampling(steps=50, strength=0.75, guidance=7.5, scheduler="ddim")
TERMS = [
    Term(prediction="latent", loss="mse"),
    Term(prediction="latent", loss="sobel", weight=0.1),
    Term(prediction="image_projected", loss={"kind": "soft_clip", "temperature": 0.006}),
    Term(prediction="image", loss="mse"),
    Term(prediction="text", loss="mse"),
]


@dataclass(frozen=True)
class Sizes:
    """What is trained and generated.

    Attributes:
        voxels: Of the two regions.
        latent: Shape of the latent.
        image: Tokens of a picture, and their width.
        text: Tokens of a caption, and their width.
        backbone: The brain model.
        generator: With random weights.
        output: Size, precision and pictures at once.
        pictures: Trained on.
        made: Generated.
    """

    voxels: dict[str, int]
    latent: tuple[int, int, int]
    image: tuple[int, int]
    text: tuple[int, int]
    backbone: havir.Config
    generator: versatile_diffusion.Config
    output: Output
    pictures: int
    made: int
    sampling: Sampling = SAMPLING

    @property
    def heads(self) -> Heads:
        """The heads of HAVIR."""
        image = Head(self.image, "image")
        heads = {"latent": Head(self.latent, "latent"), "image": image, "image_projected": image}
        return {**heads, "text": Head(self.text, "text")}


FULL = Sizes(
    VOXELS,
    (4, 64, 64),
    (257, 768),
    (77, 768),
    havir.Config(),
    versatile_diffusion.Config(source="random"),
    Output(precision="fp16", batch_size=8),
    pictures=512,
    made=16,
)
SMALL = replace(
    FULL,
    voxels={"spatial": 500, "semantic": 1100},
    latent=(4, 8, 8),
    image=(17, 96),
    text=(7, 96),
    backbone=havir.Config(hidden=1024, decoder_channels=(32, 32, 64), features=32, projector=256),
    generator=versatile_diffusion.TINY,
    output=Output(resolution_px=32, precision="fp32", batch_size=8),
    made=24,
    sampling=Sampling(steps=8, strength=0.75, guidance=7.5, scheduler="ddim"),
)
"""A step takes some 100 ms on a core."""


@dataclass(frozen=True)
class Setting:
    """Where and at which sizes everything is measured."""

    home: Path
    sizes: Sizes
    device: torch.device
    rounds: int

    def timed(self, work: Callable[[], Any]) -> float:
        """Return the seconds that `work` takes."""
        start = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def random_data(sizes: Sizes, device: torch.device) -> CellData:
    """Make one subject's voxels, and targets."""
    random, count = np.random.default_rng(0), sizes.pictures
    voxels = sum(sizes.voxels.values())
    ends = np.cumsum(list(sizes.voxels.values()))
    regions = {
        name: tuple(range(end - size, end))
        for (name, size), end in zip(sizes.voxels.items(), ends.tolist(), strict=True)
    }
    shapes = {"latent": sizes.latent, "image": sizes.image, "text": sizes.text}
    targets = {
        name: StoreTargets(torch.from_numpy(random.standard_normal((count, *shape), np.float32)).to(device))
        for name, shape in shapes.items()
    }
    signal = random.standard_normal((count, voxels, 1), np.float32)
    trials = Responses(1, signal, np.arange(count), (), None, regions=regions)
    return CellData([trials], Targets(targets), np.zeros(count, bool), None)


def layout_of(sizes: Sizes, data: CellData) -> Layout:
    """Describe the aligner that is trained."""
    keys = {name: name for name in ("latent", "image", "text")}
    backbone = sizes.backbone.model_dump(mode="json")
    spec = spec_of(data.responses)
    return Layout(spec, sizes.heads, backbone, encoders=keys, retrieval_heads=("image_projected",))


def our_seconds(on: Setting, data: CellData, precision: str, epochs: int = 2) -> float:
    """Train some epochs as a cell does; return seconds a step of the fastest."""
    events: list[dict[str, Any]] = []
    train = Train(epochs=epochs, batch_size=BATCH, precision=precision, selection="last", validation=0)  # type: ignore[arg-type]
    folder = RunFolder(Path(tempfile.mkdtemp(dir=on.home)))
    given = (layout_of(on.sizes, data), data, TERMS, train, folder, Launch(0, 1, on.device))
    train_cell("cell", 1, *given, events.append)
    return BATCH / max(event["samples_per_s"] for event in events)


def bare_seconds(on: Setting, data: CellData, precision: str, epochs: int = 2) -> float:
    """Train two epochs as one writes it by hand; return seconds a step of the faster one."""
    aligner = Aligner(layout_of(on.sizes, data)).to(on.device).train()
    objective = Objective(TERMS).to(on.device)
    signal = torch.from_numpy(np.asarray(data.responses[0].signal)).to(on.device)
    parameters = [*objective.parameters(), *aligner.parameters()]
    optimizer = torch.optim.AdamW(parameters, 5e-4, betas=(0.9, 0.995), weight_decay=0.05, fused=True)
    count, steps = len(signal), len(signal) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    subject, best = torch.zeros(BATCH, dtype=torch.long, device=on.device), float("inf")
    for _ in range(epochs):
        start = time.perf_counter()
        for rows in torch.randperm(count, device=on.device)[: steps * BATCH].split(BATCH):
            targets = aligner.targets(data.targets.gather(rows))
            with torch.autocast(on.device.type, torch.bfloat16, enabled=precision == "bf16"):
                predicted, targets = aligner.learn(signal[rows], subject, targets, LossContext())
                loss = objective(
                    {name: each.float() for name, each in predicted.items()}, targets, LossContext()
                )
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()
        best = min(best, (time.perf_counter() - start) / steps)
    return best


def steps(on: Setting) -> None:
    """Compare a training step with that of a bare loop, in the same precision."""
    data = random_data(on.sizes, on.device)
    precision = "bf16" if on.device.type == "cuda" else "fp32"
    reset_peak()
    both = [(our_seconds(on, data, precision), bare_seconds(on, data, precision)) for _ in range(on.rounds)]
    ours, bare = (min(times) for times in zip(*both, strict=True))
    words = f"{1e3 * ours:.1f} of {1e3 * bare:.1f} ms a step of {BATCH}, {precision}"
    show("train-align: of a bare loop", bare / ours, 0.95, words)
    if on.device.type == "cuda":
        held, reserved = peak_bytes()
        show("train-align: peak, GB", held / 1e9, None, f"{reserved / 1e9:.2f} reserved")


def pictures(on: Setting) -> None:
    """Compare generating into a run folder with bare calls of the sampling loop."""
    sizes, output = on.sizes, on.sizes.output
    generator: Any = sizes.generator.build(on.device, DTYPES[output.precision])
    prior, ids = priors.load("identity"), [f"item-{n}" for n in range(sizes.made)]
    random = torch.Generator().manual_seed(0)
    shapes = {"latent": generator.latent_shape(output.resolution_px), **_conditions(generator)}
    heads = {name: torch.randn(sizes.made, *shape, generator=random) for name, shape in shapes.items()}
    decoded = Decoded(heads).to(on.device)
    sampler = Sampler(lambda *_: generator, prior, output, sizes.sampling, on.device)
    decoded_set = DecodedSet("images", None, None, ids, ids, decoded)
    seeds = [seed_of(0, each, 0) for each in ids]

    def ours() -> None:
        folder = RunFolder(Path(tempfile.mkdtemp(dir=on.home)))
        GenerationJob(sampler, 1, 0).generate(decoded_set, folder, Launch(0, 1, on.device))

    @torch.inference_mode()
    def bare() -> None:
        for start in range(0, len(ids), output.batch_size):
            rows = slice(start, start + output.batch_size)
            given = prior.condition(decoded[rows], seeds[rows])
            null = prior.null(len(seeds[rows]), seeds[rows])
            to_bytes(generator.generate(given, seeds[rows], output.resolution_px, sizes.sampling, null=null))

    bare()  # warm
    reset_peak()
    both = [(on.timed(ours), on.timed(bare)) for _ in range(on.rounds)]
    best = [min(times) for times in zip(*both, strict=True)]
    words = f"{len(ids) / best[0]:.3g} of {len(ids) / best[1]:.3g} pictures/s, batch {output.batch_size}"
    show("reconstruct: of bare calls of the sampling loop", best[1] / best[0], 0.95, words)
    if on.device.type == "cuda":
        held, reserved = peak_bytes()
        show("reconstruct: peak, GB", held / 1e9, CARD / 1e9, f"{reserved / 1e9:.2f} reserved", at_most=True)


def _conditions(generator: Any) -> dict[str, tuple[int, int]]:
    """Give the shapes of image and text tokens, whose width is the U-Net's."""
    width = generator.networks[0].config.cross_attention_dim
    return {name: (length, width) for name, length in (("image", 257), ("text", 77))}


def metrics(on: Setting) -> None:
    """Count how often each picture goes through the features of metrics: stimuli once, and each made once."""
    count, seen = 40, 0

    def counted(features: Callable[[Any], Tensor], media: Any) -> Tensor:
        nonlocal seen
        seen += len(media)
        return features(media)

    parts = {name: image.PARTS[name] for name in ("pixcorr", "ssim")}
    wrapped = {part.features: partial(counted, part.features) for part in parts.values()}
    parts = {name: replace(part, features=wrapped[part.features]) for name, part in parts.items()}
    drawn = np.random.default_rng(0).integers(0, 255, (2 * count, 64, 64, 3), np.uint8)
    opens: Sequence[Callable[[], Any]] = [partial(_picture, each) for each in drawn]
    scorer = Scorer(parts, "mindeye2", 16, on.device, opens[:count])
    with console.progress("metrics", 2 * count) as bar:
        for half in (slice(0, count // 2), slice(count // 2, count)):  # as of two cells
            rows = np.arange(count)[half]
            scorer.score(opens[count:][half], rows, np.arange(count), bar)
    show("metrics: features of each picture", seen / (2 * count * len(wrapped)), 1.0, at_most=True)


def _picture(pixels: Any) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


def memory(on: Setting) -> None:
    """Estimate, from shapes, what full width and havir-24gb need: weights, gradients, AdamW, activations."""
    for name, backbone, most in (
        ("papers/havir", havir.Config(), None),
        ("havir-24gb", havir.Config(hidden=1024), CARD / 1e9),
        ("hidden 4096, head_rank 512", havir.Config(head_rank=512), None),
    ):
        sizes = replace(FULL, backbone=backbone, pictures=BATCH)
        data = random_data(replace(sizes, latent=(1, 1, 1), image=(1, 1), text=(1, 1)), torch.device("cpu"))
        with torch.device("meta"):
            model = backbones.build(backbone, spec_of(data.responses), sizes.heads)
            objective = Objective(TERMS)
        weights = size_of(model)
        step = peak(partial(_step, sizes, model, objective), model)  # with the gradients
        averages = weights // 4 * ADAM
        words = (
            f"{weights / 4e6:.0f} M weights, {(2 * weights + averages) / 1e9:.1f} GB with gradients and AdamW"
        )
        total = (weights + averages + step) / 1e9
        show(f"train-align, estimated, GB: {name}", total, most, words, at_most=True)
    for size in (1, 8):
        skeleton = FULL.generator.skeleton(torch.float16)
        needed = skeleton.memory_estimate(size, FULL.output.resolution_px, SAMPLING.guidance)
        show(f"reconstruct, estimated, GB: {size} at once", needed / 1e9, CARD / 1e9, "fp16", at_most=True)


def _step(sizes: Sizes, model: nn.Module, objective: Objective) -> None:
    with torch.device("meta"):
        signal = torch.empty(BATCH, sum(sizes.voxels.values()), 1)
        targets = {name: torch.empty(BATCH, *head.shape) for name, head in sizes.heads.items()}
        index = torch.zeros(BATCH, dtype=torch.long)
        predicted, _ = backbones.learn(model, sizes.heads, signal, index, targets, LossContext())
        objective(predicted, targets, LossContext()).backward()


PARTS = {part.__name__: part for part in (memory, steps, pictures, metrics)}


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = FULL if device.type == "cuda" else SMALL
    with tempfile.TemporaryDirectory() as home:
        for name in args.only:
            PARTS[name](Setting(Path(home), sizes, device, args.rounds))


if __name__ == "__main__":
    main()
