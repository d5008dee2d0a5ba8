"""train-prior: fusion encoder, projection and attention adapter on a frozen SDXL-type model."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from brainhive_cli import console, parts, recipe
from brainhive_cli.datasets import Dataset, ImageSet
from brainhive_cli.embeddings import EmbeddingStore
from brainhive_cli.encoders import Encoders
from brainhive_cli.errors import BrainhiveError
from brainhive_cli.launch import Launch
from brainhive_cli.metrics.statistics import Metric, measure
from brainhive_cli.pipelines import Plan, Result
from brainhive_cli.pipelines._data import match_keys, open_embeddings
from brainhive_cli.priors.fusion_prior import FusionPrior
from brainhive_cli.recipe import Section
from brainhive_cli.reports.sheets import contact_sheet
from brainhive_cli.runs import RunFolder

PARTS = ("fusion_encoder", "proj", "attn_adapter")
LEVELS = (0.2, 0.5, 0.8)
"""Shares of the noise schedule at which validation items are denoised."""


class Train(Section):
    """How the prior is trained; defaults are BrainHiVE's."""

    steps: int = Field(100_000, gt=0)
    batch_size: int = Field(16, gt=0, description="pictures a step, on each process")
    lr: float = Field(1e-4, gt=0, description="learning rate of AdamW, constant")
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    grad_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    precision: Literal["fp32", "bf16", "fp16"] = Field("bf16", description="autocast dtype")
    checkpoint_steps: int = Field(1000, gt=0, description="steps between checkpoints")


class Recipe(recipe.Recipe):
    """Which prior is trained on which pictures."""

    dataset: parts.part("datasets") = Field("image-folder", validate_default=True, description="pictures")  # type: ignore[valid-type]
    split: str = Field("train", description="split whose pictures are learned")
    encoders: Encoders = Field(
        ["clip-h14", "vae"], validate_default=True, description="embeddings that are fused"
    )
    generator: parts.part("generators") = Field(  # type: ignore[valid-type]
        {"kind": "sdxl", "source": "hub:stabilityai/stable-diffusion-xl-base-1.0"},
        validate_default=True,
        description="frozen diffusion model",
    )
    prior: parts.part("priors") = Field(  # type: ignore[valid-type]
        "fusion_prior", validate_default=True, description="sizes of a new prior"
    )
    continue_from: str | None = Field(
        None, description="a Fusion Prior to go on training, instead of a new one"
    )
    freeze: recipe.Names = Field([], description=f"parts that stay as they are: {', '.join(PARTS)}")
    resolution_px: int = Field(512, gt=0, description="short side and centre crop of the pictures")
    token_dropout: float = Field(0.1, ge=0, lt=1, description="share of tokens zeroed")
    validation_items: int = Field(
        32, ge=0, description="pictures kept from training, for the validation loss"
    )
    sample_items: int = Field(6, ge=0, description="validation pictures drawn at the end")
    sample_steps: int = Field(4, gt=0, description="denoising steps of these")
    seed: int = 0
    train: Train = Train()


def plan(what: Recipe) -> Plan:
    """Say what would be trained on what, and what is missing."""
    items: dict[str, Any] = {"steps": what.train.steps}
    missing = []
    for check in (_pictures, lambda what: what.generator.build(torch.device("cpu"))):
        try:
            found = check(what)
            if isinstance(found, _Pictures):
                items["pictures"] = len(found.images)
        except BrainhiveError as error:
            missing.append(f"{error.what} ({error.hint})")
    return Plan(items, missing)


@dataclass(frozen=True)
class _Pictures:
    """Pictures with their embeddings, and which are kept for validation."""

    images: ImageSet
    stores: dict[str, EmbeddingStore]
    rows: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]

    def embeddings(
        self, chosen: NDArray[np.int64], keys: dict[str, str], device: torch.device
    ) -> dict[str, Tensor]:
        """Read the embeddings of the chosen pictures, by the prior's keys."""
        taken = {name: store.embedding[self.rows[chosen]] for name, store in self.stores.items()}
        return {
            keys[name]: torch.from_numpy(np.asarray(e, np.float32)).to(device) for name, e in taken.items()
        }


def _pictures(what: Recipe) -> _Pictures:
    dataset: Dataset = what.dataset.build(what.paths)
    images = dataset.images(what.split)
    stores = open_embeddings(what.paths, dataset.name, what.split, [config.name for config in what.encoders])
    rows = next(iter(stores.values())).rows(images.image_ids)
    order = np.random.default_rng(what.seed).permutation(np.flatnonzero(rows >= 0))
    held = min(what.validation_items, len(order) // 5)
    return _Pictures(images, stores, rows, np.sort(order[held:]), order[:held])


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train to the last step, going on from the newest checkpoint."""
    pictures = _pictures(what)
    folder = RunFolder.open(
        "train-prior", f"{pictures.images.dataset}-{what.prior.kind}", what, launch, again
    )
    if not folder.is_finished:
        metrics = _train(what, pictures, folder, launch)
        if launch.is_main:
            folder.finish({metric.name: metric.as_dict() for metric in metrics})
        launch.wait()
    return _result(folder, what)


def _train(what: Recipe, pictures: _Pictures, folder: RunFolder, launch: Launch) -> list[Metric]:
    """Train the unfrozen parts on noise prediction; the loop is one screen."""
    generator = what.generator.build(launch.device)
    prior, keys = _prior(what, pictures, generator)
    prior.attach(generator.unet)
    prior.to(launch.device).train()
    parameters = _trainable(prior, what.freeze)
    settings = what.train
    optimizer = torch.optim.AdamW(parameters, settings.lr, settings.betas, weight_decay=settings.weight_decay)
    done = _resume(folder, prior, optimizer)
    before = _validate(what, pictures, generator, prior, keys, launch) if done == 0 else None
    losses: list[Tensor] = []
    with console.progress("train-prior", settings.steps - done) as bar:
        for step, chosen, views, sizes in _batches(what, pictures, done, launch):
            random = torch.Generator().manual_seed(_mixed(what.seed, step, launch.rank))
            latents = generator.encode(views.to(launch.device))
            noise = torch.randn(latents.shape, generator=random).to(launch.device)
            levels = generator.noise_schedule.config.num_train_timesteps
            timesteps = torch.randint(0, levels, (len(chosen),), generator=random).to(launch.device)
            kept = (torch.rand(len(chosen), 1, generator=random) >= what.token_dropout).to(launch.device)
            with launch.autocast(settings.precision):
                token = prior.fuse(pictures.embeddings(chosen, keys, launch.device)) * kept
                loss = generator.loss(latents, prior.tokens(prior.adapt(token)), noise, timesteps, sizes)
            loss.backward()
            launch.average_gradients(parameters)
            torch.nn.utils.clip_grad_norm_(parameters, settings.grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())
            bar.advance()
            if (step + 1) % settings.checkpoint_steps == 0 and launch.is_main:
                _checkpoint(folder, prior, optimizer, step + 1, losses)
    return _finish(what, pictures, folder, generator, prior, keys, before, launch)


def _prior(what: Recipe, pictures: _Pictures, generator: Any) -> tuple[FusionPrior, dict[str, str]]:
    if what.continue_from is not None:
        prior = FusionPrior.load(what.continue_from).float()
        return prior, match_keys(what.encoders, prior.dims, f"the prior {what.continue_from}")
    torch.manual_seed(what.seed)
    keys = {config.name: config.upstream or config.name for config in what.encoders}
    dims = {keys[name]: store.embedding.shape[-1] for name, store in pictures.stores.items()}
    return what.prior.build(dims, generator.unet), keys


def _trainable(prior: FusionPrior, frozen: list[str]) -> list[torch.nn.Parameter]:
    unknown = set(frozen) - set(PARTS)
    if unknown or set(frozen) == set(PARTS):
        raise BrainhiveError(
            f"freeze: {', '.join(frozen)} leaves nothing known to train", f"parts: {', '.join(PARTS)}"
        )
    for part in frozen:
        prior.get_submodule(part).requires_grad_(False)
    return [parameter for parameter in prior.parameters() if parameter.requires_grad]


def _mixed(*seeds: int) -> int:
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)


class _Views(TorchDataset[tuple[Tensor, Tensor]]):
    """Pictures cropped to the resolution, -1..1, with SDXL's size and crop ids."""

    def __init__(self, images: ImageSet, resolution_px: int) -> None:
        self.images, self.side = images, resolution_px

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return view_of(self.images.open(index), self.side)


def view_of(picture: Image.Image, side: int) -> tuple[Tensor, Tensor]:
    """Resize the short side, crop the centre: [3, side, side] in -1..1, and SDXL's six ids in pixels."""
    from torchvision.transforms.v2 import functional as F

    resized = F.resize(picture, [side], F.InterpolationMode.LANCZOS)
    top, left = (resized.height - side) // 2, (resized.width - side) // 2
    pixels = F.pil_to_tensor(F.crop(resized, top, left, side, side)).float().div(127.5).sub(1)
    return pixels, torch.tensor([picture.height, picture.width, top, left, side, side], dtype=torch.float32)


def _batches(
    what: Recipe, pictures: _Pictures, done: int, launch: Launch
) -> Iterator[tuple[int, NDArray[np.int64], Tensor, Tensor]]:
    """Yield (step, rows, pictures, sizes) from step `done` on; seed and step alone decide the rows."""
    size, count = what.train.batch_size * launch.processes, len(pictures.train)
    each = max(1, count // size)  # whole batches an epoch

    def rows(step: int) -> NDArray[np.int64]:
        order = np.random.default_rng((what.seed, step // each)).permutation(pictures.train)
        chosen = order[(step % each) * size :][:size]
        return np.asarray(launch.mine(chosen))  # type: ignore[arg-type]

    schedule = [rows(step) for step in range(done, what.train.steps)] if count < 100_000 else None
    chosen_at = (lambda step: schedule[step - done]) if schedule is not None else rows
    spare = max(0, (os.cpu_count() or 1) // launch.processes - 1)
    workers = min(8, spare) if what.run.workers is None else what.run.workers
    steps = range(done, what.train.steps)
    loader = DataLoader(
        _Views(pictures.images, what.resolution_px),
        batch_sampler=[chosen_at(step).tolist() for step in steps],
        num_workers=workers,
    )
    for step, (views, sizes) in zip(steps, loader, strict=True):
        yield step, chosen_at(step), views, sizes


def _checkpoint(
    folder: RunFolder, prior: FusionPrior, optimizer: Any, step: int, losses: list[Tensor]
) -> None:
    content = {"step": step, "prior": prior.state_dict(), "optimizer": optimizer.state_dict()}
    folder.replace("checkpoints/last.pt", lambda beside: torch.save(content, beside))
    folder.log(step=step, loss=float(torch.stack(losses[-100:]).mean()))


def _resume(folder: RunFolder, prior: FusionPrior, optimizer: Any) -> int:
    path = folder.path / "checkpoints" / "last.pt"
    if not path.is_file():
        return 0
    saved = torch.load(path, weights_only=True, map_location=next(prior.parameters()).device)
    prior.load_state_dict(saved["prior"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


@torch.inference_mode()
def _validate(
    what: Recipe,
    pictures: _Pictures,
    generator: Any,
    prior: FusionPrior,
    keys: dict[str, str],
    launch: Launch,
) -> NDArray[np.float64] | None:
    """Denoise the validation pictures at fixed noise and levels: the mean loss of each [N]."""
    if not len(pictures.validation):
        return None
    losses = []
    for index in pictures.validation:
        view, size = view_of(pictures.images.open(int(index)), what.resolution_px)
        latents = generator.encode(view[None].to(launch.device)).expand(len(LEVELS), -1, -1, -1)
        random = torch.Generator().manual_seed(_mixed(what.seed, int(index)))
        noise = torch.randn(latents.shape, generator=random).to(launch.device)
        levels = generator.noise_schedule.config.num_train_timesteps
        timesteps = torch.tensor([int(share * levels) for share in LEVELS], device=launch.device)
        tokens = prior(pictures.embeddings(np.array([index]), keys, launch.device)).expand(
            len(LEVELS), -1, -1
        )
        losses.append(float(generator.loss(latents, tokens, noise, timesteps, size.expand(len(LEVELS), -1))))
    return np.asarray(losses)


def _finish(
    what: Recipe,
    pictures: _Pictures,
    folder: RunFolder,
    generator: Any,
    prior: FusionPrior,
    keys: dict[str, str],
    before: NDArray[np.float64] | None,
    launch: Launch,
) -> list[Metric]:
    """Save the prior, measure it on the validation pictures and draw some of them."""
    prior.eval()
    if launch.is_main:
        folder.replace("model", prior.save)
    after = _validate(what, pictures, generator, prior, keys, launch)
    named = {"validation_loss_at_start": before, "validation_loss": after}
    metrics = [
        measure(
            name, [values], seeds=(what.seed,), protocol="noise prediction, fixed noise", split="validation"
        )
        for name, values in named.items()
        if values is not None
    ]
    if launch.is_main and what.sample_items and len(pictures.validation):
        folder.replace(
            "samples/last.png", lambda beside: _draw(what, pictures, generator, prior, keys, beside)
        )
    return metrics


def _draw(
    what: Recipe, pictures: _Pictures, generator: Any, prior: FusionPrior, keys: dict[str, str], path: Path
) -> None:
    chosen = pictures.validation[: what.sample_items]
    with torch.inference_mode():
        tokens = prior(pictures.embeddings(chosen, keys, generator.device))
        drawn = generator.generate(
            tokens, chosen.tolist(), steps=what.sample_steps, resolution_px=what.resolution_px
        )
    seen = [pictures.images.open(int(index)) for index in chosen]
    labels = [pictures.images.concepts[index] for index in chosen]
    contact_sheet(seen, [[picture] for picture in to_pictures(drawn)], labels).save(path)


def to_pictures(images: Tensor) -> list[Image.Image]:
    """Turn [B, 3, H, W] in 0..1 into pictures."""
    array = images.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(each) for each in array]


def _result(folder: RunFolder, what: Recipe) -> Result:
    metrics = folder.metrics()
    rows = [(name, m["value"], f"{m['low']:.4f}–{m['high']:.4f}", m["n"]) for name, m in metrics.items()]
    table = console.Table("Fusion Prior", ("metric", "value", "95 % CI", "n"), tuple(rows))
    sheet = folder.path / "samples" / "last.png"
    files = {"samples": sheet} if sheet.is_file() else {}
    hint = f"brainhive train-align --prior {folder.path / 'model'}"
    return Result(folder.path, (table,), metrics, files, hint)
