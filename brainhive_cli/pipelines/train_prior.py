"""train-prior: fusion encoder, projection and attention adapter on a frozen SDXL-type model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor

from brainhive_cli import console, parts, recipe
from brainhive_cli.encoders import Encoders
from brainhive_cli.errors import BrainhiveError
from brainhive_cli.launch import Launch
from brainhive_cli.metrics.statistics import Metric, measure
from brainhive_cli.pipelines import Plan, Result
from brainhive_cli.pipelines._data import match_keys
from brainhive_cli.pipelines._decoding import decoders
from brainhive_cli.pipelines._pictures import Batch, Pictures, batches
from brainhive_cli.pipelines._seeds import mixed
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
    precision: Literal["fp32", "bf16"] = Field("bf16", description="autocast dtype")
    checkpoint_steps: int = Field(1000, gt=0, description="steps between checkpoints")


class Recipe(recipe.Recipe):
    """Which prior is trained on which pictures."""

    dataset: Annotated[Any, parts.part("datasets", "image_folder")] = Field(
        "image-folder", validate_default=True, description="pictures"
    )
    split: str = Field("train", description="split whose pictures are learned")
    encoders: Encoders = Field(
        ["clip-h14", "vae"], validate_default=True, min_length=1, description="embeddings that are fused"
    )
    generator: Annotated[Any, parts.part("generators", "sdxl")] = Field(
        {"kind": "sdxl", "source": "hub:stabilityai/stable-diffusion-xl-base-1.0"},
        validate_default=True,
        description="frozen diffusion model",
    )
    prior: Annotated[Any, parts.part("priors", "fusion_prior")] = Field(
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
    return Plan.of(
        {
            "steps": lambda: what.train.steps,
            "pictures": lambda: len(_pictures(what).images),
            "generator": lambda: what.generator.build("cpu").config.source,
        }
    )


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train to the last step, going on from the newest checkpoint."""
    pictures = _pictures(what)
    label = f"{pictures.images.dataset}-{what.prior.kind}"
    folder = RunFolder.open("train-prior", label, what, launch, again)
    if not folder.is_finished:
        metrics = _train(_Training.begin(what, pictures, launch), folder)
        if launch.is_main:
            folder.finish({metric.name: metric.as_dict() for metric in metrics})
        launch.wait()
    return _result(folder, what)


def _pictures(what: Recipe) -> Pictures:
    return Pictures.open(
        what.dataset, what.split, what.encoders, what.paths, what.validation_items, what.seed
    )


@dataclass(frozen=True)
class _Training:
    """A prior attached to its generator, and the pictures that it learns from.

    Attributes:
        keys: The prior's key of each encoder, by the encoder's store name.
    """

    what: Recipe
    pictures: Pictures
    generator: Any
    prior: FusionPrior
    keys: dict[str, str]
    launch: Launch

    @classmethod
    def begin(cls, what: Recipe, pictures: Pictures, launch: Launch) -> Self:
        """Load the generator, and load or make the prior."""
        generator = what.generator.build(launch.device)
        prior, keys = _prior(what, pictures, generator)
        prior.attach(generator.unet)
        prior.to(launch.device).train()
        return cls(what, pictures, generator, prior, keys, launch)

    def draw(self, batch: Batch, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw noise, timesteps and kept tokens of my pictures, which no number of processes changes."""
        random = torch.Generator().manual_seed(mixed(self.what.seed, batch.step) >> 1)
        noise = torch.randn(batch.count, *latents.shape[1:], generator=random)
        levels = self.generator.noise_schedule.config.num_train_timesteps
        timesteps = torch.randint(0, levels, (batch.count,), generator=random)
        kept = torch.rand(batch.count, 1, generator=random) >= self.what.token_dropout
        mine = list(self.launch.mine(range(batch.count)))
        device = self.launch.device
        return noise[mine].to(device), timesteps[mine].to(device), kept[mine].to(device)

    @torch.inference_mode()
    def validate(self) -> list[float]:
        """Denoise the validation pictures at fixed noise and levels: the mean loss of each."""
        losses = []
        levels = self.generator.noise_schedule.config.num_train_timesteps
        timesteps = torch.tensor([int(share * levels) for share in LEVELS], device=self.launch.device)
        for index in self.pictures.validation:
            view, size = self.pictures.view(int(index), self.what.resolution_px)
            latents = self.generator.encode(view[None]).expand(len(LEVELS), -1, -1, -1)
            random = torch.Generator().manual_seed(mixed(self.what.seed, int(index)) >> 1)
            noise = torch.randn(latents.shape, generator=random).to(self.launch.device)
            tokens = self._tokens(index[None]).expand(len(LEVELS), -1, -1)
            sizes = size.expand(len(LEVELS), -1)
            losses.append(float(self.generator.loss(latents, tokens, noise, timesteps, sizes)))
        return losses

    @torch.inference_mode()
    def show(self, path: Path) -> None:
        """Draw some validation pictures from their own embeddings, beside what they are."""
        what, images = self.what, self.pictures.images
        chosen = self.pictures.validation[: what.sample_items]
        drawn = self.generator.generate(
            self._tokens(chosen), chosen.tolist(), steps=what.sample_steps, resolution_px=what.resolution_px
        )
        labels = [images.concepts[index] for index in chosen]
        seen = [images.open(int(index)) for index in chosen]
        contact_sheet(seen, [[picture] for picture in to_pictures(drawn)], labels).save(path)

    def _tokens(self, chosen: NDArray[np.int64]) -> Tensor:
        tokens: Tensor = self.prior(self.pictures.embeddings(chosen, self.keys, self.launch.device))
        return tokens


def _train(training: _Training, folder: RunFolder) -> list[Metric]:
    """Train the unfrozen parts on noise prediction; the loop is one screen."""
    what, prior, launch, generator = training.what, training.prior, training.launch, training.generator
    settings = what.train
    parameters = _trainable(prior, what.freeze)
    optimizer = torch.optim.AdamW(parameters, settings.lr, settings.betas, weight_decay=settings.weight_decay)
    done, at_start = _resume(folder, prior, optimizer) or (0, training.validate())
    losses: list[Tensor] = []
    steps, size = range(done, settings.steps), settings.batch_size * launch.processes
    workers = decoders(what.run.workers, launch)
    with console.progress("train-prior", len(steps)) as bar:
        for batch in batches(training.pictures, steps, size, what.resolution_px, what.seed, workers, launch):
            latents = generator.encode(batch.views)
            noise, timesteps, kept = training.draw(batch, latents)
            embeddings = training.pictures.embeddings(batch.rows, training.keys, launch.device)
            with launch.autocast(settings.precision):
                tokens = prior.tokens(prior.adapt(prior.fuse(embeddings) * kept))
                loss = generator.loss(latents, tokens, noise, timesteps, batch.sizes)
            loss.backward()
            launch.average_gradients(parameters)
            torch.nn.utils.clip_grad_norm_(parameters, settings.grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses = [*losses[-99:], loss.detach()]
            bar.advance()
            if (batch.step + 1) % settings.checkpoint_steps == 0 and launch.is_main:
                _checkpoint(folder, prior, optimizer, batch.step + 1, at_start)
                folder.log(step=batch.step + 1, loss=float(torch.stack(losses).mean()))
    return _finish(training, folder, at_start)


def _prior(what: Recipe, pictures: Pictures, generator: Any) -> tuple[FusionPrior, dict[str, str]]:
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


def _checkpoint(
    folder: RunFolder, prior: FusionPrior, optimizer: torch.optim.Optimizer, step: int, at_start: list[float]
) -> None:
    content = {"step": step, "prior": prior.state_dict(), "optimizer": optimizer.state_dict()}
    content["at_start"] = at_start
    folder.save_checkpoint("last.pt", content)


def _resume(
    folder: RunFolder, prior: FusionPrior, optimizer: torch.optim.Optimizer
) -> tuple[int, list[float]] | None:
    """Go back to the newest checkpoint: steps done, and the validation losses before the first."""
    path = folder.path / "checkpoints" / "last.pt"
    if not path.is_file():
        return None
    saved = torch.load(path, weights_only=True, map_location=next(prior.parameters()).device)
    prior.load_state_dict(saved["prior"])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["step"], saved["at_start"]


def _finish(training: _Training, folder: RunFolder, at_start: list[float]) -> list[Metric]:
    """Save the prior, measure it on the validation pictures and draw some of them."""
    what = training.what
    training.prior.eval()
    losses = {"validation_loss_at_start": at_start, "validation_loss": training.validate()}
    if training.launch.is_main:
        folder.replace("model", training.prior.save)
        if what.sample_items and at_start:
            folder.replace("samples/last.png", training.show)
    named: Any = {"seeds": (what.seed,), "protocol": "noise prediction, fixed noise", "split": "validation"}
    return [measure(name, [np.asarray(values)], **named) for name, values in losses.items() if values]


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
