"""Random data and brain models in published sizes."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import CHECKOUT
from numpy.typing import NDArray
from PIL import Image
from shapes import peak

from brainhive_cli.core.base.device_memory import count_bytes
from brainhive_cli.core.recipes import parts
from brainhive_cli.data.published.things_eeg import POSTERIOR
from brainhive_cli.data.signals.spaces import Sensors, Voxels
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores import signal_store
from brainhive_cli.data.stores.signal_store import SignalStore
from brainhive_cli.data.stores.target_store import build_store_path
from brainhive_cli.data.stores.target_writer import StorePlan, TargetWriter
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.models.backbones import havir, mindeye2, neurons, with_prior
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
"""THINGS-EEG by split: folder, concepts, pictures per concept, repetitions."""
DIMS = {"synclr-b16": 768, "clip-b32": 512, "vae": 1024}
"""Widths of the embeddings of BrainHiVE, keyed by encoder."""
SAMPLES = 250
RATE_HZ = 250.0
DIM = 1024
N_DISTINCT_PICTURES = 32
ADAM_BYTES_PER_WEIGHT = 8
"""Two float32 averages of the optimiser."""


def write_pictures(root: Path, count: int, size_px: int = 500) -> list[Path]:
    """Write square JPEG pictures: 32 that differ, and hard links to them."""
    random = np.random.default_rng(0)
    root.mkdir(parents=True)
    files = [root / f"{number:06d}.jpg" for number in range(count)]
    for file in files[:N_DISTINCT_PICTURES]:
        blocks = Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8))
        coarse = blocks.resize((size_px, size_px), Image.Resampling.BICUBIC)
        pixels = np.asarray(coarse) + random.normal(0, 4, (size_px, size_px, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, quality=92)
    for number, file in enumerate(files[N_DISTINCT_PICTURES:]):
        os.link(files[number % N_DISTINCT_PICTURES], file)
    return files


def make_trials(
    subject: int,
    signal: NDArray[np.float32],
    names: Sequence[str],
    rate_hz: float | None,
    regions: Mapping[str, Sequence[int]] | None = None,
) -> Trials:
    """Make trials of signals [N, C, T], each with the stimulus of its own row.

    Without names of sensors, the channels are voxels, and `regions` holds the voxel
    indices of each region.
    """
    times_s = np.arange(signal.shape[2]) / (rate_hz or 1)
    space: Sensors | Voxels
    if names:
        space = Sensors(names)
    else:
        masks = {}
        for region, voxels in (regions or {}).items():
            masks[region] = np.isin(np.arange(signal.shape[1]), voxels)
        space = Voxels(masks)
    rows = np.arange(len(signal))
    return Trials(
        signal, (), space, times_s, rate_hz, "", subject=subject, stimulus=rows
    )


def make_things_ids(split: str, concepts: int | None = None) -> list[str]:
    """Make picture ids as in THINGS-EEG, by default for all concepts of a split."""
    folder, all_concepts, pictures, _ = SPLITS[split]
    ids = []
    for concept in range(1, (concepts or all_concepts) + 1):
        for number in range(pictures):
            name = f"{concept:05d}_thing/thing{concept:05d}_{number:02d}b"
            ids.append(f"{folder}/{name}")
    return ids


def write_targets(
    home: Path,
    dataset: str,
    split: str,
    ids: Sequence[str],
    dims: Mapping[str, int] = DIMS,
) -> None:
    """Write a store of random embeddings for each encoder."""
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
    """Write stores of 17 sensors, which differ because equal subjects are refused."""
    shape = (len(ids), repetitions, len(POSTERIOR), SAMPLES)
    times_s = np.arange(SAMPLES) / RATE_HZ
    for subject in range(1, subjects + 1):
        signal = np.random.default_rng(subject).standard_normal(shape, np.float32)
        recording = Trials.from_repetitions(
            signal, list(ids), Sensors(POSTERIOR), times_s, RATE_HZ, "random"
        )
        path = signal_store.build_store_path(
            home / "signals", "things-eeg", "default", subject
        )
        SignalStore.write(path, {"train": recording})


def write_published(home: Path, subject: int, ids: Mapping[str, Sequence[str]]) -> None:
    """Write a subject's files in the published format: 63 channels in float16."""
    sys.path[:0] = [str(CHECKOUT)]
    from tests.publishers import things_files

    random = np.random.default_rng(subject)
    for split, names in ids.items():
        shape = (len(names), SPLITS[split][3], len(things_files.MONTAGE), SAMPLES)
        signal = np.empty(shape, np.float16)
        for row in signal:
            row[:] = random.standard_normal(row.shape, np.float32)
        content = things_files.eeg_content(signal, [f"{name}.jpg" for name in names])
        things_files.save_eeg(home / "data/things-eeg", subject, split, content)


@dataclass(frozen=True)
class Model:
    """A brain model and its training on random data.

    Attributes:
        layout: Architecture.
        terms: Terms of the loss.
        targets: Shape of each target, keyed by name.
        batch: Signals per step.
        steps: Steps per epoch.
        train: Settings of the training that differ from the defaults.
        frozen: Part of the backbone that keeps its weights.
        dtype: Type of the stored targets.
    """

    layout: Layout
    terms: list[Term]
    targets: Mapping[str, tuple[int, ...]]
    batch: int
    steps: int
    train: Mapping[str, Any] = field(default_factory=dict)
    frozen: str = ""
    dtype: torch.dtype = torch.float32

    def make_settings(self, precision: str, epochs: int) -> Train:
        """Make the settings of a training that keeps its last epoch."""
        settings: dict[str, Any] = {
            "batch_size": self.batch,
            "precision": precision,
            "selection": "last",
            "validation": 0,
        }
        settings.update(self.train)
        frozen = [f"backbone.{self.frozen}"] if self.frozen else []
        settings["stages"] = [{"epochs": epochs, "freeze": frozen}]
        return Train.model_validate(settings)

    def draw_data(self, device: torch.device) -> CellData:
        """Draw the signals and targets of one subject."""
        count = self.batch * self.steps
        spec = self.layout.spec
        generator = torch.Generator().manual_seed(0)
        targets = {}
        for name, shape in self.targets.items():
            if name == "caption":  # word numbers
                words = torch.randint(0, 256, (count, *shape), generator=generator)
                values = words.float()
            else:
                values = torch.randn(count, *shape, generator=generator)
                if name in ("mask", "concepts"):
                    values = (values > 0).float()
                else:
                    values = values.to(self.dtype)
            targets[name] = StoreTargets(values.to(device))

        signal: NDArray[np.float32] = np.random.default_rng(0).standard_normal(
            (count, spec.widths[0], spec.samples), np.float32
        )
        regions = {name: by_subject[0] for name, by_subject in spec.regions.items()}
        rate_hz = RATE_HZ if spec.names else None
        trials = make_trials(1, signal, spec.names, rate_hz, regions)
        return CellData([trials], Targets(targets), np.zeros(count, bool), None)

    def build_aligner(self, device: torch.device) -> Aligner:
        """Build the model with random weights."""
        with device:
            aligner = Aligner(self.layout).train()
        if self.frozen:
            aligner.backbone.get_submodule(self.frozen).eval().requires_grad_(False)
        return aligner

    def forward(
        self, aligner: Aligner, signal: torch.Tensor, embeddings: Any
    ) -> tuple[Any, Any, LossContext]:
        """Return predictions and targets of a batch in float32, and their context."""
        context = LossContext(steps=self.steps)
        subject = torch.zeros(len(signal), dtype=torch.long, device=signal.device)
        predicted, targets = aligner.learn(
            signal, subject, aligner.compute_targets(embeddings), context
        )
        predicted = {name: value.float() for name, value in predicted.items()}
        targets = {name: value.float() for name, value in targets.items()}
        return predicted, targets, context

    def build_step(self) -> tuple[Aligner, Callable[[], None]]:
        """Build the model from shapes alone, and a function that runs a training step.

        The step is a forward and a backward pass, without the optimiser.
        """
        meta = torch.device("meta")
        aligner = self.build_aligner(meta)
        spec = self.layout.spec
        objective = Objective(self.terms).to(meta)

        def step() -> None:
            with meta:
                signal = torch.empty(self.batch, spec.widths[0], spec.samples)
                embeddings = {
                    name: torch.empty(self.batch, *shape)
                    for name, shape in self.targets.items()
                }
                # a training also holds these until its backward pass
                loss_inputs = self.forward(aligner, signal, embeddings)
                objective(*loss_inputs).backward()

        return aligner, step

    def estimate_memory(self) -> tuple[float, float]:
        """Estimate the memory of a float32 training, in gigabytes, from shapes.

        The second result is the number of weights in millions.
        """
        aligner, step = self.build_step()
        n_weights = 0
        n_trained = 0
        for weight in aligner.parameters():
            n_weights += weight.numel()
            if weight.requires_grad:
                n_trained += weight.numel()
        n_bytes = count_bytes(aligner) + n_trained * ADAM_BYTES_PER_WEIGHT
        n_bytes += peak(step, aligner)
        return n_bytes / 1e9, n_weights / 1e6


def eeg_model(
    kind: str = "brain_mlp", batch: int = 1024, steps: int = 8, **backbone: Any
) -> Model:
    """Describe the model of BrainHiVE for THINGS-EEG."""
    layout = Layout(
        SignalSpec(POSTERIOR, SAMPLES, (1,), (len(POSTERIOR),)),
        {TOKEN_HEAD: Head((DIM,), FUSED_TARGET)},
        backbone=parts.resolve("backbones", kind).model_dump() | backbone,
        fuser=parts.resolve("fusers", "fusion_encoder").model_dump() | backbone,
        dims=DIMS,
        encoders={name: name for name in DIMS},
    )
    shapes = {name: (dim,) for name, dim in DIMS.items()}
    return Model(layout, [Term(prediction=TOKEN_HEAD)], shapes, batch, steps)


def samga_model(batch: int = 512, steps: int = 32, width: int = 3200) -> Model:
    """Describe the first stage of SAMGA, with five layers of InternViT."""
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
    return _linear_model(
        fuser="router",
        dim=512,
        dims=layers,
        terms=terms,
        batch=batch,
        steps=steps,
        train=train,
    )


def shallow_alignment_model(
    batch: int = 1024, steps: int = 16, width: int = 3200
) -> Model:
    """Describe Shallow Alignment: linear maps of a signal and of a picture layer."""
    return _linear_model(
        fuser="linear",
        dim=DIM,
        dims={"layer": width},
        terms=[{"prediction": TOKEN_HEAD}],
        batch=batch,
        steps=steps,
        train={},
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
    """Describe a model with a linear backbone and float16 targets."""
    layout = Layout(
        SignalSpec(POSTERIOR, SAMPLES, (1,), (len(POSTERIOR),)),
        {TOKEN_HEAD: Head((dim,), FUSED_TARGET)},
        backbone=parts.resolve("backbones", "brain-projection").model_dump(),
        fuser=parts.resolve("fusers", {"kind": fuser, "signal_dim": DIM}).model_dump(),
        dims=dims,
        encoders={name: name for name in dims},
    )
    shapes = {name: (width,) for name, width in dims.items()}
    losses = [Term.model_validate(term) for term in terms]
    return Model(layout, losses, shapes, batch, steps, train, dtype=torch.float16)


def havir_model(size: str, hidden: int = 4096, **backbone: Any) -> Model:
    """Describe the model of HAVIR for NSD, with two masks of voxels of MindEye2."""
    shapes: dict[str, tuple[int, ...]]
    if size == "full":
        voxels = {"spatial": 4657, "semantic": 11067}
        shapes = {"latent": (4, 64, 64), "image": (257, 768), "text": (77, 768)}
        config = havir.Config(**({"hidden": hidden} | backbone))
    else:
        voxels = {"spatial": 500, "semantic": 1100}
        shapes = {"latent": (4, 8, 8), "image": (17, 96), "text": (7, 96)}
        config = havir.Config(
            hidden=1024, decoder_channels=(32, 32, 64), features=32, projector=256
        )
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
    losses = [Term.model_validate(term) for term in terms]
    steps = 2 if size == "tiny" else 16
    return Model(layout, losses, shapes, batch=32, steps=steps)


def neurons_model(
    size: str, hidden: int = 4096, batch: int = 10, is_first_training: bool = False
) -> Model:
    """Describe NEURONS for cc2017. Its first training has the brain model alone."""
    is_full = size == "full"
    tokens = 256 if is_full else 16
    width = 1664 if is_full else 128
    mask_px = 64 if is_full else 16
    latent_px = 28 if is_full else 7
    shapes: dict[str, tuple[int, ...]] = {
        "image": (tokens, width),
        "motion": (6, tokens, width),
        "text": (1280 if is_full else 64,),
        "mask": (6, 1, mask_px, mask_px),
        "latents": (6, 4, latent_px, latent_px),
        "concepts": (51,),
        "caption": (60 if is_full else 12,),
    }
    brain = mindeye2.Config(hidden=hidden if is_full else 512)
    config: Any = neurons.Config(brain=brain)
    if not is_full:
        config = neurons.Config(
            brain=brain,
            prior={"kind": "mindeye1", "depth": 2, "heads": 4, "dim_head": 32},  # type: ignore[arg-type]
            maps=(64, 32, 16),
            channels=(16, 32, 32),
            groups=8,
            concept_width=64,
            vocabulary=512,
            caption_width=64,
            caption_layers=2,
            caption_heads=2,
            caption_positions=32,
        )
    mixco = {"kind": "mixco", "temperature": 0.006, "mix_alpha": 0.15}
    soft = {"kind": "soft_clip", "items": "frames", "temperature": 0.004}
    clip = {"prediction": "text", "loss": {"kind": "clip", "temperature": 0.1}}
    terms: list[dict[str, Any]] = [{"prediction": "image", "loss": mixco}, clip]
    if is_first_training:
        config = brain
        shapes = {name: shapes[name] for name in ("image", "text")}
    else:
        terms = [
            {"prediction": "denoised", "loss": "mse", "weight": 30},
            clip,
            {"prediction": "motion", "loss": soft},
            {"prediction": "mask", "loss": "dice"},
            {"prediction": "concepts", "loss": "bce"},
            {"prediction": "caption", "loss": "cross_entropy"},
            {"prediction": "latents", "loss": "l1"},
        ]
    heads = {name: Head(shape, name) for name, shape in shapes.items()}
    layout = _fmri_layout({"": 13447 if is_full else 600}, heads, config, "image")
    losses = [Term.model_validate(term) for term in terms]
    steps = 2 if size == "tiny" else 12
    frozen = "" if is_first_training else "brain"
    return Model(layout, losses, shapes, batch, steps, frozen=frozen)


def mindeye2_model(hidden: int, batch: int, voxels: int) -> Model:
    """Describe MindEye2 with its prior for NSD.

    Args:
        hidden: Width of the space that subjects share.
        batch: Signals per step.
        voxels: Voxels of all subjects together. Their ridges are a single ridge here,
            with as many weights.
    """
    config = with_prior.Config(
        backbone={"kind": "mindeye2", "hidden": hidden},
        prior="mindeye2",
        condition="voxel_tokens",
    )
    soft_clip = {"kind": "soft_clip", "temperature": 0.004}
    terms = [
        {"prediction": "denoised", "loss": "mse", "weight": 30},
        {"prediction": "image", "loss": soft_clip},
    ]
    shapes = {"image": (256, 1664)}
    heads = {name: Head(shape, name) for name, shape in shapes.items()}
    layout = _fmri_layout({"": voxels}, heads, config, "image")
    losses = [Term.model_validate(term) for term in terms]
    return Model(layout, losses, shapes, batch, steps=16)


def _fmri_layout(
    voxels: Mapping[str, int], heads: Heads, backbone: Any, retrieval: str
) -> Layout:
    """Describe a model of regions that follow each other in the voxels."""
    regions = {}
    n_voxels = 0
    for name, count in voxels.items():
        if name:
            regions[name] = (tuple(range(n_voxels, n_voxels + count)),)
        n_voxels += count
    spec = SignalSpec((), 1, (1,), (n_voxels,), regions=regions)
    keys = {head.target: head.target for head in heads.values()}
    config = backbone.model_dump(mode="json")
    return Layout(spec, heads, config, encoders=keys, retrieval_heads=(retrieval,))
