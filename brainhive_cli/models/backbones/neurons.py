"""NEURONS: a brain model whose tokens become those of frames, masks, concepts, a
caption and latents.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.backbones import BackboneConfig, mindeye2
from brainhive_cli.models.backbones.with_prior import DENOISED
from brainhive_cli.models.clip_conditions import OPEN_CLIP, Vocabulary
from brainhive_cli.models.heads import Decoded, Heads
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.models.sizes import Share

IMAGE, MOTION, TEXT, MASK, LATENTS, CONCEPTS, CAPTION = HEADS = (
    "image",
    "motion",
    "text",
    "mask",
    "latents",
    "concepts",
    "caption",
)
"""The heads that it may have."""
AXES = {IMAGE: 2, MOTION: 3, TEXT: 1, MASK: 4, LATENTS: 4, CONCEPTS: 1, CAPTION: 1}
"""Axes of each."""
SIGNALS_AT_ONCE = 20
"""Signals decoded at once: the reference's batch, whose clips `published` mixes."""
Size = Annotated[int, Field(gt=0, le=2**20)]


class Config(BackboneConfig):
    """NEURONS (arXiv 2503.11167): MindEye2's brain model and prior, and decoders of
    frames behind them.

    Heads: `image` [S, D], and of these any: `motion` [F, S, D], `text` [E], `mask` [F,
    1, H, W], `latents` [F, C, H, W], `concepts` [K], `caption` [L]. A term
    `{prediction: denoised, loss: mse}` trains the prior; a stage with `freeze:
    [backbone.brain]` the decoders.
    """

    cites = ("wang2025", "scotti2024")
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
            "Diffusion prior between the brain's tokens and those that decoders read; "
            "null: none."
        ),
    )
    mode: Literal["right", "published"] = Field(
        "right",
        description="right: pictures and text of a clip are its own, time is within "
        "it. published: as the reference, for its weights: clips of a "
        "batch are mixed, so that results depend on its order.",
    )
    frames: Size = Field(6, description="F, frames of a clip.")
    decodes_motion: bool = Field(
        False,
        description=(
            "Decode the tokens of all frames, too: of them a generator can draw each "
            "frame."
        ),
    )

    # decoder of masks and latents
    maps: tuple[Size, Size, Size] = Field(
        (512, 128, 64), description="Channels of the decoder's maps."
    )
    channels: Annotated[tuple[Size, ...], Field(min_length=1, max_length=10)] = Field(
        (32, 64, 128),
        description=(
            "Channels of the video decoder, from its output; all but one double the "
            "size."
        ),
    )
    groups: Size = Field(32, description="Groups of its normalisations.")
    dropout: Share = Field(
        0.3, description="Probability of dropping a value of its maps."
    )
    attention_dropout: Share = Field(
        0.1,
        description="Probability of dropping a weight or an output of the attention "
        "from pictures to texts.",
    )

    # heads of concepts and captions
    concept_width: Size = Field(
        1280, description="Width between the two maps of the concept head."
    )
    vocabulary: Size = Field(
        50257, description="Token ids that the caption head knows; GPT-2's number."
    )
    tokenizer: str = Field(
        OPEN_CLIP,
        description=(
            "Whose ids captions are made of: open-clip, or what has a CLIP tokenizer."
        ),
    )
    caption_width: Size = Field(768, description="Width of the caption head's GPT-2.")
    caption_layers: Size = Field(12, description="Its layers.")
    caption_heads: Size = Field(12, description="Its attention heads.")
    caption_positions: Size = Field(1024, description="Its longest sequence.")

    def build(self, spec: SignalSpec, heads: Heads) -> "Neurons":
        """Make the model, with the decoders that its heads need.

        Raises:
            RecipeError: if the heads are others, or not of `frames` frames.
            MissingData: if there is no such tokenizer.
        """
        _check(heads, self.frames)
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
    """The brain model, the prior, and a decoder for each kind of head; names follow the
    reference's.

    Training predicts heads from tokens that the prior makes of noised targets; decoding
    samples the tokens.
    """

    def __init__(self, config: Config, spec: SignalSpec, heads: Heads) -> None:
        from brainhive_cli.models.backbones import _neurons_decoders as decoders

        super().__init__()

        # MindEye2's brain model, and the prior of image tokens
        self.config = config
        self.shapes = {name: head.shape for name, head in heads.items()}
        heads_of_brain = {
            name: head for name, head in heads.items() if name in (IMAGE, TEXT)
        }
        self.brain = mindeye2.MindEye2(config.brain, spec, heads_of_brain)
        tokens, width = heads[IMAGE].shape  # S, D
        self.prior: Any = None
        if config.prior is not None:
            sizes_of_head = {"tokens": tokens, "dim": width, "head": IMAGE}
            self.prior = config.prior.model_copy(update=sizes_of_head).build({}, None)

        # decoders of motion, masks and latents, captions, and concepts
        self.project_motion = decoders.project_motion
        self.motion_proj = decoders.motion_projection(width, config.frames)
        self.text_seg_dec: Any = None
        if {MASK, LATENTS} & heads.keys():
            # the decoder has both outputs, also where one is no head
            latents = heads[LATENTS].shape[1] if LATENTS in heads else 4
            text = heads[TEXT].width if TEXT in heads else width
            self.text_seg_dec = decoders.TextDrivenDecoder(config, width, text, latents)
        self.text_dec: Any = None
        self.words: Vocabulary | None = None
        if CAPTION in heads:
            self.words = Vocabulary(config.tokenizer, heads[CAPTION].width)
            self.text_dec = decoders.CaptionHead(
                config, heads[TEXT].width, heads[CAPTION].width
            )
        self.classifier: Any = None
        if CONCEPTS in heads:
            self.classifier = decoders.concept_head(
                width, config.concept_width, heads[CONCEPTS].width
            )

    def forward(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> dict[str, Tensor]:
        """Predict every head, [B, *shape] by name: nothing is sampled.

        `image` are the brain's tokens; all others follow from those that the prior
        expects of them.
        """
        return self.predict_heads(signal, subject_index, [*self.shapes])

    def predict_heads(
        self, signal: Tensor, subject_index: Tensor | None, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Predict some heads, without the decoders that these do without."""
        brain = self.brain(signal, subject_index)[IMAGE]
        # image tokens need neither prior nor decoders
        if set(names) == {IMAGE}:
            return {IMAGE: brain}

        # batches of the reference's size, as the mode published mixes their clips
        blocks = []
        for rows in brain.split(SIGNALS_AT_ONCE):
            tokens = rows if self.prior is None else self.prior.predict_from_brain(rows)
            blocks.append(_as_probabilities(self._decode_tokens(tokens, names)))
        predicted = {
            name: torch.cat([block[name] for block in blocks]) for name in names
        }
        # the brain's tokens, not those of the prior
        return predicted | ({IMAGE: brain} if IMAGE in names else {})

    def learn(
        self,
        signal: Tensor,
        subject_index: Tensor,
        targets: Mapping[str, Tensor],
        context: Any,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict for training: `mask` and `concepts` as logits, `caption` as logits
        [B, L, vocabulary].

        `image` are the brain's tokens; `denoised` [B, S, D] is what the prior makes of
        noised targets, from which all other heads follow. The noise is torch's.
        """
        tokens = brain = self.brain(signal, subject_index)[IMAGE]
        denoised = {}
        replaced = {}
        if self.prior is not None:
            denoised[DENOISED], replaced[DENOISED] = self.prior.learn(
                brain, targets[IMAGE]
            )
            tokens = denoised[DENOISED] / self.prior.scale
        decoded = self._decode_tokens(tokens, [*self.shapes], targets.get(CAPTION))
        return {**decoded, IMAGE: brain, **denoised}, replaced

    def decode(
        self, signal: Tensor, subject_index: Tensor | None, seeds: Sequence[int]
    ) -> Decoded:
        """Decode every head, `motion` only where it is asked for; tokens are sampled by
        a seed a row.
        """
        blocks = []
        for start in range(0, len(signal), SIGNALS_AT_ONCE):
            rows = slice(start, start + SIGNALS_AT_ONCE)
            subject = None if subject_index is None else subject_index[rows]
            tokens = self.brain(signal[rows], subject)[IMAGE]
            # sample the tokens from which all heads are decoded
            if self.prior is not None:
                tokens = self.prior.sample(tokens, seeds[rows])
            heads = _as_probabilities(self._decode_tokens(tokens, [*self.shapes]))
            # captions as text; motion only for generators that draw each frame
            texts = {}
            if self.words is not None:
                texts[CAPTION] = [
                    self.words.decode(ids) for ids in heads[CAPTION].tolist()
                ]
            if not self.config.decodes_motion:
                heads.pop(MOTION, None)
            blocks.append(Decoded(heads, texts))
        return Decoded.join(blocks)

    def _decode_tokens(
        self, tokens: Tensor, names: Sequence[str], caption: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Decode heads of image tokens [B, S, D]; captions are written unless their ids
        [B, L] are given.
        """
        # tokens of all frames, and the text vector that drives decoders
        motion = self.project_motion(self.motion_proj, tokens)  # [B, F, S, D]
        projection = self.brain.clipproj
        # [B, E]
        text = None if projection is None else mindeye2.project_mean(projection, motion)
        decoded: dict[str, Any] = {IMAGE: tokens, MOTION: motion, TEXT: text}
        if {MASK, LATENTS} & {*names}:
            for name, maps in self.text_seg_dec(motion, text).items():
                # bring maps [B, F, C, h, w] to the head's height and width, by their
                # nearest values
                size = (
                    tuple(self.shapes[name][-2:])
                    if name in self.shapes
                    else tuple(maps.shape[-2:])
                )
                if tuple(maps.shape[-2:]) == size:
                    decoded[name] = maps
                else:
                    resized = F.interpolate(maps.flatten(0, 1), size, mode="nearest")
                    decoded[name] = resized.unflatten(0, maps.shape[:2])
        if CONCEPTS in names:
            # mean over frames and tokens
            decoded[CONCEPTS] = self.classifier(motion.mean((1, 2)))
        if CAPTION in names:
            # write word by word, or predict the next words of a true caption
            if caption is None and self.words is not None:
                decoded[CAPTION] = self.text_dec.write(text, self.words.end)
            else:
                assert caption is not None
                decoded[CAPTION] = self.text_dec(text, caption.long())
        return {name: decoded[name] for name in names}


def _as_probabilities(heads: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn logits into probabilities, as targets have them."""
    return {
        name: head.sigmoid() if name in (MASK, CONCEPTS) else head
        for name, head in heads.items()
    }


def _check(heads: Heads, frames: int) -> None:
    """Refuse heads that it cannot make."""
    is_known = IMAGE in heads and heads.keys() <= {*HEADS}
    if not is_known or (CAPTION in heads and TEXT not in heads):
        raise RecipeError(
            f"the backbone neurons predicts {', '.join(HEADS)}, the heads are "
            f"{', '.join(heads) or 'none'}",
            f"the head {IMAGE}, and any others of these; {CAPTION} is written from "
            f"{TEXT}",
        )
    for name, head in heads.items():
        shape = list(head.shape)
        # heads with more than two axes begin with the frames
        if len(shape) != AXES[name] or (AXES[name] > 2 and shape[0] != frames):
            needed = f"{AXES[name]} axes" + (
                f", for {frames} frames" if AXES[name] > 2 else ""
            )
            raise RecipeError(
                f"the target of the head {name} has the shape {shape}: it needs "
                f"{needed}",
                "another encoder, with views: all for every frame of a clip, or "
                "backbone.frames",
            )
