"""Base class of encoders with several outputs, such as the tokens of their blocks."""

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


def check_outputs(
    output: str | list[str], further_names: Sequence[str] = ()
) -> str | list[str]:
    """Return valid names of outputs.

    Args:
        output: Name or names.
        further_names: Further valid names.

    Raises:
        ValueError: if a name is invalid, or there is none.
    """
    for name in as_list(output):
        if not OUTPUT_PATTERN.fullmatch(name) and name not in further_names:
            raise ValueError(
                "an output is embedding, class, mean, patches, tokens, tokens-mean, "
                "block-I or block-I.class (…; I: a block, or a share of the depth), or "
                "of a ResNet stage-I or stage-I.mean"
            )
    if not output:
        raise ValueError("name one output at least")
    return output


class TokenConfig(EncoderConfig):
    """Base class of the Configs of encoders with further outputs."""

    output: Annotated[str | list[str], AfterValidator(check_outputs)] = Field(
        EMBEDDING,
        description="output of the network: embedding (the default of the family); "
        "after the last norm: class, mean (of patches), patches [S, D], tokens [S, D] "
        "(class and registers first) or tokens-mean; of a block, from 0: block-I (all "
        "tokens), block-I.class (…) or block-0.667 (at a share of the depth); of a "
        "stage of a ResNet, from 1: stage-I [C, h, w] or stage-I.mean; a list makes a "
        "store for each in one forward pass",
    )
