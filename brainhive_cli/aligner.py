"""Brain encoder, fusion encoder and logit scale as one model folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from brainhive_cli import parts
from brainhive_cli.errors import BrainhiveError, MissingData, first_line


@dataclass(frozen=True)
class Layout:
    """What an aligner is made of; its `config.json`.

    Attributes:
        backbone: The brain encoder's Config, as a mapping with its kind.
        fuser: The fuser's Config, as a mapping with its kind.
        dims: Width of each embedding, by the fuser's key.
        encoders: The fuser's key of each encoder, by the encoder's store name.
        dim: D, width of the token.
        channels: Channel names of the signal, in order.
        samples: T, samples of the signal.
        window_ms: Start and stop of the signal after the picture; None is all of it.
        scale: What signals are multiplied by.
        subjects: Subjects it was trained on; a signal's subject index is the place in this list.
        normalise: How signals are normalised, by each subject's training signals.
        prior: The Fusion Prior whose fusion encoder it holds frozen; empty when it has its own.
    """

    backbone: dict[str, Any]
    fuser: dict[str, Any]
    dims: dict[str, int]
    encoders: dict[str, str]
    dim: int
    channels: tuple[str, ...]
    samples: int
    window_ms: tuple[float, float] | None
    scale: float
    subjects: tuple[int, ...]
    prior: str = ""
    normalise: str = "none"


class Aligner(nn.Module):
    """Takes signals and embeddings into one space.

    Args:
        layout: What it is made of.
        initial_logit_scale: Logarithm of the logit scale to start from.
    """

    def __init__(self, layout: Layout, initial_logit_scale: float = 2.6592) -> None:
        super().__init__()
        self.layout = layout
        backbone = parts.resolve("backbones", layout.backbone)
        self.backbone: nn.Module = backbone.build(
            len(layout.channels), layout.samples, layout.dim, len(layout.subjects)
        )
        self.fuser: nn.Module = parts.resolve("fusers", layout.fuser).build(layout.dims, layout.dim)
        self.logit_scale = nn.Parameter(torch.tensor(initial_logit_scale))

    def encode_signal(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] of subjects [B] as tokens [B, D]."""
        token: Tensor = self.backbone(signal, subject_index)
        return token

    def encode_image(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Fuse embeddings, each [B, D_encoder] by the fuser's key, to tokens [B, D]."""
        token: Tensor = self.fuser(embeddings)
        return token

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(asdict(self.layout), indent=2) + "\n")
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder: Path) -> Aligner:
    """Load an aligner from its model folder, ready for evaluation.

    Raises:
        MissingData: if the folder lacks a file.
        BrainhiveError: if a file is damaged or the weights do not fit the config.
    """
    absent = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if absent:
        raise MissingData(f"the model folder {folder} has no {', '.join(absent)}", "run train-align again")
    try:
        fields = json.loads((folder / "config.json").read_text())
        for name in ("channels", "subjects", "window_ms"):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        aligner = Aligner(Layout(**fields))
        aligner.load_state_dict(load_file(folder / "model.safetensors"))
    except (ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = first_line(error)
        raise BrainhiveError(
            f"the model folder {folder} is damaged: {reason}", "run train-align --again"
        ) from error
    return aligner.eval()
