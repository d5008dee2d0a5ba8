"""Encoding and decoding of captions."""

from pathlib import Path

import pytest

import brainhive_cli
from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.models.clip_conditions import OPEN_CLIP, Vocabulary

DEMO = Path(brainhive_cli.__file__).parent / "demo/weights/dual"


def test_ids_are_those_of_open_clips_own_function():
    from open_clip.tokenizer import SimpleTokenizer

    texts = ["A dog runs, across the Grass!", "x " * 100, ""]
    tokens = Vocabulary(length=60)

    for text, expected in zip(
        texts, SimpleTokenizer(context_length=60)(texts), strict=True
    ):
        assert tokens.encode(text).tolist() == expected.tolist()


def test_captions_survive_encoding_and_a_missing_tokenizer_fails(
    tmp_path,
):
    for source, text in ((OPEN_CLIP, "a dog runs"), (str(DEMO), "a red ball")):
        tokens = Vocabulary(source, 12)
        ids = tokens.encode(text)
        assert (len(ids), int(ids[0]), int(ids[-1])) == (12, tokens.start, 0)
        assert tokens.decode(ids.tolist()) == text
        assert tokens.decode([tokens.start, tokens.end] + list(ids.tolist())) == ""
    with pytest.raises(MissingData, match="tokenizer"):
        Vocabulary(str(tmp_path))
