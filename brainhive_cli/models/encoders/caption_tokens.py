"""Captions as token ids, which a caption head is compared with word by word."""

from typing import ClassVar, Literal

from pydantic import Field

from brainhive_cli.models.clip_conditions import OPEN_CLIP, Vocabulary
from brainhive_cli.models.encoders import AnnotationConfig, Encoder


class Config(AnnotationConfig):
    """60 ids of CLIP's vocabulary, 49406 first, 49407 behind the last word, zeros after
    it.

    Source: xmed-lab/NEURONS, the target of its caption head.
    """

    reads: ClassVar[Literal["captions"]] = "captions"
    shape = ("length",)
    store_dtype = "int32"

    source: str = Field(
        OPEN_CLIP, description="open-clip, or what has a CLIP tokenizer in `tokenizer`"
    )
    length: int = Field(
        60, gt=2, le=1024, description="ids of a caption; longer captions are cut"
    )

    def build(self) -> Encoder:
        """Open the vocabulary; MissingData where it is not there."""
        import torch

        # an absent vocabulary is an error here, before any caption is read
        tokens = Vocabulary(self.source, self.length)
        words = f"{self.source}: {self.length} ids, start, words, end, zeros"
        return Encoder(
            torch.nn.Identity(),  # the target is the ids themselves
            lambda caption: tokens.encode(caption).to(torch.int32),
            words,
            reads=self.reads,
        )


TINY = Config(length=8)
