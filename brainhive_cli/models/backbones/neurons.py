"""NEURONS, which decodes frames, masks, latents, concepts and a caption from tokens."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.base import RecipeError
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import (
    OPEN_CLIP,
    Decoded,
    Heads,
    Share,
    SignalSpec,
    Vocabulary,
)
from brainhive_cli.models.backbones import BackboneConfig, mindeye2
from brainhive_cli.models.backbones.with_prior import DENOISED

IMAGE = "image"
MOTION = "motion"
TEXT = "text"
MASK = "mask"
LATENTS = "latents"
CONCEPTS = "concepts"
CAPTION = "caption"
SIGNALS_PER_BATCH = 20
"""Number of signals that are decoded at once, as in the reference, because the mode
`published` mixes the clips of a batch.
"""
Size = Annotated[int, Field(gt=0, le=2**20)]


class Config(BackboneConfig):
    """Settings of NEURONS (arXiv 2503.11167).

    Decoders follow the brain model and the prior of MindEye2. Heads are `image` [S, D],
    and optionally `motion` [F, S, D], `text` [E], `mask` [F, 1, H, W], `latents` [F, C,
    H, W], `concepts` [K] and `caption` [L].

    A loss term `{prediction: denoised, loss: mse}` trains the prior. A stage with
    `freeze: [backbone.brain]` trains prior and decoders.
    """

    cites = ("wang2025", "scotti2024")
    called = "NEURONS"
    takes_spec = True

    brain: Annotated[mindeye2.Config, parts.part_validator("backbones", "mindeye2")] = (
        Field(
            "mindeye2",
            validate_default=True,
            description="Brain model that predicts the image tokens.",
        )
    )
    prior: Annotated[
        Any, parts.part_validator("priors", "mindeye2", is_optional=True)
    ] = Field(
        "mindeye2",
        validate_default=True,
        description=(
            "Diffusion prior between the brain model's tokens and the decoders. null "
            "means no prior."
        ),
    )
    mode: Literal["right", "published"] = Field(
        "right",
        description="right: each clip is decoded from its own frames and text. "
        "published: the clips of a batch are mixed, so that results depend on their "
        "order, as in the reference and for its weights.",
    )
    frames: Size = Field(6, description="Number F of frames per clip.")
    decodes_motion: bool = Field(
        False,
        description=(
            "If true, also decode the tokens of all frames, from which a generator can "
            "draw each frame."
        ),
    )

    # decoder of masks and latents
    maps: tuple[Size, Size, Size] = Field(
        (512, 128, 64), description="Channels of the three layers of feature maps."
    )
    channels: Annotated[tuple[Size, ...], Field(min_length=1, max_length=10)] = Field(
        (32, 64, 128),
        description=(
            "Channels of the video decoder's blocks, from output to input. All but one "
            "block double the size."
        ),
    )
    groups: Size = Field(
        32, description="Number of groups of the video decoder's normalisations."
    )
    dropout: Share = Field(
        0.3, description="Probability of dropping a value of the feature maps."
    )
    attention_dropout: Share = Field(
        0.1,
        description="Probability of dropping a weight or an output of the attention "
        "from image tokens to texts.",
    )

    # heads of concepts and captions
    concept_width: Size = Field(
        1280, description="Width between the two linear maps of the concept head."
    )
    vocabulary: Size = Field(
        50257,
        description="Number of token ids of the caption head, by default GPT-2's.",
    )
    tokenizer: str = Field(
        OPEN_CLIP,
        description=(
            "Tokenizer of captions: open-clip, or a model with a CLIP tokenizer in its "
            "folder `tokenizer`."
        ),
    )
    caption_width: Size = Field(768, description="Width of the caption head's GPT-2.")
    caption_layers: Size = Field(
        12, description="Number of layers of the caption head."
    )
    caption_heads: Size = Field(
        12, description="Number of attention heads of the caption head."
    )
    caption_positions: Size = Field(
        1024, description="Largest number of tokens of the caption head."
    )

    def build(self, spec: SignalSpec, heads: Heads) -> "Neurons":
        """Make the model, with the decoders that the heads need.

        Raises:
            RecipeError: if it cannot predict the heads, or they have other frames.
            MissingData: if the tokenizer is absent.
        """
        _check_heads(heads, self.frames)
        return Neurons(self, spec, heads)


TINY = Config(
    brain={"kind": "mindeye2", "hidden": 8},
    prior={"kind": "mindeye2", "depth": 1, "heads": 1, "dim_head": 4, "timesteps": 3},
    frames=2,
    maps=(8, 8, 8),
    channels=(4, 8),
    groups=4,
    concept_width=8,
    vocabulary=16,
    caption_width=8,
    caption_layers=1,
    caption_heads=2,
    caption_positions=16,
)
"""Small enough for tests."""


class Neurons(nn.Module):
    """Brain model, prior, and a decoder for each kind of head.

    In training, heads are predicted from tokens that the prior makes of noised targets.
    In decoding, the prior samples the tokens. Parameters have the reference's names.
    """

    def __init__(self, config: Config, spec: SignalSpec, heads: Heads) -> None:
        from brainhive_cli.models.backbones import _neurons_decoders as decoders

        super().__init__()

        # brain model and prior of MindEye2
        self.config = config
        self.shapes = {name: head.shape for name, head in heads.items()}
        brain_heads = {
            name: head for name, head in heads.items() if name in (IMAGE, TEXT)
        }
        self.brain = mindeye2.MindEye2(config.brain, spec, brain_heads)
        n_tokens, width = heads[IMAGE].shape
        self.prior: Any = None
        if config.prior is not None:
            prior_sizes = {"tokens": n_tokens, "dim": width, "head": IMAGE}
            prior_config = config.prior.model_copy(update=prior_sizes)
            self.prior = prior_config.build({}, None)

        # decoders
        self.project_motion = decoders.project_motion
        self.motion_proj = decoders.make_motion_projection(width, config.frames)
        self.text_seg_dec: Any = None
        if MASK in heads or LATENTS in heads:
            n_latents = heads[LATENTS].shape[1] if LATENTS in heads else 4
            text_width = heads[TEXT].width if TEXT in heads else width
            self.text_seg_dec = decoders.TextDrivenDecoder(
                config, width, text_width, n_latents
            )
        self.text_dec: Any = None
        self.vocabulary: Vocabulary | None = None
        if CAPTION in heads:
            length = heads[CAPTION].width
            self.vocabulary = Vocabulary(config.tokenizer, length)
            self.text_dec = decoders.CaptionHead(config, heads[TEXT].width, length)
        self.classifier: Any = None
        if CONCEPTS in heads:
            self.classifier = decoders.make_concept_head(
                width, config.concept_width, heads[CONCEPTS].width
            )

    def forward(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> dict[str, Tensor]:
        """Predict every head, [B, *shape] by name, without sampling.

        `image` are the brain model's tokens. The prior predicts the tokens of the other
        heads from these.
        """
        return self.predict_heads(signal, subject_index, list(self.shapes))

    def predict_heads(
        self, signal: Tensor, subject_index: Tensor | None, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Predict the named heads, [B, *shape] by name, as `forward` does."""
        brain_tokens = self.brain(signal, subject_index)[IMAGE]
        if set(names) == {IMAGE}:
            return {IMAGE: brain_tokens}

        batches = []
        for batch_tokens in brain_tokens.split(SIGNALS_PER_BATCH):
            tokens = batch_tokens
            if self.prior is not None:
                tokens = self.prior.predict_from_brain(batch_tokens)
            batches.append(_apply_sigmoid(self._decode_tokens(tokens, names)))
        predicted = {}
        for name in names:
            predicted[name] = torch.cat([batch[name] for batch in batches])
        if IMAGE in names:
            predicted[IMAGE] = brain_tokens
        return predicted

    def learn(
        self,
        signal: Tensor,
        subject_index: Tensor | None,
        targets: Mapping[str, Tensor],
        context: Any,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict heads and `denoised` tokens in a training step.

        The prior predicts `denoised` [B, S, D] from targets noised by torch's global
        generator. Heads are decoded from it, but `image` are the brain model's tokens.

        Returns:
            Predictions by name: `mask` and `concepts` as logits, `caption` as logits
            [B, L, vocabulary]. Then the target of `denoised`.
        """
        brain_tokens = self.brain(signal, subject_index)[IMAGE]
        tokens = brain_tokens
        denoised = {}
        replaced = {}
        if self.prior is not None:
            denoised[DENOISED], replaced[DENOISED] = self.prior.learn(
                brain_tokens, targets[IMAGE]
            )
            tokens = denoised[DENOISED] / self.prior.scale
        decoded = self._decode_tokens(tokens, list(self.shapes), targets.get(CAPTION))
        return {**decoded, IMAGE: brain_tokens, **denoised}, replaced

    def decode(
        self, signal: Tensor, subject_index: Tensor | None, seeds: Sequence[int]
    ) -> Decoded:
        """Decode every head from sampled tokens, `motion` only with `decodes_motion`.

        Args:
            signal: Voxels [B, V, 1].
            subject_index: Index [B] of each signal's subject.
            seeds: Seed [B] of each signal.

        Returns:
            Heads [B, *shape], and captions also as texts.
        """
        batches = []
        for start in range(0, len(signal), SIGNALS_PER_BATCH):
            rows = slice(start, start + SIGNALS_PER_BATCH)
            subject = None if subject_index is None else subject_index[rows]
            tokens = self.brain(signal[rows], subject)[IMAGE]
            if self.prior is not None:
                tokens = self.prior.sample(tokens, seeds[rows])
            heads = _apply_sigmoid(self._decode_tokens(tokens, list(self.shapes)))

            texts = {}
            if self.vocabulary is not None:
                texts[CAPTION] = [
                    self.vocabulary.decode(ids) for ids in heads[CAPTION].tolist()
                ]
            if not self.config.decodes_motion:
                heads.pop(MOTION, None)
            batches.append(Decoded(heads, texts))
        return Decoded.join(batches)

    def _decode_tokens(
        self, tokens: Tensor, names: Sequence[str], caption: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Decode the named heads from image tokens.

        Args:
            tokens: Image tokens [B, S, D].
            names: Names of the heads.
            caption: Ids [B, L] of true captions, whose logits are predicted. Without
                them captions are written.

        Returns:
            Heads by name, with logits of masks and concepts.
        """
        motion = self.project_motion(self.motion_proj, tokens)  # [B, F, S, D]
        text = None
        if self.brain.clipproj is not None:
            text = mindeye2.project_mean(self.brain.clipproj, motion)  # [B, E]
        decoded: dict[str, Any] = {IMAGE: tokens, MOTION: motion, TEXT: text}
        if MASK in names or LATENTS in names:
            for name, maps in self.text_seg_dec(motion, text).items():
                decoded[name] = self._resize(name, maps)
        if CONCEPTS in names:
            decoded[CONCEPTS] = self.classifier(motion.mean((1, 2)))
        if CAPTION in names:
            if caption is not None:
                decoded[CAPTION] = self.text_dec(text, caption.long())
            elif self.vocabulary is not None:
                decoded[CAPTION] = self.text_dec.write(text, self.vocabulary.end)
        return {name: decoded[name] for name in names}

    def _resize(self, name: str, maps: Tensor) -> Tensor:
        """Resize maps [B, F, C, h, w] to the size of their head, if there is one."""
        height, width = self.shapes.get(name, maps.shape)[-2:]
        if maps.shape[-2:] == (height, width):
            return maps
        frames = maps.flatten(0, 1)
        resized = F.interpolate(frames, (height, width), mode="nearest")
        return resized.unflatten(0, maps.shape[:2])


def _apply_sigmoid(heads: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn the logits of masks and concepts into probabilities."""
    probabilities = {}
    for name, head in heads.items():
        probabilities[name] = head.sigmoid() if name in (MASK, CONCEPTS) else head
    return probabilities


def _check_heads(heads: Heads, n_frames: int) -> None:
    """Raise an error for heads that NEURONS cannot predict."""
    # Number of axes of each head. Heads of more than two axes begin with the frames.
    n_axes = {
        IMAGE: 2,
        MOTION: 3,
        TEXT: 1,
        MASK: 4,
        LATENTS: 4,
        CONCEPTS: 1,
        CAPTION: 1,
    }
    has_unknown_heads = not heads.keys() <= n_axes.keys()
    lacks_text = CAPTION in heads and TEXT not in heads
    if IMAGE not in heads or has_unknown_heads or lacks_text:
        raise RecipeError(
            f"the backbone neurons predicts {', '.join(n_axes)}, the heads are "
            f"{', '.join(heads) or 'none'}",
            f"the head {IMAGE}, and any others of these; {CAPTION} is written from "
            f"{TEXT}",
        )

    for name, head in heads.items():
        shape = list(head.shape)
        has_frames = n_axes[name] > 2
        has_other_frames = has_frames and shape[:1] != [n_frames]
        if len(shape) != n_axes[name] or has_other_frames:
            expected_shape = f"{n_axes[name]} axes"
            if has_frames:
                expected_shape += f", for {n_frames} frames"
            raise RecipeError(
                f"the target of the head {name} has the shape {shape}: it needs "
                f"{expected_shape}",
                "another encoder, with views: all for every frame of a clip, or "
                "backbone.frames",
            )
