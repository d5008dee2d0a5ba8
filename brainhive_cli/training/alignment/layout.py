"""Layout of a brain model's folder, and brain models in the formats of other projects.

A reader describes the model by the shapes of its weights, and gives the table that
renames them.

Source: BrainHiVE's repository (commit f06db69, `CLIPConfig`); MindEye1 (arXiv
2305.18274, MIT), Train_MindEye.py and train_autoencoder.py; MindEye2 (arXiv 2403.11207,
MIT), `train_logs/*/last.pth`; NEURONS (arXiv 2503.11167), `brain_model.pth` of its
first training, `brain_model_prior.pth` and `*_last` of its second. MindEye1 and NEURONS
choose their best epoch on test stimuli; MindEye2 keeps its last.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict

from brainhive_cli.core import documents, parts, weights
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.data.stores.learned import EpochSelection, TrainingHistory
from brainhive_cli.models.foreign_weights import (
    NameTable,
    StateDict,
    count_indices,
    rename_weights,
    strip_prefix,
)
from brainhive_cli.models.heads import FUSED_TARGET, TOKEN_HEAD, Head, Heads
from brainhive_cli.models.signal_spec import SignalSpec

Fields = dict[str, Any]
Similarity = Literal["cosine", "centred_cosine", "cosine_from_mean"]
FROM_MEAN = "cosine_from_mean"

FormatVersion = Literal[7]
FORMAT: FormatVersion = 7
"""Version of the model folder; the number that its config.json carries."""
ENDINGS = (".pth", ".pt")
ALL_OF_NSD = tuple(range(1, 9))
"""MindEye2's `final_subj01_pretrained_*` is tuned to one subject after training on the
seven others.
"""
FOLDERS = 5
"""Last parts of a path that may name the subject: NEURONS' has
EXP/exp_*/subj_*/checkpoints/FILE.
"""
NEURONS_FILE = "brain_model"
"""Beginning of the names of NEURONS' files."""
RIDGES = "ridge.linears."
"""Before the names of subjects' maps in MindEye2's and NEURONS' models; MindEye1's
first map is `lin0`.
"""
ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of attention in diffusers 0.13, which trained MindEye1's models, and
today's.
"""
BRAIN, PRIOR = ("ridge.", "backbone.", "clipproj."), "diffusion_prior."
DECODERS = ("motion_proj.", "text_seg_dec.", "text_dec.", "classifier.")
"""Before the names of the parts of MindEye2's and NEURONS' models."""
IMAGE, TEXT = "clip-bigg-tokens", "clip-bigg-text"
"""Encoders of what their heads predict."""
CAPTION_LENGTH, HEAD_WIDTH = 60, 64
"""Ids of NEURONS' captions, and GPT-2's width of an attention head: neither is in the
weights.
"""
KINDS = (
    "brain_mlp brain_projection nice atm shallow_net deep_net eeg_net ts_conv".split()
)
"""Upstream's brain encoders; they have its names here too."""
UPSTREAM_BRAIN, UPSTREAM_VISION = "brain_model.backbone.", "vision_model."
"""Upstream's prefixes of what is `backbone.` and `fuser.` here."""
OURS: NameTable = {
    re.escape(UPSTREAM_BRAIN): "backbone.",
    re.escape(UPSTREAM_VISION): "fuser.",
    "logit_scale": "losses.0.logit_scale",
}
FEED_FORWARD_KEY = "fuser.block.layers.0.ff.w1.weight"
SUBJECT_TOKENS = (
    "backbone.encoder.enc_embedding.subject_embedding.subject_embedding.weight"
)
SHARED = "backbone.encoder.enc_embedding.subject_embedding.shared_embedding"


@dataclass(frozen=True)
class Layout:
    """Architecture of an aligner.

    Attributes:
        spec: The signals that the backbone is built for.
        heads: What it predicts.
        backbone: The backbone's Config, as a mapping with its kind.
        fuser: The fuser's Config, as a mapping with its kind; empty where no head's
            target is fused.
        dims: Width of each embedding that is fused, by the fuser's key.
        encoders: The key of each encoder's embeddings, by the encoder's store name.
        subject_layer: What is learned for each subject before the backbone; `none`, or
            `linear`.
        similarity: How vectors are compared; `cosine`, `centred_cosine`, whose
            vectors have mean 0, so that it is the correlation, or `cosine_from_mean`,
            of the differences from the mean training target.
        retrieval_heads: Heads that retrieval compares; the similarity of several is the
            mean of theirs. If
            empty: the head `token`, or the only one.
        prior: The prior whose fusion encoder it holds frozen; empty when it has its
            own.
        prior_digest: Digest of the weights of that prior, by which it is known.
        adapter: Which encoders' network the model changes, and how: their names, digest
            of its weights, rank, alpha, and outputs and inputs of each map; empty where
            encoders are frozen.
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
    def fused(self) -> Heads:
        """The heads whose target the fuser makes."""
        return {
            name: head
            for name, head in self.heads.items()
            if head.target == FUSED_TARGET
        }

    @property
    def compared(self) -> tuple[str, ...]:
        """The heads that retrieval compares.

        Raises:
            RecipeError: if there are several and none is named.
        """
        if self.retrieval_heads:
            return self.retrieval_heads
        # by default the fused token, or the only head
        if TOKEN_HEAD in self.heads or len(self.heads) == 1:
            return (TOKEN_HEAD if TOKEN_HEAD in self.heads else next(iter(self.heads)),)
        raise RecipeError(
            f"the model has the heads {', '.join(self.heads)}, and nothing says "
            "which retrieval compares",
            f"head={next(iter(self.heads))}",
        )

    @property
    def compared_keys(self) -> set[str]:
        """Keys of the embeddings that the targets of these heads are made from."""
        return self.keys_of(self.compared)

    def keys_of(self, heads: Iterable[str]) -> set[str]:
        """Give the keys of the embeddings that the targets of some heads are made
        from.
        """
        # a fused target is made from all embeddings of the fuser
        targets = {self.heads[name].target for name in heads}
        return targets - {FUSED_TARGET} | (
            {*self.dims} if FUSED_TARGET in targets else set()
        )

    def check(self) -> None:
        """Refuse heads to compare that the model does not have."""
        if unknown := [name for name in self.retrieval_heads if name not in self.heads]:
            raise RecipeError(
                f"no head called {unknown[0]!r}", f"there are: {', '.join(self.heads)}"
            )

    def as_dict(self) -> Fields:
        """Return plain values for a model folder's config.json."""
        return {
            "format": FORMAT,
            **vars(self),
            # `vars` is shallow: nested dataclasses become plain values here
            "spec": asdict(self.spec),
            "heads": {name: asdict(head) for name, head in self.heads.items()},
        }


def tokens_of(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the axes before the width that embeddings have in common: () of vectors,
    (S,) of tokens.

    Raises:
        RecipeError: if some shapes cannot be fused.
    """
    # axes before the width D: () of vectors, (S,) of tokens
    leading = {shape[:-1] for shape in shapes.values()}
    if len(leading) != 1 or any(len(axes) > 1 for axes in leading):
        listed = ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items())
        raise RecipeError(
            f"embeddings of {listed} cannot be fused: they need to be vectors, or "
            "as many tokens each",
            "give each a head of its own",
        )
    return leading.pop()


def is_checkpoint(path: Path) -> bool:
    """Whether a path may be such a checkpoint: a file that torch wrote."""
    return path.suffix in ENDINGS and path.is_file()


def holds_model(path: Path) -> bool:
    """Whether such a file holds a whole brain model, by the names of its weights."""
    return any(name.startswith((RIDGES, "lin0.")) for name in _state(path))


def describe_history(path: Path) -> TrainingHistory:
    """Say what such a model learned from; which stimuli is not in the file.

    Raises:
        BrainhiveError: if neither file nor folder is named by the subject.
    """
    # data set by the file name, subjects by the folder name
    dataset = "cc2017" if path.name.startswith(NEURONS_FILE) else "nsd"
    subjects = ALL_OF_NSD if "pretrained" in path.parent.name else subjects_of(path)

    # MindEye2 keeps its last epoch; the others choose by the test
    selection: EpochSelection = (
        "last epoch" if dataset == "nsd" and _has_ridges(_state(path)) else "test"
    )
    return TrainingHistory(
        selection,
        dataset,
        recordings=dataset,
        people={dataset: subjects},
        has_all_subjects=True,
    )


def read_checkpoint(path: Path) -> tuple[Layout, StateDict]:
    """Read a checkpoint's architecture and weights.

    Raises:
        BrainhiveError: if it is damaged, no such model, or one of other parts or
            subjects.
    """
    state, subjects = _state(path), subjects_of(path)

    # ridges by subject are those of MindEye2 and NEURONS
    publisher, describe = (
        ("MindEye2", _mindeye2) if _has_ridges(state) else ("MindEye1", _mindeye1)
    )
    way = "give the checkpoint of one of its trainings"
    with weights.reading(
        path, way, BrainhiveError, problem=f"is no brain model of {publisher}"
    ):
        layout, table = describe(path, state, subjects)
        return layout, rename_weights(state, table)


def subjects_of(path: Path) -> tuple[int, ...]:
    """Find the subjects in a path's names; MindEye2's `multisubject_subj01` learned
    from the seven others.

    Raises:
        BrainhiveError: if there is none.
    """
    # the last parts of the path name the subject
    folders = "/".join(path.absolute().parts[-FOLDERS:])
    if not (numbers := re.findall(r"subj_?0?([1-8])(?!\d)", folders)):
        raise BrainhiveError(
            f"{path} does not say whose voxels it takes",
            "keep it in a folder named as it was published, with subj01 to subj08 "
            "in its name",
        )

    # a multi-subject model learned from all subjects but the named one
    is_multisubject = "multisubject" in folders
    return tuple(
        number
        for number in ALL_OF_NSD
        if (number == int(numbers[-1])) != is_multisubject
    )


def _state(path: Path) -> StateDict:
    """Read the weights of the brain model, next to which MindEye1's file has its
    diffusion prior.
    """
    state = rename_weights(
        weights.read(path, documents.DOWNLOAD_HINT, BrainhiveError), {r"module\.": ""}
    )
    return strip_prefix(state, "voxel2clip.") or state


def _has_ridges(state: StateDict) -> bool:
    return any(name.startswith(RIDGES) for name in state)


def _mindeye1(
    path: Path, state: StateDict, subjects: Sequence[int]
) -> tuple[Layout, NameTable]:
    """Describe a low level (latents) or a high level (image tokens), without maps,
    which are for training.
    """
    # sizes that both levels share
    subject = subjects[0]
    hidden, voxels = state["lin0.0.weight"].shape
    backbone = {
        "kind": "havir",
        "hidden": hidden,
        "blocks": count_indices(state, r"mlp\.(\d+)\.0\.weight"),
    }
    table: dict[str, str | None] = {r"maps_projector\.": None}
    if "upsampler.conv_norm_out.weight" in state:
        # low level: latents [C, H, W] of an autoencoder, by a decoder of several stages
        stages = count_indices(
            state, r"upsampler\.up_blocks\.(\d+)\.resnets\.0\.conv1\.weight"
        )
        layers = count_indices(
            state, r"upsampler\.up_blocks\.0\.resnets\.(\d+)\.conv1\.weight"
        )
        features = len(state["norm.weight"])
        backbone |= {
            "features": features,
            "decoder_channels": [
                len(state[f"upsampler.up_blocks.{stage}.resnets.0.conv1.weight"])
                for stage in reversed(range(stages))
            ],
            "decoder_layers": layers - 1,
        }

        # each stage but the first doubles the side
        side = isqrt(len(state["lin1.weight"]) // features) << (stages - 1)
        heads = {
            "latent": Head(
                (len(state["upsampler.conv_out.weight"]), side, side), "vd-vae"
            )
        }

        # table of names, with those of attention as diffusers has them today
        table[r"lin0\."] = f"backbone.inputs.spatial.{subject}."
        for name, todays in ATTENTION.items():
            pattern = rf"(upsampler\..*\.attentions\.\d+)\.{name}\."
            table[pattern] = rf"backbone.structural.\1.{todays}."
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

    # the last head is compared in retrieval
    layout = Layout(
        spec=SignalSpec((), 1, (subject,), (voxels,)),
        heads=heads,
        backbone=backbone,
        encoders={head.target: head.target for head in heads.values()},
        retrieval_heads=(next(reversed(heads)),),
    )
    return layout, table


def _mindeye2(
    path: Path, state: StateDict, subjects: Sequence[int]
) -> tuple[Layout, NameTable]:
    """Describe MindEye2's model, or NEURONS': with its prior and its decoders, where it
    has them.
    """
    # NEURONS' second training has decoders, which read its prior
    has_prior = any(name.startswith(f"{PRIOR}net.") for name in state)
    has_decoders = any(name.startswith(DECODERS) for name in state)
    if has_decoders and not has_prior:
        raise ValueError("it has decoders of NEURONS, and no diffusion prior")

    # sizes of the brain model: voxels of each subject, tokens [S, D]
    voxels = [
        state[f"{RIDGES}{index}.weight"].shape[1] for index in range(len(subjects))
    ]
    width = len(state["backbone.clip_proj.0.weight"])
    tokens = len(state["backbone.backbone_linear.weight"]) // width
    brain = {
        "kind": "mindeye2",
        "hidden": len(state[f"{RIDGES}0.weight"]),
        "blocks": count_indices(state, r"backbone\.mixer_blocks2\.(\d+)\."),
    }
    # NEURONS' training takes the third frame of a clip
    image = f"{IMAGE}-view-2" if path.name.startswith(NEURONS_FILE) else IMAGE
    heads = {"image": Head((tokens, width), image)}
    if "clipproj.proj" in state:
        heads["text"] = Head((state["clipproj.proj"].shape[1],), TEXT)
    # MindEye2's parts lie below `backbone.brain` where a prior or decoders come with
    # them
    backbone, brain_prefix = brain, "backbone."

    # the diffusion prior, where it was saved too
    prior = {}
    if has_prior:
        read_sizes = parts.load("priors", "mindeye2").read_sizes
        prior = {"kind": "mindeye2", **read_sizes(strip_prefix(state, PRIOR))}
        brain_prefix = "backbone.brain."
        backbone = {
            "kind": "with_prior",
            "backbone": brain,
            "prior": {**prior, "head": "image"},
            "condition": "voxel_tokens",
        }

    # NEURONS' decoders, where it was saved with them
    if has_decoders:
        # sizes that only shapes of weights tell
        stages = count_indices(
            state, r"text_seg_dec\.video_decoder\.up_blocks\.(\d+)\."
        )
        resnet = "text_seg_dec.video_decoder.up_blocks.{}.resnets.0.conv1.weight"
        vocabulary, caption_width = state[
            "text_dec.decoder.transformer.wte.weight"
        ].shape
        frames = len(state["motion_proj.motion_proj.weight"]) // width
        sizes = {
            "frames": frames,
            "maps": [
                len(state[f"text_seg_dec.maps_projector.{index}.weight"])
                for index in (0, 3, 6)
            ],
            "channels": [
                len(state[resnet.format(stage)]) for stage in reversed(range(stages))
            ],
            "concept_width": len(state["classifier.vision_proj_channel.weight"]),
            "vocabulary": vocabulary,
            "caption_width": caption_width,
            "caption_layers": count_indices(
                state, r"text_dec\.decoder\.transformer\.h\.(\d+)\."
            ),
            "caption_heads": max(1, caption_width // HEAD_WIDTH),
            "caption_positions": len(state["text_dec.decoder.transformer.wpe.weight"]),
        }

        # each stage of the mask decoder but the first doubles the side
        side = isqrt(tokens) << (stages - 1)
        latent_channels = len(state["text_seg_dec.recon_head.weight"])
        latent_side = side * 7 // 16  # 28 of 64: the autoencoder's, of 224 pixels
        heads |= {
            "motion": Head((frames, tokens, width)),
            "mask": Head((frames, 1, side, side)),
            "latents": Head((frames, latent_channels, latent_side, latent_side)),
            "concepts": Head((len(state["classifier.classifier.weight"]),)),
            "caption": Head((CAPTION_LENGTH,)),
        }
        backbone = {
            "kind": "neurons",
            "brain": brain,
            "prior": prior,
            **sizes,
            "mode": "published",
        }
    if "backbone.blin1.weight" in state:
        # which autoencoder's latent the blurry one is, nothing says
        side = isqrt(
            len(state["backbone.blin1.weight"]) // len(state["backbone.bnorm.weight"])
        )
        enlarged = side << (
            count_indices(state, r"backbone\.bupsampler\.up_blocks\.(\d+)\.") - 1
        )
        channels = len(state["backbone.bupsampler.conv_out.weight"])
        heads["blurry"] = Head((channels, enlarged, enlarged))
        heads["maps"] = Head(
            (side * side, len(state["backbone.b_maps_projector.6.weight"]))
        )

    # the image tokens are compared in retrieval
    layout = Layout(
        SignalSpec((), 1, tuple(subjects), tuple(voxels)),
        heads,
        backbone,
        encoders={head.target: head.target for head in heads.values() if head.target},
        retrieval_heads=("image",),
    )

    # table of names; the first match counts
    table = {
        r"backbone\.mixer_blocks1\.": None,  # reach no output over one volume
        r"diffusion_prior\.noise_scheduler\.": None,  # follows from the prior's steps
        r"text_dec\.decoder\.lm_head\.weight$": None,  # is GPT-2's embedding
        r"diffusion_prior\.": "backbone.prior.",
    }
    for index, subject in enumerate(subjects):
        table[rf"ridge\.linears\.{index}\."] = f"{brain_prefix}{RIDGES}{subject}."
    table[rf"(?=({'|'.join(map(re.escape, BRAIN))}))"] = brain_prefix
    table[""] = "backbone."
    return layout, table


def is_upstream(state: StateDict) -> bool:
    """Whether weights have upstream's names."""
    return any(name.startswith(UPSTREAM_BRAIN) for name in state)


def read_upstream(config: Fields, upstream: StateDict) -> tuple[Layout, StateDict]:
    """Make a Layout, and our names of weights.

    Raises:
        BrainhiveError: if the config lacks what the weights do not show, or no brain
            encoder has them.
    """
    import torch

    # the config must hold what the weights do not show
    state = rename_weights(upstream, OURS)
    absent = [
        key
        for key in ("brain_channels", "brain_sequence_length", "proj_meta")
        if key not in config
    ]
    if absent:
        raise BrainhiveError(
            f"the upstream model's config.json has no {', '.join(absent)}",
            "add what it was trained with",
        )

    # sizes and kind of the brain encoder
    channels, samples = config["brain_channels"], config["brain_sequence_length"]
    hidden, dim = state[FEED_FORWARD_KEY].shape
    dims = {
        key: len(state[f"fuser.proj_maps.{key}.weight"][0])
        for key in config["proj_meta"]
    }
    kind, subjects = config.get("brain_backbone"), tuple[int, ...]()
    names = {name for name in state if name.startswith("backbone.")}
    for candidate in () if kind else KINDS:
        # too short a window for this one
        with suppress(BrainhiveError), torch.device("meta"):
            module = parts.resolve("backbones", candidate).build(
                channels, samples, dim, 1
            )
            if not kind and names == {
                f"backbone.{name}" for name in module.state_dict()
            }:
                kind = candidate
    if not kind:
        raise BrainhiveError(
            "no brain encoder of upstream has such weights",
            f"name one as brain_backbone: {', '.join(KINDS)}",
        )

    # ATM's shared token becomes the last row of its table
    if kind == "atm":
        state[SUBJECT_TOKENS] = torch.cat([state[SUBJECT_TOKENS], state[SHARED]])
        subjects = tuple(range(len(state[SUBJECT_TOKENS])))
    knobs = {"dropout": config["dropout"]} if "dropout" in config else {}

    # channels are called 0, 1, …, since the folder names none
    layout = Layout(
        spec=SignalSpec(
            tuple(map(str, range(channels))),
            samples,
            subjects,
            (channels,) * len(subjects),
        ),
        heads={TOKEN_HEAD: Head((dim,), FUSED_TARGET)},
        backbone={"kind": kind, **knobs},
        fuser={"kind": "fusion_encoder", "intermediate_size": hidden, **knobs},
        dims=dims,
        encoders={key: key for key in dims},
    )
    return layout, state
