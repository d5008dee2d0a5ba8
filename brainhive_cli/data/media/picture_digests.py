"""Digests of what pictures and clips show, whatever their files are."""

import numpy as np
import xxhash
from PIL import Image

from brainhive_cli.core.arrays import UInt64
from brainhive_cli.data.media.near_copies import hash_picture
from brainhive_cli.data.media.stimuli import Clip


def digest_pixels(stimulus: Image.Image | Clip) -> int:
    """Digest what a stimulus shows (xxh3, 64 bits): its pixels, or those of all frames,
    and their shape.

    Files of one picture in different lossless formats, or under different names, have
    one digest.
    """
    # the shape is a part of the digest: [4, 1] and [2, 2] may have equal bytes
    pixels = stimulus.frames if isinstance(stimulus, Clip) else np.asarray(stimulus)
    digest = xxhash.xxh3_64(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.intdigest()


def describe_pixels(stimulus: Image.Image | Clip) -> UInt64:
    """Give what a stimulus is known by, [25]: the digest of its pixels, and its
    perceptual hash.
    """
    return np.array([digest_pixels(stimulus), *hash_picture(stimulus)], np.uint64)
