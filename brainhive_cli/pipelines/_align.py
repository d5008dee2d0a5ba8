"""The training of one cell: the loop, its validation and its checkpoint."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.aligner import Aligner, Layout, load
from brainhive_cli.launch import Launch
from brainhive_cli.metrics.retrieval import ranks, summarise
from brainhive_cli.pipelines._data import Trials
from brainhive_cli.pipelines._seeds import mixed
from brainhive_cli.recipe import Section
from brainhive_cli.runs import RunFolder

CHECKPOINT_S = 15.0
"""Least time between two checkpoints of a cell; shorter cells start again."""


class Train(Section):
    """How a cell is trained; defaults are BrainHiVE's for THINGS-EEG."""

    epochs: int = Field(25, gt=0)
    batch_size: int = Field(1024, gt=1, description="trials a step, over all processes")
    lr: float = Field(5e-4, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.995)
    warmup_steps: int = Field(0, ge=0, description="linear warm-up before the cosine (paper: 10)")
    grad_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    precision: Literal["fp32", "bf16"] = Field("bf16", description="autocast dtype")
    validation: float = Field(0.1, ge=0, lt=1, description="share of training concepts held out")
    selection: Literal["best", "last"] = Field(
        "best", description="the epoch that is kept, by validation top-1"
    )


@dataclass(frozen=True)
class CellData:
    """What one cell learns from.

    Attributes:
        trials: Signals by subject; the place in the list is the subject index.
        images: Embeddings of all pictures, [M, D_encoder] by the fuser's key, on the device.
        held_out: [M] whether the picture's concept is kept for validation.
        fuser: A prior's frozen fusion encoder, or None.
        start: The model folder whose weights training begins from, or None.
    """

    trials: list[Trials]
    images: dict[str, Tensor]
    held_out: NDArray[np.bool_]
    fuser: nn.Module | None
    start: Path | None = None

    @cached_property
    def signal(self) -> Tensor:
        """[N, C, T] of all subjects, on the host."""
        return torch.from_numpy(np.concatenate([t.signal for t in self.trials]))

    @cached_property
    def picture(self) -> NDArray[np.int64]:
        """[N] row of each trial's picture."""
        return np.concatenate([t.picture for t in self.trials])

    @cached_property
    def subject(self) -> NDArray[np.int64]:
        """[N] subject index of each trial."""
        return np.repeat(np.arange(len(self.trials)), [len(t.signal) for t in self.trials])


class Batches:
    """Trials put on the device once; a batch is an index."""

    def __init__(self, data: CellData, device: torch.device) -> None:
        self.signal = data.signal.to(device)
        self.picture = torch.from_numpy(data.picture).to(device)
        self.subject = torch.from_numpy(data.subject).to(device)
        self.images = data.images
        is_held_out = data.held_out[data.picture]
        self.train_rows, self.validation_rows = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
        shown = self.picture[torch.from_numpy(self.validation_rows)]
        self.validation_pictures = torch.unique(shown, return_inverse=True)

    def epoch(self, seed: int, epoch: int, size: int) -> Iterator[NDArray[np.int64]]:
        """Yield the rows of each batch: an order that seed and epoch decide, batches of nearly one size."""
        order = np.random.default_rng((seed, epoch)).permutation(self.train_rows)
        return iter(np.array_split(order, self.steps(size)))

    def steps(self, size: int) -> int:
        """Count the batches of an epoch."""
        return max(1, -(-len(self.train_rows) // size))

    def pair(self, aligner: Aligner, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Encode signals and pictures of rows as tokens, each [B, D] in float32."""
        index = torch.from_numpy(np.ascontiguousarray(rows)).to(self.signal.device)
        picture = self.picture[index]
        signal = aligner.encode_signal(self.signal[index], self.subject[index])
        image = aligner.encode_image({key: embedding[picture] for key, embedding in self.images.items()})
        return signal.float(), image.float()


def train_cell(
    name: str,
    seed: int,
    layout: Layout,
    data: CellData,
    loss_config: Any,
    train: Train,
    folder: RunFolder,
    launch: Launch,
    told: Callable[[dict[str, Any]], None],
) -> None:
    """Train one cell to its end, going on from its checkpoint, and write model and metrics.

    `told` is called after each epoch with what there is to say of it.
    """
    aligner = _begin(seed, layout, loss_config.initial_logit_scale, data).to(launch.device)
    loss_of = loss_config.build().to(launch.device)
    batches = Batches(data, launch.device)
    learner = _Learner(aligner, train, batches.steps(train.batch_size))
    state = _State.load(folder, name, learner)
    saved = time.monotonic()
    for epoch in range(state.epoch, train.epochs):
        # dropout is the epoch's, whichever the training starts from
        torch.manual_seed(mixed(seed, epoch, launch.rank))
        aligner.train()
        losses = []
        for rows in batches.epoch(seed, epoch, train.batch_size):
            with launch.autocast(train.precision):
                signal, image = batches.pair(aligner, np.asarray(launch.mine(rows)))  # type: ignore[arg-type]
            signal, image = launch.gather_rows(signal, len(rows)), launch.gather_rows(image, len(rows))
            loss = loss_of(signal, image, aligner.logit_scale)
            loss.backward()
            launch.average_gradients(aligner.parameters())
            learner.step()
            losses.append(loss.detach())
        found = validate(aligner, batches, train.precision, launch)
        state = state.after(epoch, learner, found, train.selection)
        if launch.is_main:
            top1 = float((found == 1).float().mean()) if len(found) else None
            loss = float(torch.stack(losses).mean())
            event = {"cell": name, "epoch": epoch, "epochs": train.epochs, "loss": loss}
            told({**event, "validation_top1": top1})
            if time.monotonic() - saved > CHECKPOINT_S:
                state.save(folder, name)
                saved = time.monotonic()
    if launch.is_main:
        _finish(folder, name, seed, len(batches.validation_pictures[0]), aligner, state)


def _begin(seed: int, layout: Layout, logit_scale: float, data: CellData) -> Aligner:
    """Make the aligner that the seed decides; a prior's fusion encoder is taken over and frozen."""
    torch.manual_seed(seed)
    aligner = Aligner(layout, logit_scale)
    if data.start is not None:
        _take_over(aligner, data.start)
    if data.fuser is not None:
        aligner.fuser.load_state_dict(data.fuser.state_dict())
        aligner.fuser.requires_grad_(False)
    return aligner


def _take_over(aligner: Aligner, start: Path) -> None:
    """Begin from the weights of a model folder; what it learned for each subject begins as its mean."""
    learned = load(start).state_dict()
    for name, value in aligner.state_dict().items():
        value.copy_(learned[name] if learned[name].shape == value.shape else learned[name].mean(0))


def validate(aligner: Aligner, batches: Batches, precision: str, launch: Launch) -> Tensor:
    """Rank the pictures of held-out training concepts by their signals: [N], empty when none are held out."""
    rows = batches.validation_rows
    if not len(rows):
        return torch.empty(0)
    aligner.eval()
    pictures, target = batches.validation_pictures
    with torch.inference_mode(), launch.autocast(precision):
        signal, _ = batches.pair(aligner, rows)
        gallery = aligner.encode_image({key: e[pictures] for key, e in batches.images.items()}).float()
    return ranks(signal, gallery, target)


class _Learner:
    """AdamW with warm-up, cosine and clipped gradients."""

    def __init__(self, aligner: Aligner, train: Train, steps_per_epoch: int) -> None:
        self.aligner, self.grad_norm = aligner, train.grad_norm
        self.parameters = [p for p in aligner.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, train.lr, betas=train.betas, weight_decay=train.weight_decay
        )
        total, warmup = train.epochs * steps_per_epoch, train.warmup_steps

        def share(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + float(np.cos(np.pi * (step - warmup) / max(1, total - warmup))))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, share)

    def step(self) -> None:
        nn.utils.clip_grad_norm_(self.parameters, self.grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)


@dataclass(frozen=True)
class _State:
    """How far a cell is: its next epoch, its weights, and the epoch that is kept."""

    epoch: int = 0
    learner: _Learner | None = None
    kept: dict[str, Any] | None = None

    @classmethod
    def load(cls, folder: RunFolder, name: str, learner: _Learner) -> "_State":
        path = folder.path / "checkpoints" / f"{name}.pt"
        if not path.is_file():
            return cls()
        saved = torch.load(path, weights_only=True, map_location=learner.aligner.logit_scale.device)
        learner.aligner.load_state_dict(saved["model"])
        learner.optimizer.load_state_dict(saved["optimizer"])
        learner.schedule.load_state_dict(saved["schedule"])
        return cls(saved["epoch"], learner, saved["kept"])

    def after(self, epoch: int, learner: _Learner, found: Tensor, selection: str) -> "_State":
        """Count the epoch, and keep its weights if they are better than those kept (or later, for `last`)."""
        score = float((found == 1).double().mean()) if len(found) else 0.0
        if selection == "best" and self.kept is not None and score < self.kept["score"]:
            return _State(epoch + 1, learner, self.kept)
        weights = {key: value.detach().cpu().clone() for key, value in learner.aligner.state_dict().items()}
        return _State(
            epoch + 1, learner, {"epoch": epoch + 1, "score": score, "weights": weights, "ranks": found}
        )

    def save(self, folder: RunFolder, name: str) -> None:
        assert self.learner is not None
        content = {
            "epoch": self.epoch,
            "model": self.learner.aligner.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "schedule": self.learner.schedule.state_dict(),
            "kept": self.kept,
        }
        folder.save_checkpoint(f"{name}.pt", content)


def _finish(folder: RunFolder, name: str, seed: int, pool: int, aligner: Aligner, state: _State) -> None:
    assert state.kept is not None
    aligner.load_state_dict(state.kept["weights"])
    folder.replace(f"cells/{name}/model", aligner.save)
    validation = {}
    if pool:
        named = {"seeds": (seed,), "protocol": "held-out training concepts", "split": "validation"}
        metrics = summarise([state.kept["ranks"]], pool, **named)  # type: ignore[arg-type]
        validation = {metric.name: metric.as_dict() for metric in metrics}
    folder.write_json(f"cells/{name}/metrics.json", {"epoch": state.kept["epoch"], "validation": validation})
    (folder.path / "checkpoints" / f"{name}.pt").unlink(missing_ok=True)
