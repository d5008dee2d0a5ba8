"""Random data in published sizes: pictures, embeddings, signals, and brain models that
learn from them.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import CHECKOUT
from numpy.typing import NDArray
from PIL import Image
from shapes import peak

from brainhive_cli.core import parts
from brainhive_cli.core.device_memory import count_bytes
from brainhive_cli.data.published.things_eeg import POSTERIOR
from brainhive_cli.data.signals.spaces import Sensors, Voxels
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores import signal_store
from brainhive_cli.data.stores.signal_store import SignalStore
from brainhive_cli.data.stores.target_store import build_store_path
from brainhive_cli.data.stores.target_writer import StorePlan, TargetWriter
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.models.backbones import havir, mindeye2, neurons
from brainhive_cli.models.heads import FUSED_TARGET, TOKEN_HEAD, Head, Heads
from brainhive_cli.models.losses import LossContext
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.stages import Train
from brainhive_cli.training.alignment.terms import Term
from brainhive_cli.training.alignment.training.batches import CellData
from brainhive_cli.training.alignment.training.objective import Objective

SPLITS = {
    "train": ("training_images", 1654, 10, 4),
    "test": ("test_images", 200, 1, 80),
}
"""THINGS-EEG: folder, concepts, pictures of each, and repetitions of each picture."""
DIMS = {"synclr-b16": 768, "clip-b32": 512, "vae": 1024}
"""BrainHiVE's encoders, and the widths of their embeddings."""
SAMPLES, RATE_HZ, DIM = 250, 250.0, 1024
ADAM = 8
"""Bytes of the optimiser's two averages, a weight."""


def paint(root: Path, count: int, size_px: int = 500) -> list[Path]:
    """Make JPEG pictures, of THINGS' size by default; 32 differ, the others are links
    to them.
    """
    random = np.random.default_rng(0)
    root.mkdir(parents=True)
    files = [root / f"{number:06d}.jpg" for number in range(count)]
    for file in files[:32]:
        coarse = Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).resize(
            (size_px,) * 2, 3
        )
        pixels = np.asarray(coarse) + random.normal(0, 4, (size_px, size_px, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, quality=92)
    for number, file in enumerate(files[32:]):
        os.link(files[number % 32], file)
    return files


def make_trials(
    subject: int,
    signal: NDArray[np.float32],
    names: Sequence[str],
    rate_hz: float | None,
    regions: Mapping[str, Sequence[int]] | None = None,
) -> Trials:
    """Make trials of signals [N, C, T], each of which shows the stimulus of its row."""
    masks = {
        name: np.isin(np.arange(signal.shape[1]), rows)
        for name, rows in (regions or {}).items()
    }
    space, times_s = (
        Sensors(names) if names else Voxels(masks),
        np.arange(signal.shape[2]) / (rate_hz or 1),
    )
    rows = np.arange(len(signal))
    return Trials(
        signal[:, None], (), space, times_s, rate_hz, "", subject=subject, stimulus=rows
    )


def things_ids(split: str, concepts: int | None = None) -> list[str]:
    """Name pictures as THINGS-EEG does."""
    folder, all_concepts, pictures, _ = SPLITS[split]
    return [
        f"{folder}/{concept:05d}_thing/thing{concept:05d}_{number:02d}b"
        for concept in range(1, (concepts or all_concepts) + 1)
        for number in range(pictures)
    ]


def write_targets(
    home: Path,
    dataset: str,
    split: str,
    ids: Sequence[str],
    dims: Mapping[str, int] = DIMS,
) -> None:
    """Write stores of random embeddings."""
    random = np.random.default_rng(0)
    concepts = [name.split("/")[1] if "/" in name else name for name in ids]
    for encoder, width in dims.items():
        path = build_store_path(home / "embeddings", dataset, split, encoder)
        attributes = {"encoder": encoder, "dataset": dataset, "split": split}
        StorePlan(path, ids, concepts, (width,), "float32", attributes).create()
        writer = TargetWriter(path)
        writer.write(
            np.arange(len(ids)), random.standard_normal((len(ids), width), np.float32)
        )
        writer.close()
        writer.finish()


def write_signals(
    home: Path, ids: Sequence[str], subjects: int, repetitions: int = 4
) -> None:
    """Write stores of the 17 posterior sensors; equal signals of several subjects would
    be refused.
    """
    shape, times_s = (
        (len(ids), repetitions, len(POSTERIOR), SAMPLES),
        np.arange(SAMPLES) / RATE_HZ,
    )
    for subject in range(1, subjects + 1):
        signal = np.random.default_rng(subject).standard_normal(shape, np.float32)
        recording = Trials(
            signal, list(ids), Sensors(POSTERIOR), times_s, RATE_HZ, "random"
        )
        path = signal_store.build_store_path(
            home / "signals", "things-eeg", "default", subject
        )
        SignalStore.write(path, {"train": recording})


def write_published(home: Path, subject: int, ids: Mapping[str, Sequence[str]]) -> None:
    """Write the files of a subject of THINGS-EEG as their publisher does: 63 channels,
    float16.
    """
    sys.path[:0] = [str(CHECKOUT)]
    from tests.publishers import things_files

    random = np.random.default_rng(subject)
    for split, names in ids.items():
        signal = np.empty(
            (len(names), SPLITS[split][3], len(things_files.MONTAGE), SAMPLES),
            np.float16,
        )
        for row in signal:
            row[:] = random.standard_normal(row.shape, np.float32)
        content = things_files.eeg_content(signal, [f"{name}.jpg" for name in names])
        things_files.save_eeg(home / "data/things-eeg", subject, split, content)


@dataclass(frozen=True)
class Model:
    """A brain model, and what it learns from and how.

    Attributes:
        layout: Its architecture.
        terms: Its loss.
        targets: Shape of each target by key.
        batch: Signals a step.
        steps: Of an epoch.
        train: Settings of the training that are not the defaults.
        frozen: The part that keeps its weights.
        dtype: Of stored targets.
    """

    layout: Layout
    terms: list[Term]
    targets: Mapping[str, tuple[int, ...]]
    batch: int
    steps: int
    train: Mapping[str, Any] = field(default_factory=dict)
    frozen: str = ""
    dtype: torch.dtype = torch.float32

    def settings(self, precision: str, epochs: int) -> Train:
        """Make the settings of a training whose last epoch is kept."""
        common = {
            "batch_size": self.batch,
            "precision": precision,
            "selection": "last",
            "validation": 0,
        }
        stage = {
            "epochs": epochs,
            "freeze": [f"backbone.{self.frozen}"] if self.frozen else [],
        }
        return Train.model_validate({**common, **self.train, "stages": [stage]})

    def data(self, device: torch.device) -> CellData:
        """Draw one subject's signals, and targets."""
        count, spec, random = (
            self.batch * self.steps,
            self.layout.spec,
            torch.Generator().manual_seed(0),
        )

        def target(name: str, shape: tuple[int, ...]) -> torch.Tensor:
            if name == "caption":  # words
                return torch.randint(0, 256, (count, *shape), generator=random).float()
            values = torch.randn(count, *shape, generator=random)
            return (
                (values > 0).float()
                if name in ("mask", "concepts")
                else values.to(self.dtype)
            )

        targets = {
            name: StoreTargets(target(name, shape).to(device))
            for name, shape in self.targets.items()
        }
        signal: NDArray[np.float32] = np.random.default_rng(0).standard_normal(
            (count, spec.widths[0], spec.samples), np.float32
        )
        regions = {name: by_subject[0] for name, by_subject in spec.regions.items()}
        rate_hz = RATE_HZ if spec.names else None
        trials = make_trials(1, signal, spec.names, rate_hz, regions)
        return CellData([trials], Targets(targets), np.zeros(count, bool), None)

    def aligner(self, device: torch.device) -> Aligner:
        """Build the model, with random weights."""
        with device:
            aligner = Aligner(self.layout).train()
        if self.frozen:
            aligner.backbone.get_submodule(self.frozen).eval().requires_grad_(False)
        return aligner

    def forward(
        self, aligner: Aligner, signal: torch.Tensor, embeddings: Any
    ) -> tuple[Any, Any, LossContext]:
        """Return the predictions and targets of a batch, and their context, as a loss
        takes them.
        """
        context = LossContext(steps=self.steps)
        subject = torch.zeros(len(signal), dtype=torch.long, device=signal.device)
        both = aligner.learn(
            signal, subject, aligner.compute_targets(embeddings), context
        )
        predicted, targets = (
            {name: value.float() for name, value in values.items()} for values in both
        )
        return predicted, targets, context

    def estimate_gb(self) -> tuple[float, float]:
        """Estimate weights, AdamW's averages and a float32 step's peak, from shapes;
        count the weights.
        """
        meta = torch.device("meta")
        aligner, spec = self.aligner(meta), self.layout.spec
        objective = Objective(self.terms).to(meta)

        def step() -> None:
            with meta:
                signal = torch.empty(self.batch, spec.widths[0], spec.samples)
                embeddings = {
                    name: torch.empty(self.batch, *shape)
                    for name, shape in self.targets.items()
                }
                # which a training holds, too
                compared = self.forward(aligner, signal, embeddings)
                objective(*compared).backward()

        learned = sum(
            each.numel() for each in aligner.parameters() if each.requires_grad
        )
        total = count_bytes(aligner) + learned * ADAM + peak(step, aligner)
        return total / 1e9, sum(each.numel() for each in aligner.parameters()) / 1e6


def eeg_model(
    kind: str = "brain_mlp", batch: int = 1024, steps: int = 8, **backbone: Any
) -> Model:
    """Describe BrainHiVE's model of THINGS-EEG."""
    layout = Layout(
        SignalSpec(POSTERIOR, SAMPLES, (1,), (len(POSTERIOR),)),
        {TOKEN_HEAD: Head((DIM,), FUSED_TARGET)},
        backbone=parts.resolve("backbones", kind).model_dump() | backbone,
        fuser=parts.resolve("fusers", "fusion_encoder").model_dump() | backbone,
        dims=DIMS,
        encoders={name: name for name in DIMS},
    )
    return Model(
        layout,
        [Term(prediction=TOKEN_HEAD)],
        {name: (dim,) for name, dim in DIMS.items()},
        batch,
        steps,
    )


def samga_model(batch: int = 512, steps: int = 32, width: int = 3200) -> Model:
    """Describe SAMGA's model of THINGS-EEG in its first stage: five layers of
    InternViT, MMD beside clip.
    """
    clip = {
        "kind": "clip",
        "normalise_signal": False,
        "scale_by": "softplus",
        "learn_scale": False,
    }
    terms = [
        {"prediction": TOKEN_HEAD, "loss": "mmd", "weight": 0.7},
        {"prediction": TOKEN_HEAD, "loss": clip},
    ]
    train = {"augment": {"parts": [{"kind": "smooth", "p": 0.3}]}}
    layers = {f"layer-{number}": width for number in range(5)}
    return _linear_model("router", 512, layers, terms, batch, steps, train)


def shallow_alignment_model(
    batch: int = 1024, steps: int = 16, width: int = 3200
) -> Model:
    """Describe Shallow Alignment's model of THINGS-EEG: one layer of InternViT, a
    linear map each side.
    """
    return _linear_model(
        "linear", DIM, {"layer": width}, [{"prediction": TOKEN_HEAD}], batch, steps, {}
    )


def _linear_model(
    fuser: str,
    dim: int,
    dims: dict[str, int],
    terms: list[Any],
    batch: int,
    steps: int,
    train: Any,
) -> Model:
    layout = Layout(
        SignalSpec(POSTERIOR, SAMPLES, (1,), (len(POSTERIOR),)),
        {TOKEN_HEAD: Head((dim,), FUSED_TARGET)},
        backbone=parts.resolve("backbones", "brain-projection").model_dump(),
        fuser=parts.resolve("fusers", {"kind": fuser, "signal_dim": DIM}).model_dump(),
        dims=dims,
        encoders={name: name for name in dims},
    )
    shapes = {name: (width,) for name, width in dims.items()}
    placed = [Term.model_validate(term) for term in terms]
    return Model(layout, placed, shapes, batch, steps, train, dtype=torch.float16)


def havir_model(size: str, hidden: int = 4096, **backbone: Any) -> Model:
    """Describe HAVIR's model of NSD: voxels of two regions as MindEye2's masks have
    them, three heads.
    """
    is_full = size == "full"
    voxels = (
        {"spatial": 4657, "semantic": 11067}
        if is_full
        else {"spatial": 500, "semantic": 1100}
    )
    shapes: dict[str, tuple[int, ...]] = {
        "latent": (4, 8, 8),
        "image": (17, 96),
        "text": (7, 96),
    }
    config = havir.Config(
        hidden=1024, decoder_channels=(32, 32, 64), features=32, projector=256
    )
    if is_full:
        shapes = {"latent": (4, 64, 64), "image": (257, 768), "text": (77, 768)}
        config = havir.Config(**({"hidden": hidden} | backbone))
    heads = {name: Head(shape, name) for name, shape in shapes.items()}
    heads["image_projected"] = heads["image"]
    terms = [
        {"prediction": "latent", "loss": "mse"},
        {"prediction": "latent", "loss": "sobel", "weight": 0.1},
        {
            "prediction": "image_projected",
            "loss": {"kind": "soft_clip", "temperature": 0.006},
        },
        {"prediction": "image", "loss": "mse"},
        {"prediction": "text", "loss": "mse"},
    ]
    layout = _fmri_layout(voxels, heads, config, "image_projected")
    return Model(
        layout,
        [Term.model_validate(term) for term in terms],
        shapes,
        32,
        2 if size == "tiny" else 16,
    )


def neurons_model(
    size: str, hidden: int = 4096, batch: int = 10, is_first: bool = False
) -> Model:
    """Describe NEURONS' model of cc2017: of its first training, the brain model alone,
    or of its second.
    """
    is_full = size == "full"
    tokens, width, text, side, latent, words = (
        (256, 1664, 1280, 64, 28, 60) if is_full else (16, 128, 64, 16, 7, 12)
    )
    shapes: dict[str, tuple[int, ...]] = {
        "image": (tokens, width),
        "motion": (6, tokens, width),
        "text": (text,),
        "mask": (6, 1, side, side),
        "latents": (6, 4, latent, latent),
        "concepts": (51,),
        "caption": (words,),
    }
    brain = mindeye2.Config(hidden=hidden if is_full else 512)
    config: Any = neurons.Config(brain=brain)
    if not is_full:
        config = neurons.Config(
            brain=brain,
            prior={"kind": "mindeye1", "depth": 2, "heads": 4, "dim_head": 32},  # type: ignore[arg-type]
            **{
                "maps": (64, 32, 16),
                "channels": (16, 32, 32),
                "groups": 8,
                "concept_width": 64,
            },
            **{
                "vocabulary": 512,
                "caption_width": 64,
                "caption_layers": 2,
                "caption_heads": 2,
            },
            caption_positions=32,
        )
    mixco = {"kind": "mixco", "temperature": 0.006, "mix_alpha": 0.15}
    soft = {"kind": "soft_clip", "items": "frames", "temperature": 0.004}
    clip = {"prediction": "text", "loss": {"kind": "clip", "temperature": 0.1}}
    terms: list[dict[str, Any]] = [{"prediction": "image", "loss": mixco}, clip]
    if is_first:
        config, shapes = brain, {name: shapes[name] for name in ("image", "text")}
    else:
        tasks = {
            "mask": "dice",
            "concepts": "bce",
            "caption": "cross_entropy",
            "latents": "l1",
        }
        terms = [{"prediction": "denoised", "loss": "mse", "weight": 30}, clip]
        terms += [{"prediction": "motion", "loss": soft}]
        terms += [{"prediction": head, "loss": loss} for head, loss in tasks.items()]
    heads = {name: Head(shape, name) for name, shape in shapes.items()}
    layout = _fmri_layout({"": 13447 if is_full else 600}, heads, config, "image")
    steps, frozen = 2 if size == "tiny" else 12, "" if is_first else "brain"
    return Model(
        layout,
        [Term.model_validate(term) for term in terms],
        shapes,
        batch,
        steps,
        frozen=frozen,
    )


def _fmri_layout(
    voxels: Mapping[str, int], heads: Heads, backbone: Any, retrieval: str
) -> Layout:
    ends = np.cumsum(list(voxels.values())).tolist()
    regions = {
        name: (tuple(range(end - count, end)),)
        for (name, count), end in zip(voxels.items(), ends, strict=True)
        if name
    }
    spec = SignalSpec((), 1, (1,), (ends[-1],), regions=regions)
    keys = {head.target: head.target for head in heads.values()}
    config = backbone.model_dump(mode="json")
    return Layout(spec, heads, config, encoders=keys, retrieval_heads=(retrieval,))
