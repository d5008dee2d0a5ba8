"""Architecture of brain models, and readers of models that other projects published.

A reader infers the architecture from the shapes of the weights, and returns a table
that renames the weights.

Source: BrainHiVE's repository (commit f06db69, `CLIPConfig`); MindEye1 (arXiv
2305.18274, MIT), Train_MindEye.py and train_autoencoder.py; MindEye2 (arXiv 2403.11207,
MIT), `train_logs/*/last.pth`; NEURONS (arXiv 2503.11167), `brain_model.pth` of its
first training, `brain_model_prior.pth` and `*_last` of its second.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict

from brainhive_cli.core.base import BrainhiveError, RecipeError
from brainhive_cli.core.files import documents
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.runs import weights
from brainhive_cli.data.stores import EpochSelection, TrainingHistory
from brainhive_cli.models import (
    FUSED_TARGET,
    TOKEN_HEAD,
    Head,
    Heads,
    NameTable,
    SignalSpec,
    StateDict,
    count_indices,
    rename_weights,
    strip_prefix,
)

Fields = dict[str, Any]
Similarity = Literal["cosine", "centred_cosine", "cosine_from_mean"]
FROM_MEAN = "cosine_from_mean"

FormatVersion = Literal[8]
FORMAT: FormatVersion = 8
"""Version of the model folder, which its config.json carries."""
NSD_SUBJECTS = tuple(range(1, 9))
"""Subjects of NSD. MindEye2's `final_subj01_pretrained_*` is trained on seven of them,
then tuned to the eighth.
"""
NEURONS_FILE_PREFIX = "brain_model"
RIDGE_PREFIX = "ridge.linears."
"""Prefix of the maps of each subject in models of MindEye2 and NEURONS."""
MINDEYE1_PREFIX = "lin0."
"""Prefix of the first map in models of MindEye1."""
ATTENTION_NAMES = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}
"""Today's names of attention weights in diffusers, keyed by the names of version 0.13,
with which MindEye1 was trained.
"""
BRAIN_PREFIXES = ("ridge.", "backbone.", "clipproj.")
PRIOR_PREFIX = "diffusion_prior."
DECODER_PREFIXES = ("motion_proj.", "text_seg_dec.", "text_dec.", "classifier.")
"""Prefixes of the parts of models of MindEye2 and NEURONS."""
IMAGE_ENCODER = "clip-bigg-tokens"
TEXT_ENCODER = "clip-bigg-text"
"""Encoders that the heads of MindEye2 and NEURONS predict."""
UPSTREAM_BACKBONES = (
    "brain_mlp",
    "brain_projection",
    "nice",
    "atm",
    "shallow_net",
    "deep_net",
    "eeg_net",
    "ts_conv",
)
"""Brain encoders of BrainHiVE, which have the same names here."""
UPSTREAM_BRAIN_PREFIX = "brain_model.backbone."
UPSTREAM_NAMES: NameTable = {
    re.escape(UPSTREAM_BRAIN_PREFIX): "backbone.",
    re.escape("vision_model."): "fuser.",
    "logit_scale": "losses.0.logit_scale",
}
"""Table that renames the weights of BrainHiVE's models."""
SUBJECT_TOKENS_KEY = (
    "backbone.encoder.enc_embedding.subject_embedding.subject_embedding.weight"
)
SHARED_TOKEN_KEY = "backbone.encoder.enc_embedding.subject_embedding.shared_embedding"


@dataclass(frozen=True)
class Layout:
    """Architecture of an aligner.

    Attributes:
        spec: Signals that the backbone is built for.
        heads: Outputs of the model.
        backbone: Config of the backbone as a mapping, with its kind.
        fuser: Config of the fuser as a mapping, with its kind. Empty if no head has a
            fused target.
        dims: Width of each fused embedding, keyed by the embedding's key.
        encoders: Key of each encoder's embedding, keyed by the name of the encoder.
        subject_layer: Layer of each subject before the backbone, `none` or `linear`.
        similarity: Similarity of vectors: `cosine`, `centred_cosine` (the correlation)
            or `cosine_from_mean` (the cosine after subtracting the mean training
            target).
        retrieval_heads: Heads that retrieval compares. Their similarities are averaged.
            If empty, the head `token` or the only one.
        prior: Prior whose frozen fusion encoder is the fuser, or "".
        prior_digest: Digest of the weights of that prior.
        adapter: Low-rank change of encoders that were trained with the model: names of
            the encoders, digest of their weights, rank, alpha, and size of each map.
            Empty if encoders are frozen.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    spec: SignalSpec
    heads: Heads
    backbone: Fields
    fuser: Fields = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    encoders: dict[str, str] = field(default_factory=dict)
    subject_layer: Literal["none", "linear"] = "none"
    similarity: Similarity = "cosine"
    retrieval_heads: tuple[str, ...] = ()
    prior: str = ""
    prior_digest: str = ""
    adapter: Fields = field(default_factory=dict)

    @property
    def fused_heads(self) -> Heads:
        """Heads whose target the fuser makes."""
        return {
            name: head
            for name, head in self.heads.items()
            if head.target == FUSED_TARGET
        }

    @property
    def compared_heads(self) -> tuple[str, ...]:
        """Names of the heads that retrieval compares.

        Raises:
            RecipeError: if there are several heads, and none is selected.
        """
        if self.retrieval_heads:
            return self.retrieval_heads
        if TOKEN_HEAD in self.heads:
            return (TOKEN_HEAD,)
        names = list(self.heads)
        if len(names) == 1:
            return (names[0],)
        raise RecipeError(
            f"the model has several heads ({', '.join(names)}), and no head is "
            "selected for retrieval",
            f"select a head: head={names[0]}",
        )

    @property
    def compared_keys(self) -> set[str]:
        """Keys of the embeddings that make the targets of `compared_heads`."""
        return self.list_keys(self.compared_heads)

    def list_keys(self, heads: Iterable[str]) -> set[str]:
        """List the keys of the embeddings from which the targets of heads are made."""
        keys = {self.heads[name].target for name in heads}
        if FUSED_TARGET in keys:
            keys.remove(FUSED_TARGET)
            keys.update(self.dims)
        return keys

    @property
    def backbone_config(self) -> Any:
        """Config of the backbone, with the defaults of its kind."""
        return parts.resolve("backbones", self.backbone)

    def check(self) -> None:
        """Raise a RecipeError if the model lacks a head of `retrieval_heads`."""
        for name in self.retrieval_heads:
            if name not in self.heads:
                raise RecipeError(
                    f"no head called {name!r}", f"choose from: {', '.join(self.heads)}"
                )

    def as_dict(self) -> Fields:
        """Return plain values for the config.json of a model folder."""
        fields = {"format": FORMAT, **vars(self)}
        fields["spec"] = asdict(self.spec)
        fields["heads"] = {name: asdict(head) for name, head in self.heads.items()}
        return fields


def find_token_axes(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the axes before the width D, which all embeddings share: () or (S,).

    Args:
        shapes: Shape of each embedding, keyed by its key: (D,) for a vector, (S, D) for
            tokens.

    Raises:
        RecipeError: if the embeddings cannot be fused.
    """
    axes = {shape[:-1] for shape in shapes.values()}
    if len(axes) != 1 or any(len(shape) > 1 for shape in axes):
        names = ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items())
        raise RecipeError(
            f"embeddings of {names} cannot be fused: they must all be vectors, or have "
            "the same number of tokens",
            "give each a head of its own",
        )
    return axes.pop()


def is_checkpoint(path: Path) -> bool:
    """Return True if a path is a file that torch may have written."""
    return path.suffix in (".pth", ".pt") and path.is_file()


def holds_model(path: Path) -> bool:
    """Return True if a checkpoint has the weights of a whole brain model."""
    return _has_weights(_read_state(path), RIDGE_PREFIX, MINDEYE1_PREFIX)


def describe_history(path: Path) -> TrainingHistory:
    """Describe the training data of a published checkpoint, which lists no stimuli.

    Raises:
        BrainhiveError: if no part of the path names the subject.
    """
    dataset = "cc2017" if path.name.startswith(NEURONS_FILE_PREFIX) else "nsd"
    is_pretrained = "pretrained" in path.parent.name
    subjects = NSD_SUBJECTS if is_pretrained else find_subjects(path)

    # MindEye2 keeps its last epoch, MindEye1 and NEURONS select it on test stimuli
    is_mindeye2 = dataset == "nsd" and _has_weights(_read_state(path), RIDGE_PREFIX)
    selection: EpochSelection = "last epoch" if is_mindeye2 else "test"
    return TrainingHistory(
        selection,
        dataset,
        recordings=dataset,
        people={dataset: subjects},
        has_all_subjects=True,
    )


def read_checkpoint(path: Path) -> tuple[Layout, StateDict]:
    """Read the architecture and the weights of a checkpoint of MindEye or NEURONS.

    Raises:
        BrainhiveError: if it is damaged, no such model, or does not name its subjects.
    """
    state = _read_state(path)
    subjects = find_subjects(path)
    if _has_weights(state, RIDGE_PREFIX):
        publisher, describe = "MindEye2", _describe_mindeye2
    else:
        publisher, describe = "MindEye1", _describe_mindeye1
    with weights.reading(
        path,
        "give the checkpoint of one of its trainings",
        BrainhiveError,
        problem=f"is no brain model of {publisher}",
    ):
        layout, table = describe(path, state, subjects)
        return layout, rename_weights(state, table)


def find_subjects(path: Path) -> tuple[int, ...]:
    """Find the training subjects of a checkpoint in the names of its folders.

    Raises:
        BrainhiveError: if no folder names a subject.
    """
    # Number of last parts of a path that may name the subject.
    # NEURONS has EXP/exp_*/subj_*/checkpoints/FILE.
    folders = "/".join(path.absolute().parts[-5:])
    numbers = re.findall(r"subj_?0?([1-8])(?!\d)", folders)
    if not numbers:
        raise BrainhiveError(
            f"{path} does not say which subject's voxels it takes",
            "keep it in a folder named as it was published, with subj01 to subj08 "
            "in its name",
        )
    # MindEye2's multisubject_subj01 is trained on all subjects but 1
    subject = int(numbers[-1])
    if "multisubject" in folders:
        return tuple(number for number in NSD_SUBJECTS if number != subject)
    return (subject,)


def _read_state(path: Path) -> StateDict:
    """Read the weights of a brain model, without a diffusion prior of MindEye1."""
    checkpoint = weights.read(path, documents.DOWNLOAD_HINT, BrainhiveError)
    state = rename_weights(checkpoint, {r"module\.": ""})
    return strip_prefix(state, "voxel2clip.") or state


def _has_weights(state: StateDict, *prefixes: str) -> bool:
    """Return True if the name of a weight begins with one of the prefixes."""
    return any(name.startswith(prefixes) for name in state)


def _list_channels(state: StateDict, decoder: str) -> list[int]:
    """List the channels of each stage of a decoder of diffusers, the last stage first.

    Args:
        state: Weights of the model.
        decoder: Name of the decoder in the model.
    """
    n_stages = count_indices(state, rf"{decoder}\.up_blocks\.(\d+)\.")
    stages = [f"{decoder}.up_blocks.{number}" for number in range(n_stages)]
    return [len(state[f"{stage}.resnets.0.conv1.weight"]) for stage in stages[::-1]]


def _describe_mindeye1(
    path: Path, state: StateDict, subjects: Sequence[int]
) -> tuple[Layout, NameTable]:
    """Describe the low level (latents) or the high level (image tokens) of MindEye1.

    Projections that only its training uses are dropped.
    """
    # sizes that both levels share
    subject = subjects[0]
    hidden, voxels = state[f"{MINDEYE1_PREFIX}0.weight"].shape
    backbone = {
        "kind": "havir",
        "hidden": hidden,
        "blocks": count_indices(state, r"mlp\.(\d+)\.0\.weight"),
    }
    table: dict[str, str | None] = {r"maps_projector\.": None}
    if "upsampler.conv_norm_out.weight" in state:
        # low level: latents [C, H, W] of an autoencoder, by a decoder of several stages
        channels = _list_channels(state, "upsampler")
        layers = count_indices(
            state, r"upsampler\.up_blocks\.0\.resnets\.(\d+)\.conv1\.weight"
        )
        features = len(state["norm.weight"])
        backbone["features"] = features
        backbone["decoder_channels"] = channels
        backbone["decoder_layers"] = layers - 1

        # each stage but the first doubles the side
        side = isqrt(len(state["lin1.weight"]) // features) << (len(channels) - 1)
        latent_channels = len(state["upsampler.conv_out.weight"])
        heads = {"latent": Head((latent_channels, side, side), "vd-vae")}

        # the table of names, with today's names of attention weights
        table[r"lin0\."] = f"backbone.inputs.spatial.{subject}."
        for name, new_name in ATTENTION_NAMES.items():
            pattern = rf"(upsampler\..*\.attentions\.\d+)\.{name}\."
            table[pattern] = rf"backbone.structural.\1.{new_name}."
        table[""] = "backbone.structural."
    else:
        # high level: image tokens [S, D]
        width = len(state["projector.0.weight"])
        backbone["projector"] = len(state["projector.2.weight"])
        tokens = Head((len(state["lin1.weight"]) // width, width), "vd-image")
        heads = {"image": tokens, "image_projected": tokens}
        table[r"lin0\."] = f"backbone.inputs.semantic.{subject}."
        table[r"(lin1|projector)\."] = r"backbone.semantic.\1.image."
        table[""] = "backbone.semantic."

    # retrieval compares the last head
    layout = Layout(
        spec=SignalSpec((), 1, (subject,), (voxels,)),
        heads=heads,
        backbone=backbone,
        encoders={head.target: head.target for head in heads.values()},
        retrieval_heads=(list(heads)[-1],),
    )
    return layout, table


def _describe_mindeye2(
    path: Path, state: StateDict, subjects: Sequence[int]
) -> tuple[Layout, NameTable]:
    """Describe a model of MindEye2 or NEURONS, with its prior and decoders if any.

    Raises:
        ValueError: if decoders lack their prior.
    """
    has_prior = _has_weights(state, f"{PRIOR_PREFIX}net.")
    has_decoders = _has_weights(state, *DECODER_PREFIXES)
    if has_decoders and not has_prior:
        raise ValueError("it has decoders of NEURONS, and no diffusion prior")

    # the brain model: voxels of each subject, image tokens [S, D], a text vector
    ridges = [state[f"{RIDGE_PREFIX}{index}.weight"] for index in range(len(subjects))]
    width = len(state["backbone.clip_proj.0.weight"])
    n_tokens = len(state["backbone.backbone_linear.weight"]) // width
    brain = {
        "kind": "mindeye2",
        "hidden": len(ridges[0]),
        "blocks": count_indices(state, r"backbone\.mixer_blocks2\.(\d+)\."),
    }
    # NEURONS is trained on the third frame of a clip
    is_neurons = path.name.startswith(NEURONS_FILE_PREFIX)
    image_encoder = f"{IMAGE_ENCODER}-view-2" if is_neurons else IMAGE_ENCODER
    heads = {"image": Head((n_tokens, width), image_encoder)}
    if "clipproj.proj" in state:
        heads["text"] = Head((state["clipproj.proj"].shape[1],), TEXT_ENCODER)

    # a prior and decoders enclose the brain model
    backbone = brain
    brain_prefix = "backbone."
    prior = {}
    if has_prior:
        read_sizes = parts.load("priors", "mindeye2").read_sizes
        prior = {"kind": "mindeye2", **read_sizes(strip_prefix(state, PRIOR_PREFIX))}
        brain_prefix = "backbone.brain."
        backbone = {
            "kind": "with_prior",
            "backbone": brain,
            "prior": {**prior, "head": "image"},
            "condition": "voxel_tokens",
        }
    if has_decoders:
        sizes, decoder_heads = _describe_decoders(state, n_tokens, width)
        heads |= decoder_heads
        backbone = {
            "kind": "neurons",
            "brain": brain,
            "prior": prior,
            **sizes,
            "mode": "published",
        }
    if "backbone.blin1.weight" in state:
        heads |= _describe_blurry_branch(state)

    # retrieval compares the image tokens
    layout = Layout(
        SignalSpec((), 1, tuple(subjects), tuple(ridge.shape[1] for ridge in ridges)),
        heads,
        backbone,
        encoders={head.target: head.target for head in heads.values() if head.target},
        retrieval_heads=("image",),
    )

    # table of names, where the first match counts
    table = {
        r"backbone\.mixer_blocks1\.": None,  # has no effect on a single volume
        r"diffusion_prior\.noise_scheduler\.": None,  # computed from the prior's steps
        r"text_dec\.decoder\.lm_head\.weight$": None,  # equals GPT-2's embedding
        r"diffusion_prior\.": "backbone.prior.",
    }
    for index, subject in enumerate(subjects):
        table[rf"ridge\.linears\.{index}\."] = f"{brain_prefix}{RIDGE_PREFIX}{subject}."
    prefixes = "|".join(map(re.escape, BRAIN_PREFIXES))
    table[rf"(?=({prefixes}))"] = brain_prefix
    table[""] = "backbone."
    return layout, table


def _describe_decoders(
    state: StateDict, n_tokens: int, width: int
) -> tuple[Fields, dict[str, Head]]:
    """Return the sizes and the heads of NEURONS' decoders.

    Args:
        state: Weights of the model.
        n_tokens: Number S of image tokens.
        width: Width D of the image tokens.
    """
    channels = _list_channels(state, "text_seg_dec.video_decoder")
    frames = len(state["motion_proj.motion_proj.weight"]) // width
    gpt2 = "text_dec.decoder.transformer"
    vocabulary, caption_width = state[f"{gpt2}.wte.weight"].shape
    # Width of an attention head of GPT-2. The weights do not show it.
    gpt2_head_width = 64
    sizes = {
        "frames": frames,
        # the linear layers of the projector
        "maps": [
            len(state[f"text_seg_dec.maps_projector.{index}.weight"])
            for index in (0, 3, 6)
        ],
        "channels": channels,
        "concept_width": len(state["classifier.vision_proj_channel.weight"]),
        "vocabulary": vocabulary,
        "caption_width": caption_width,
        "caption_layers": count_indices(
            state, r"text_dec\.decoder\.transformer\.h\.(\d+)\."
        ),
        "caption_heads": max(1, caption_width // gpt2_head_width),
        "caption_positions": len(state[f"{gpt2}.wpe.weight"]),
    }

    # each stage of the mask decoder but the first doubles the side
    side = isqrt(n_tokens) << (len(channels) - 1)
    latent_channels = len(state["text_seg_dec.recon_head.weight"])
    latent_side = side * 7 // 16  # masks of 64 go with latents of 28, from 224 pixels
    heads = {
        "motion": Head((frames, n_tokens, width)),
        "mask": Head((frames, 1, side, side)),
        "latents": Head((frames, latent_channels, latent_side, latent_side)),
        "concepts": Head((len(state["classifier.classifier.weight"]),)),
        # Number of token ids in NEURONS' captions. The weights do not show it.
        "caption": Head((60,)),
    }
    return sizes, heads


def _describe_blurry_branch(state: StateDict) -> dict[str, Head]:
    """Return the heads of MindEye2's blurry branch: latents and maps.

    The weights do not name the autoencoder of the latents.
    """
    features = len(state["backbone.bnorm.weight"])
    side = isqrt(len(state["backbone.blin1.weight"]) // features)
    stages = count_indices(state, r"backbone\.bupsampler\.up_blocks\.(\d+)\.")
    latent_side = side << (stages - 1)
    channels = len(state["backbone.bupsampler.conv_out.weight"])
    map_width = len(state["backbone.b_maps_projector.6.weight"])
    return {
        "blurry": Head((channels, latent_side, latent_side)),
        "maps": Head((side * side, map_width)),
    }


def is_upstream(state: StateDict) -> bool:
    """Return True if weights have the names of BrainHiVE's models."""
    return _has_weights(state, UPSTREAM_BRAIN_PREFIX)


def read_upstream(config: Fields, upstream: StateDict) -> tuple[Layout, StateDict]:
    """Convert a model of BrainHiVE to an architecture and weights of this project.

    Args:
        config: Fields of its config.json.
        upstream: Its weights.

    Returns:
        The architecture, with channels named 0, 1, …, and the renamed weights.

    Raises:
        BrainhiveError: if the config lacks a key, or no brain encoder has such weights.
    """
    import torch

    # sizes that the weights do not show
    keys = ("brain_channels", "brain_sequence_length", "proj_meta")
    absent_keys = [key for key in keys if key not in config]
    if absent_keys:
        raise BrainhiveError(
            f"the config.json of the BrainHiVE model has no {', '.join(absent_keys)}",
            "add the values with which it was trained",
        )
    channels = config["brain_channels"]
    samples = config["brain_sequence_length"]

    # sizes and kind of the parts
    state = rename_weights(upstream, UPSTREAM_NAMES)
    hidden, dim = state["fuser.block.layers.0.ff.w1.weight"].shape
    dims = {
        key: len(state[f"fuser.proj_maps.{key}.weight"][0])
        for key in config["proj_meta"]
    }
    kind = config.get("brain_backbone") or _find_backbone(state, channels, samples, dim)

    # the shared token of ATM becomes the last row of its table of subjects
    subjects: tuple[int, ...] = ()
    if kind == "atm":
        tokens = [state[SUBJECT_TOKENS_KEY], state[SHARED_TOKEN_KEY]]
        state[SUBJECT_TOKENS_KEY] = torch.cat(tokens)
        subjects = tuple(range(len(state[SUBJECT_TOKENS_KEY])))
    options = {"dropout": config["dropout"]} if "dropout" in config else {}
    layout = Layout(
        spec=SignalSpec(
            tuple(map(str, range(channels))),
            samples,
            subjects,
            (channels,) * len(subjects),
        ),
        heads={TOKEN_HEAD: Head((dim,), FUSED_TARGET)},
        backbone={"kind": kind, **options},
        fuser={"kind": "fusion_encoder", "intermediate_size": hidden, **options},
        dims=dims,
        encoders=dict(zip(dims, dims, strict=True)),
    )
    return layout, state


def _find_backbone(state: StateDict, channels: int, samples: int, dim: int) -> str:
    """Find the brain encoder of BrainHiVE whose weights have the names in `state`.

    Raises:
        BrainhiveError: if there is none.
    """
    import torch

    names = {name for name in state if name.startswith("backbone.")}
    for kind in UPSTREAM_BACKBONES:
        # an encoder may need a longer window
        with suppress(BrainhiveError), torch.device("meta"):
            config = parts.resolve("backbones", kind)
            module = config.build(channels, samples, dim, 1)
            if names == {f"backbone.{name}" for name in module.state_dict()}:
                return kind
    raise BrainhiveError(
        "these weights fit no brain encoder of BrainHiVE",
        "name the encoder in config.json, as brain_backbone: "
        f"{', '.join(UPSTREAM_BACKBONES)}",
    )
