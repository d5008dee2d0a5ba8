"""Likenesses of pictures that were compared on pixels, kept for later commands."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import PIL
import xxhash

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import atomic_write, open_descriptor, read_regular
from brainhive_cli.data.media import near_copies, pictures
from brainhive_cli.data.media.near_copies import Likeness

FILE_NAME = ".likenesses"
"""The file in a home: a line for each pair of pictures."""
MAX_BYTES = 4_000_000
"""Size beyond which the older half of the file is dropped: 90,000 pairs. NSD's test
pictures have 4,000 with their candidates.
"""
DIFFERENT = "different"
"""The word for no likeness in the file."""
LIKENESSES: Mapping[str, Likeness] = {
    likeness or DIFFERENT: likeness for likeness in get_args(Likeness)
}
_LINE = re.compile(rf"([0-9a-f]{{32}}) ({'|'.join(LIKENESSES)})\n")


class KeptLikenesses:
    """Likenesses of pairs of pictures, by digests of both, in a file of a home.

    Processes may share the file: each appends a likeness when it finds one. Reading
    removes lines that are damaged, foreign or too old. Where nothing can be written,
    likenesses are kept until the command ends.

    Args:
        home: The folder of the file.
    """

    def __init__(self, home: Path) -> None:
        self._file = home / FILE_NAME
        try:
            content = read_regular(self._file).decode("ascii", "replace")
        except FileNotFoundError:
            content = ""
        except (OSError, BrainhiveError):
            content = "unreadable"
        words = dict(_LINE.findall(content))

        # a file with other content, or a too long one, is written anew
        valid = _write_lines(words)
        if len(valid) > MAX_BYTES:
            words = dict([*words.items()][len(words) // 2 :])
            valid = _write_lines(words)
        if valid != content:
            with suppress(OSError), atomic_write(self._file, is_lasting=False) as part:
                part.write_text(valid)
        self._likenesses = {key: LIKENESSES[word] for key, word in words.items()}

    def find(self, digests: Sequence[int]) -> Likeness | None:
        """Find the likeness of a tested and a learned picture by their digests; None if
        they were not compared.
        """
        return self._likenesses.get(_key_of(digests))

    def keep(self, digests: Sequence[int], likeness: Likeness) -> None:
        """Keep the likeness of a tested and a learned picture by their digests."""
        key = _key_of(digests)
        self._likenesses[key] = likeness
        line = _write_lines({key: likeness or DIFFERENT})
        # a single write, so that lines of several processes do not mix
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with suppress(OSError, BrainhiveError):
            descriptor = open_descriptor(self._file, flags, follow=False)
            with open(descriptor, "ab", buffering=0) as file:
                file.write(line.encode())


def _write_lines(words: Mapping[str, str]) -> str:
    return "".join(f"{key} {word}\n" for key, word in words.items())


def _key_of(digests: Sequence[int]) -> str:
    """Write the key of a pair of pictures, as this version compares them."""
    pair = _digest_comparison(), *digests
    return xxhash.xxh3_128_hexdigest(repr(pair).encode())


@cache
def _digest_comparison() -> str:
    """Digest what decodes and compares pictures: the code, and its libraries."""
    digest = xxhash.xxh3_64(f"{PIL.__version__} {np.__version__}".encode())
    for module in (near_copies, pictures):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()
