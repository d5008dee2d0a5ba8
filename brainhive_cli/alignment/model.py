"""Brain encoder, fusion encoder and what the losses learned as one model folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from brainhive_cli.alignment import upstream
from brainhive_cli.alignment.learned import Learned
from brainhive_cli.alignment.subject_layers import LAYERS
from brainhive_cli.core import parts, signal_shape
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError, first_line

WEIGHTS = ("model.safetensors", "diffusion_pytorch_model.safetensors")
"""Names of the weight file; the first is what is written, here and upstream."""
FORMAT = 2
"""Of the model folder. The first had neither a number nor the block `learned`; it is still read."""
LOSSES = "losses."
"""Before the names of what losses learned, among a folder's weights."""
INITIAL_LOGIT_SCALE = 2.6592
"""ln(1 / 0.07), CLIP's: what upstream's folder says where no loss had a scale."""
SUBJECT_LAYERS = ("none", *LAYERS)
SIMILARITIES = ("cosine", "centred_cosine")


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
        prior: The Fusion Prior whose fusion encoder it holds frozen; empty when it has its own.
        prior_digest: Digest of the weights of that prior, by which it is known.
        subject_layer: What is learned for each subject before the brain encoder; one of `SUBJECT_LAYERS`.
        similarity: How tokens are compared; one of `SIMILARITIES`. Centred tokens have mean 0, so that their
            cosine is the centred one.
        normalise: How signals are normalised, by each subject's training signals.
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
    subject_layer: str = "none"
    similarity: str = "cosine"
    normalise: str = "none"
    prior_digest: str = ""


class Aligner(nn.Module):
    """Takes signals and embeddings into one space.

    Args:
        layout: What it is made of.
        learned: What it learned from; default: not known.

    Attributes:
        losses: What the losses that trained it learned, as `0.logit_scale` of the first; kept for whatever
            starts from it.

    Raises:
        RecipeError: if there is no such part, subject layer or similarity.
        BrainhiveError: if the parts do not go together, or the window is too short for the brain encoder.
    """

    def __init__(self, layout: Layout, learned: Learned | None = None) -> None:
        super().__init__()
        _check(layout)
        self.layout, self.learned = layout, learned or Learned()
        self.losses: dict[str, Tensor] = {}
        channels, samples, subjects = len(layout.channels), layout.samples, len(layout.subjects)
        self.subject_layer: nn.Module | None = None
        if layout.subject_layer != "none":
            self.subject_layer = LAYERS[layout.subject_layer](subjects, channels, samples)
            channels += layout.subject_layer == "token"  # which is one more channel
        backbone = parts.resolve("backbones", layout.backbone)
        self.backbone: nn.Module = backbone.build(channels, samples, layout.dim, subjects)
        self.fuser: nn.Module = parts.resolve("fusers", layout.fuser).build(layout.dims, layout.dim)

    @property
    def heads(self) -> tuple[int, ...]:
        """Widths of the parts of a token, one for each of the fuser's heads; most fusers have one."""
        heads: tuple[int, ...] = getattr(self.fuser, "heads", (self.layout.dim,))
        return heads

    def encode_signal(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] of subjects [B] as tokens [B, D]; None is a subject not seen in training.

        Raises:
            BrainhiveError: if the signals are of another size.
        """
        signal_shape.check(signal, len(self.layout.channels), self.layout.samples)
        if self.subject_layer is not None:
            signal = self.subject_layer(signal, subject_index)
        return self._comparable(self.backbone(signal, subject_index))

    def encode_image(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Fuse embeddings, each [B, D_encoder] by the fuser's key, to tokens [B, D]."""
        return self._comparable(self.fuser(embeddings))

    def _comparable(self, token: Tensor) -> Tensor:
        """Make the cosine of tokens the similarity that is meant; of several heads, the mean of theirs."""
        is_centred, is_single = self.layout.similarity == "centred_cosine", len(self.heads) == 1
        if is_single and not is_centred:
            return token
        found = token.float().split(self.heads, dim=-1)
        if is_centred:
            found = tuple(head - head.mean(-1, keepdim=True) for head in found)
        if not is_single:
            found = tuple(F.normalize(head, dim=-1) for head in found)
        return torch.cat(found, dim=-1)

    def save(self, folder: Path) -> None:
        """Write `config.json`, `model.safetensors` and `learned.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"format": FORMAT, **asdict(self.layout), "learned": self.learned.save(folder)}
        losses = {f"{LOSSES}{name}": value for name, value in self.losses.items()}
        _write(folder, config, self.state_dict() | losses)

    def save_upstream(self, folder: Path) -> None:
        """Write the model folder that the BrainHiVE repository reads; its embeddings go by upstream's names.

        Raises:
            BrainhiveError: if upstream has no such model.
        """
        scale = self.losses.get("0.logit_scale", torch.tensor(INITIAL_LOGIT_SCALE))
        _write(folder, *upstream.write(asdict(self.layout), self.state_dict() | {"logit_scale": scale}))


def _check(layout: Layout) -> None:
    for key, known in (("subject_layer", SUBJECT_LAYERS), ("similarity", SIMILARITIES)):
        if (value := getattr(layout, key)) not in known:
            raise RecipeError(
                f"no {key.replace('_', ' ')} called {value!r}", f"there are: {', '.join(known)}"
            )
    if layout.prior and layout.similarity != "cosine":
        raise BrainhiveError(
            f"{layout.similarity} centres tokens, the prior {layout.prior} draws from them as they are",
            "use the similarity cosine, or no prior",
        )


def _write(folder: Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(state, folder / WEIGHTS[0], metadata={"format": "pt"})


def load(path: Path | str) -> Aligner:
    """Load an aligner from its model folder, or from one of upstream's, ready for evaluation.

    An upstream folder names no channels, window or subjects: its channels are called 0, 1, …, the window is
    the whole signal, and its encoders are upstream's keys. Neither such a folder nor one of format 1 says
    what the model learned from.

    Raises:
        MissingData: if the folder lacks a file.
        BrainhiveError: if a file is damaged, the weights do not fit the config, or the format is newer.
    """
    folder = Path(path)
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), folder / WEIGHTS[0])
    absent = [file.name for file in (folder / "config.json", weights) if not file.is_file()]
    if absent:
        raise MissingData(f"the model folder {folder} has no {', '.join(absent)}", "run train-align again")
    try:
        fields, state = json.loads((folder / "config.json").read_text()), load_file(weights)
        if upstream.is_upstream(state):
            fields, state = upstream.read(fields, state)
        learned = _learned(folder, fields)
        for name in ("channels", "subjects", "window_ms"):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        aligner = Aligner(Layout(**fields), learned)
        aligner.losses = _losses(state)
        aligner.load_state_dict(state)
    except (ValueError, TypeError, KeyError, RuntimeError, OSError, SafetensorError) as error:
        raise _damaged(folder, error) from error
    return aligner.eval()


def learned_in(folder: Path) -> Learned:
    """Read what the model of a folder learned from, without its weights.

    Raises:
        BrainhiveError: if a file is damaged, or the format is newer.
    """
    try:
        return _learned(folder, json.loads((folder / "config.json").read_text()))
    except (ValueError, TypeError, KeyError, OSError, SafetensorError) as error:
        raise _damaged(folder, error) from error


def _learned(folder: Path, fields: dict[str, Any]) -> Learned:
    """Take from a config what is no part of the layout."""
    block, number = fields.pop("learned", None), fields.pop("format", 1)
    if number > FORMAT:
        raise BrainhiveError(
            f"the model folder {folder} is of format {number}, newer than this version's {FORMAT}",
            "pip install --upgrade brainhive",
        )
    return Learned.load(folder, block) if block else Learned(subjects=tuple(fields.get("subjects", ())))


def _losses(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take from a state what its losses learned; upstream and formats 1 and 2 have one scale."""
    found = {name: state.pop(name) for name in list(state) if name.startswith(LOSSES)}
    if "logit_scale" in state:
        found[f"{LOSSES}0.logit_scale"] = state.pop("logit_scale")
    return {name.removeprefix(LOSSES): value for name, value in found.items()}


def _damaged(folder: Path, error: Exception) -> BrainhiveError:
    return BrainhiveError(
        f"the model folder {folder} is damaged: {first_line(error)}",
        "run train-align --again, or copy it again",
    )
