"""The outputs of a network: its embedding, the tokens of its blocks or maps of its
stages, in one forward.
"""

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from brainhive_cli.models.encoders import EMBEDDING, EncoderConfig, as_list

TOKEN_FORMS = "class|mean|tokens-mean|patches"
OUTPUT_PATTERN = re.compile(
    rf"{EMBEDDING}|(?P<last>{TOKEN_FORMS}|tokens)|stage-(?P<stage>[1-9])(?P<mean>\.mean)?|"
    rf"block-(?P<block>0\.\d+|1\.0|\d+)(\.(?P<form>{TOKEN_FORMS}))?"
)


def check_outputs(output: str | list[str], more: Sequence[str] = ()) -> str | list[str]:
    """Refuse outputs that no network has, unless they are among `more`."""
    for one in as_list(output):
        if not OUTPUT_PATTERN.fullmatch(one) and one not in more:
            raise ValueError(
                "an output is embedding, class, mean, patches, tokens, tokens-mean, "
                "block-I or block-I.class (…; I: a block, or a share of the depth), or "
                "of a ResNet stage-I or stage-I.mean"
            )
    if not output:
        raise ValueError("name one output at least")
    return output


class TokenConfig(EncoderConfig):
    """An encoder with more outputs than its usual embedding."""

    output: Annotated[str | list[str], AfterValidator(check_outputs)] = Field(
        EMBEDDING,
        description="embedding (the family's usual one); after the last norm: class, "
        "mean (of patches), patches [S, D], tokens [S, D] (class and "
        "registers first), tokens-mean (of all); of a block, from 0: "
        "block-I (all tokens), block-I.class (…), block-0.667 (at a share "
        "of the depth); of a ResNet, from 1: stage-I [C, h, w], "
        "stage-I.mean; several as a list: a store each, one forward",
    )
