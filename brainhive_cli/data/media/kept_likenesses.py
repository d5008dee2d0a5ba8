"""File with the likeness of each compared pair of pictures, for later commands."""

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

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.core.files import atomic_write, open_descriptor, read_regular
from brainhive_cli.data.media import near_copies, pictures
from brainhive_cli.data.media.near_copies import Likeness

FILE_NAME = ".likenesses"
"""Name of the file, which has a line for each pair of pictures."""
MAX_BYTES = 4_000_000
"""File size above which the older half of the lines is deleted: 90,000 pairs. NSD's
test pictures have 4,000 pairs.
"""
DIFFERENT = "different"
"""Text in the file for pictures that differ."""
LIKENESSES: Mapping[str, Likeness] = {
    likeness or DIFFERENT: likeness for likeness in get_args(Likeness)
}
_LINE = re.compile(rf"([0-9a-f]{{32}}) ({'|'.join(LIKENESSES)})\n")


class KeptLikenesses:
    """Likenesses of pairs of pictures, in a file that several processes may share.

    Opening the file deletes damaged lines. If the file cannot be written, likenesses
    are kept until the command ends.

    Args:
        home: Folder of the file.
    """

    def __init__(self, home: Path) -> None:
        self._file = home / FILE_NAME
        try:
            content = read_regular(self._file).decode("ascii", "replace")
        except FileNotFoundError:
            content = ""
        except (OSError, BrainhiveError):
            content = "unreadable"  # will be rewritten
        text_of_key = dict(_LINE.findall(content))

        # rewrite a file that is too long or has damaged lines
        valid = _format_lines(text_of_key)
        if len(valid) > MAX_BYTES:
            items = list(text_of_key.items())
            text_of_key = dict(items[len(items) // 2 :])
            valid = _format_lines(text_of_key)
        if valid != content:
            with suppress(OSError), atomic_write(self._file, is_lasting=False) as file:
                file.write_text(valid)
        self._likenesses = {key: LIKENESSES[text] for key, text in text_of_key.items()}

    def find(self, digests: Sequence[int]) -> Likeness | None:
        """Return the likeness of two pictures, or None if they were never compared.

        Args:
            digests: Digests of the test picture and the training picture.
        """
        return self._likenesses.get(_make_key(digests))

    def keep(self, digests: Sequence[int], likeness: Likeness) -> None:
        """Append the likeness of two pictures to the file.

        Args:
            digests: Digests of the test picture and the training picture.
            likeness: Result of their comparison.
        """
        key = _make_key(digests)
        self._likenesses[key] = likeness
        line = _format_lines({key: likeness or DIFFERENT})
        # a single write, so that lines of several processes do not mix
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with suppress(OSError, BrainhiveError):
            descriptor = open_descriptor(self._file, flags, follow=False)
            with open(descriptor, "ab", buffering=0) as file:
                file.write(line.encode())


def _format_lines(text_of_key: Mapping[str, str]) -> str:
    """Format the lines of the file."""
    return "".join(f"{key} {text}\n" for key, text in text_of_key.items())


def _make_key(digests: Sequence[int]) -> str:
    """Return the key of a pair, which changes with the code that compares pictures."""
    key = (_digest_comparison(),) + tuple(digests)
    return xxhash.xxh3_128_hexdigest(repr(key).encode())


@cache
def _digest_comparison() -> str:
    """Digest the code and the libraries that decode and compare pictures."""
    digest = xxhash.xxh3_64(f"{PIL.__version__} {np.__version__}".encode())
    for module in (near_copies, pictures):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()
