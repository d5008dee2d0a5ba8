"""Digests of the pixels of pictures and clips."""

import numpy as np
import xxhash
from PIL import Image

from brainhive_cli.core.base import UInt64
from brainhive_cli.data.media.near_copies import hash_picture
from brainhive_cli.data.media.stimuli import Clip


def digest_pixels(stimulus: Image.Image | Clip) -> int:
    """Compute a 64-bit digest (xxh3) of the pixels of a picture or clip.

    The digest depends on neither the file name nor a lossless file format.
    """
    # include the shape, because [4, 1] and [2, 2] may have equal bytes
    pixels = stimulus.frames if isinstance(stimulus, Clip) else np.asarray(stimulus)
    digest = xxhash.xxh3_64(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.intdigest()


def describe_pixels(stimulus: Image.Image | Clip) -> UInt64:
    """Return the digest of a stimulus's pixels, then its perceptual hash, [25]."""
    digest = np.array([digest_pixels(stimulus)], np.uint64)
    return np.concatenate([digest, hash_picture(stimulus)])
