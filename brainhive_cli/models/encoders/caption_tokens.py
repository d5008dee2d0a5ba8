"""Token ids of captions, the targets of a caption head."""

from typing import ClassVar, Literal

from pydantic import Field

from brainhive_cli.models import OPEN_CLIP, Vocabulary
from brainhive_cli.models.encoders import AnnotationConfig, Encoder


class Config(AnnotationConfig):
    """60 ids of CLIP's vocabulary: 49406, the words, 49407, then zeros.

    Source: xmed-lab/NEURONS, the target of its caption head.
    """

    reads: ClassVar[Literal["captions"]] = "captions"
    shape = ("length",)
    store_dtype = "int32"

    source: str = Field(
        OPEN_CLIP,
        description="open-clip, or a folder or hub reference with a CLIP "
        "tokenizer in `tokenizer`",
    )
    length: int = Field(
        60,
        gt=2,
        le=1024,
        description="number of ids of a caption; longer captions are cut",
    )

    def build(self) -> Encoder:
        """Open the vocabulary.

        Raises:
            MissingData: if the source has no tokenizer.
        """
        import torch

        vocabulary = Vocabulary(self.source, self.length)
        # the ids themselves are the target
        return Encoder(
            network=torch.nn.Identity(),
            preprocess=lambda caption: vocabulary.encode(caption).to(torch.int32),
            preprocessing=f"{self.source}: {self.length} ids, start, words, end, zeros",
            reads=self.reads,
        )


TINY = Config(length=8)
