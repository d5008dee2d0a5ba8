"""How fast NEURONS' second training is next to a bare loop and the reference's way, and the memory it needs.

    python benchmarks/neurons.py                     # small widths on a CPU; on a GPU full ones
    python benchmarks/neurons.py --only memory       # estimated from shapes, at full width, on any machine

Data and weights are random and made here. Each ratio comes from one run, its sides in turns. The reference's
way is written here from what is known of its code (xmed-lab/NEURONS): its losses, the mixing of a batch's
clips, the brain model with mixer blocks and dropout though it is frozen; the layers are ours.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from figures import peak_bytes, reset_peak, show
from torch import Tensor, nn

from brainhive_cli.core.launch import Launch
from brainhive_cli.core.memory_estimate import peak, size_of
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.responses import Responses
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.models import backbones
from brainhive_cli.models.backbones import mindeye2, neurons
from brainhive_cli.models.heads import Head, Heads
from brainhive_cli.models.losses import LossContext
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.loop import train_cell
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.objective import Objective, Term
from brainhive_cli.training.alignment.settings import Train

BATCH, STEPS, ADAM = 10, 12, 8
"""Clips a step; steps an epoch; bytes of the optimiser's two averages, a weight."""
CARD, SMALL_BATCH = 24e9, 6
"""Bytes of the card that neurons-24gb is for, and its clips a step."""
FROZEN = "brain."
TASKS = {"mask": "dice", "concepts": "bce", "caption": "cross_entropy", "latents": "l1"}
"""The tasks whose weights rise and fall in turn, and their losses."""
LR, WINDOW = 5e-5, 20


@dataclass(frozen=True)
class Sizes:
    """What is trained: voxels, heads and backbone."""

    voxels: int
    heads: Heads
    backbone: neurons.Config


def heads_of(tokens: int, width: int, text: int, side: int, latent: int, words: int) -> Heads:
    """List NEURONS' heads of six frames."""
    return {
        "image": Head((tokens, width), "image"),
        "motion": Head((6, tokens, width), "motion"),
        "text": Head((text,), "text"),
        "mask": Head((6, 1, side, side), "mask"),
        "latents": Head((6, 4, latent, latent), "latents"),
        "concepts": Head((51,), "concepts"),
        "caption": Head((words,), "caption"),
    }


FULL = Sizes(13447, heads_of(256, 1664, 1280, 64, 28, 60), neurons.Config())
SMALL = Sizes(
    600,
    heads_of(16, 128, 64, 16, 7, 12),
    neurons.Config(
        brain={"kind": "mindeye2", "hidden": 512},  # type: ignore[arg-type]
        prior={"kind": "mindeye1", "depth": 2, "heads": 4, "dim_head": 32},
        maps=(64, 32, 16),
        channels=(16, 32, 32),
        groups=8,
        concept_width=64,
        vocabulary=512,
        caption_width=64,
        caption_layers=2,
        caption_heads=2,
        caption_positions=32,
    ),
)


@dataclass(frozen=True)
class Setting:
    """Where and at which sizes everything is measured."""

    home: Path
    sizes: Sizes
    device: torch.device
    rounds: int


def terms() -> list[Term]:
    """List the terms of the recipe papers/neurons."""
    soft = {"kind": "soft_clip", "items": "frames", "temperature": 0.004}
    made = [
        {"prediction": "denoised", "loss": "mse", "weight": 30},
        {"prediction": "motion", "loss": soft},
        {"prediction": "text", "loss": {"kind": "clip", "temperature": 0.1}},
    ]
    for number, (head, loss) in enumerate(TASKS.items()):
        wave = {"base": 1, "peak": 10, "epochs": [10 * number, 10 * number + WINDOW], "course": "sine"}
        made.append({"prediction": head, "loss": loss, "weight": wave})
    return [Term.model_validate(term) for term in made]


def random_data(sizes: Sizes, device: torch.device) -> CellData:
    """Make one subject's voxels, and the targets of all heads."""
    count, random = BATCH * STEPS, torch.Generator().manual_seed(0)
    targets = {}
    for name, head in sizes.heads.items():
        values = torch.randn(count, *head.shape, generator=random)
        if name in ("mask", "concepts"):
            values = (values > 0).float()
        if name == "caption":
            values = torch.randint(0, sizes.backbone.vocabulary, values.shape, generator=random).float()
        targets[name] = StoreTargets(values.to(device))
    voxels = np.random.default_rng(0).normal(size=(count, sizes.voxels, 1)).astype(np.float32)
    trials = Responses(1, voxels, np.arange(count), (), None)
    return CellData([trials], Targets(targets), np.zeros(count, bool), None)  # type: ignore[arg-type]


def layout_of(sizes: Sizes, data: CellData) -> Layout:
    """Describe the model, whose first training is done."""
    spec = SignalSpec((), 1, (1,), (sizes.voxels,))
    backbone = sizes.backbone.model_dump(mode="json")
    return Layout(spec, sizes.heads, backbone, retrieval_heads=("image",))


def our_seconds(on: Setting, data: CellData, precision: str) -> float:
    """Train two epochs as a cell does; return seconds a step of the faster one."""
    events: list[dict[str, Any]] = []
    stage = {"epochs": 2, "lr": LR, "schedule": "one_cycle", "warmup_epochs": 1, "freeze": ["backbone.brain"]}
    settings = {"batch_size": BATCH, "precision": precision, "selection": "last", "validation": 0}
    train = Train.model_validate({**settings, "weight_decay": 0.01, "stages": [stage]})
    folder = RunFolder(Path(tempfile.mkdtemp(dir=on.home)))
    given = (layout_of(on.sizes, data), data, terms(), train, folder, Launch(0, 1, on.device))
    train_cell("cell", 1, *given, events.append)
    return BATCH / max(event["samples_per_s"] for event in events)


Step = Callable[[nn.Module, Tensor, dict[str, Tensor], int], Tensor]
"""From the model, voxels [B, V, 1], targets, and steps that are done, to the loss."""


def loop_seconds(on: Setting, data: CellData, precision: str, model: nn.Module, step: Step) -> float:
    """Train two epochs as one writes it by hand; return seconds a step of the faster one."""
    signal = torch.from_numpy(np.asarray(data.responses[0].signal)).to(on.device)
    parameters = [p for name, p in model.named_parameters() if not name.startswith(FROZEN)]
    optimizer = torch.optim.AdamW(parameters, LR, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=2 * STEPS)
    best = float("inf")
    for epoch in range(2):
        start = time.perf_counter()
        for number, rows in enumerate(torch.randperm(len(signal), device=on.device).split(BATCH)):
            targets = data.targets.gather(rows)
            with torch.autocast(on.device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = step(model, signal[rows], targets, epoch * STEPS + number)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()
        best = min(best, (time.perf_counter() - start) / STEPS)
    return best


def bare_seconds(on: Setting, data: CellData, precision: str) -> float:
    """Time a bare loop around the same model and loss."""
    model = Aligner(layout_of(on.sizes, data)).to(on.device).train().backbone
    model.get_submodule("brain").eval().requires_grad_(False)
    objective, subject = Objective(terms()), torch.zeros(BATCH, dtype=torch.long, device=on.device)

    def step(model: Any, voxels: Tensor, targets: dict[str, Tensor], done: int) -> Tensor:
        context = LossContext(step=done, epoch=done // STEPS, epochs=2, steps=STEPS)
        predicted, replaced = model.learn(voxels, subject, targets, context)
        found = {name: each.float() for name, each in predicted.items()}
        return objective(found, {**targets, **replaced}, context)

    return loop_seconds(on, data, precision, model, step)


def steps(on: Setting) -> None:
    """Compare a training step with that of a bare loop, in the same precision."""
    data, precision = random_data(on.sizes, on.device), _precision(on)
    reset_peak()
    both = [(our_seconds(on, data, precision), bare_seconds(on, data, precision)) for _ in range(on.rounds)]
    ours, bare = (min(times) for times in zip(*both, strict=True))
    words = f"{1e3 * ours:.1f} of {1e3 * bare:.1f} ms a step of {BATCH}, {precision}"
    show("train-align: of a bare loop", bare / ours, 0.95, words)
    if on.device.type == "cuda":
        held, reserved = peak_bytes()
        show("train-align: peak, GB", held / 1e9, None, f"{reserved / 1e9:.2f} reserved")


def referenced(sizes: Sizes) -> neurons.Neurons:
    """Make the model as the reference has it: mixer blocks, and the clips of a batch mixed."""
    brain = sizes.backbone.brain.model_copy(update={"mixer": "blocks"})
    config = sizes.backbone.model_copy(update={"brain": brain, "mode": "published"})
    return config.build(SignalSpec((), 1, (1,), (sizes.voxels,)), sizes.heads)


def reference_step(model: Any, voxels: Tensor, targets: dict[str, Tensor], done: int) -> Tensor:
    """Compute the reference's loss of a step, as its code does: each task by hand."""
    subject = torch.zeros(len(voxels), dtype=torch.long, device=voxels.device)
    with torch.no_grad():
        brain = model.brain(voxels, subject)["image"]
    prior = model.prior
    times = torch.randint(prior.config.timesteps, (len(brain),), device=brain.device)
    keep = torch.rand(2, len(brain), device=brain.device) >= 0.2
    clean = targets["image"] * prior.scale
    noisy = prior.noised(clean, times, torch.randn_like(clean))
    denoised = prior.net(noisy, times, brain, keep[0], keep[1])
    motion = model.motion_proj(denoised / prior.scale)
    text = motion.flatten(1, 2).mean(1) @ model.brain.clipproj.proj
    decoded = model.text_seg_dec(motion, text)
    latents = F.interpolate(decoded["latents"].flatten(0, 1), targets["latents"].shape[-2:], mode="nearest")
    words = targets["caption"].long()
    logits = model.text_dec(text, words)
    losses = {
        "mask": dice(decoded["mask"], targets["mask"]),
        "concepts": F.binary_cross_entropy_with_logits(model.classifier(motion), targets["concepts"]),
        "caption": F.cross_entropy(
            logits.flatten(0, 1), words.flatten(), ignore_index=0, label_smoothing=0.1
        ),
        "latents": F.l1_loss(latents, targets["latents"].flatten(0, 1)),
    }
    loss = 30 * F.mse_loss(denoised, clean)
    loss = loss + soft_clip(
        motion.flatten(0, 1).flatten(1), targets["motion"].flatten(0, 1).flatten(1), 0.004
    )
    loss = loss + nce(text, targets["text"], 0.1)
    for number, task in enumerate(TASKS):
        at = done / STEPS - 10 * number
        weight = 1 + 9 * abs(math.sin(math.pi * at / WINDOW)) if 0 <= at < WINDOW else 1.0
        loss = loss + weight * losses[task]
    return loss


def dice(logits: Tensor, masks: Tensor) -> Tensor:
    """Compute Dice over the whole batch."""
    found = logits.sigmoid()
    return 1 - (2 * (found * masks).sum() + 1e-6) / (found.sum() + masks.sum() + 1e-6)


def nce(predicted: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Compute the contrastive loss both ways."""
    logits = F.normalize(predicted, dim=-1) @ F.normalize(target, dim=-1).T / temperature
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def soft_clip(predicted: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Compute the contrastive loss with the targets' similarities as labels, both ways."""
    predicted, target = F.normalize(predicted, dim=-1), F.normalize(target, dim=-1)
    labels = (target @ target.T / temperature).softmax(-1)
    logits = predicted @ target.T / temperature
    one, other = (-(each.log_softmax(-1) * labels).sum(-1).mean() for each in (logits, logits.T))
    return (one + other) / 2


def reference(on: Setting) -> None:
    """Compare our step with the reference's way in one run; and the loss of one step with its."""
    data, precision = random_data(on.sizes, on.device), _precision(on)
    model = referenced(on.sizes).to(on.device)
    loss = loss_difference(model.eval(), data)
    show("loss in mode published: of the reference's, difference", loss, 1e-5, "relative", at_most=True)
    model.train()
    model.brain.requires_grad_(False)
    pairs = [
        (our_seconds(on, data, precision), loop_seconds(on, data, precision, model, reference_step))
        for _ in range(on.rounds)
    ]
    ours, theirs = (min(times) for times in zip(*pairs, strict=True))
    words = f"{1e3 * ours:.1f} of {1e3 * theirs:.1f} ms a step of {BATCH}, {precision}"
    show("train-align: steps a second, of the reference's way", theirs / ours, 1.0, words)


def loss_difference(model: Any, data: CellData) -> float:
    """Compute the loss of one batch in both ways from the same noise; return the relative difference."""
    device = next(model.parameters()).device
    rows = torch.arange(BATCH, device=device)
    targets, found = data.targets.gather(rows), []
    voxels = torch.from_numpy(np.asarray(data.responses[0].signal[:BATCH])).to(device)
    for is_ours in (True, False):
        torch.manual_seed(0)
        with torch.no_grad():
            if is_ours:
                context = LossContext(step=3, steps=STEPS)
                predicted, replaced = model.learn(voxels, rows * 0, targets, context)
                found.append(Objective(terms())(predicted, {**targets, **replaced}, context))
            else:
                found.append(reference_step(model, voxels, targets, 3))
    return float(((found[0] - found[1]) / found[1]).abs())


def memory(on: Setting) -> None:
    """Estimate, from shapes, what the recipes need: weights, gradients, AdamW's averages, activations."""
    image = {name: FULL.heads[name] for name in ("image", "text")}
    for hidden, name, most in ((4096, "papers/neurons", None), (1024, "neurons-24gb", CARD / 1e9)):
        brain = mindeye2.Config(hidden=hidden)
        first, second = (f"{name}{end}" for end in ("-brain", ""))
        if hidden == 1024:
            first = "neurons-brain-24gb"
        stage1 = [
            Term.model_validate(term)
            for term in (
                {"prediction": "image", "loss": {"kind": "mixco", "temperature": 0.006, "mix_alpha": 0.15}},
                {"prediction": "text", "loss": {"kind": "clip", "temperature": 0.1}},
            )
        ]
        _estimate(first, brain, image, stage1, 120, most)
        whole = FULL.backbone.model_copy(update={"brain": brain})
        _estimate(second, whole, FULL.heads, terms(), BATCH if most is None else SMALL_BATCH, most)


def _estimate(
    name: str, config: Any, heads: Heads, lowered: list[Term], batch: int, most: float | None
) -> None:
    with torch.device("meta"):
        model = backbones.build(config, SignalSpec((), 1, (1,), (FULL.voxels,)), heads)
        objective = Objective(lowered)
        for parameter in getattr(model, "brain", nn.Module()).parameters():
            parameter.requires_grad_(False)
    learned = [each for each in model.parameters() if each.requires_grad]
    step = peak(partial(_step, model, heads, objective, batch), model)
    averages = sum(each.numel() for each in learned) * ADAM
    total = size_of(model) + averages + step
    weights, own = (sum(each.numel() for each in some) / 1e6 for some in (model.parameters(), learned))
    words = f"{weights:.0f} M weights, {own:.0f} M learned"
    show(f"train-align, estimated, GB: {name}", total / 1e9, most, words, at_most=True)


def _step(model: nn.Module, heads: Heads, objective: Objective, batch: int) -> None:
    with torch.device("meta"):
        signal, index = torch.empty(batch, FULL.voxels, 1), torch.zeros(batch, dtype=torch.long)
        targets = {name: torch.empty(batch, *head.shape) for name, head in heads.items()}
        predicted, replaced = backbones.learn(model, heads, signal, index, targets, LossContext())
        objective(predicted, {**targets, **replaced}, LossContext()).backward()


def _precision(on: Setting) -> str:
    return "bf16" if on.device.type == "cuda" else "fp32"


PARTS = {part.__name__: part for part in (memory, steps, reference)}


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
            PARTS[name](Setting(Path(home), replace(sizes), device, args.rounds))


if __name__ == "__main__":
    main()
