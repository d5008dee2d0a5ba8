"""Hashes and likenesses of drawn pictures beside those that were recorded."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from brainhive_cli.data.media import near_copies
from brainhive_cli.data.media.near_copies import (
    COPIES,
    confirm_near_copy,
    count_details,
    find_candidates,
    hash_picture,
)

Picture = Image.Image


def paint(seed, size=(150, 110)):
    """Paint a smooth picture with noise, of which the seed decides all."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (20, 27, 3), np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
    noise = random.integers(-12, 13, smooth.shape)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def edits():
    """Give a picture in ways that are more or less alike."""
    first_paint = paint(0)
    framed = ImageOps.expand(first_paint, (20, 20, 20, 20), "black")
    shifted = Image.merge("RGB", first_paint.split()[::-1])
    red, green, blue = first_paint.split()
    tinted = Image.merge("RGB", (red, green.point(lambda level: level // 2), blue))
    return {
        "itself": first_paint,
        "half size": first_paint.resize((75, 55)),
        "grey": first_paint.convert("L"),
        "tinted": tinted,
        "other colours": shifted,
        "mirrored": ImageOps.mirror(first_paint),
        "upside down": ImageOps.flip(first_paint),
        "framed": framed,
        "part": first_paint.crop((8, 6, 142, 104)),
        "without its left": first_paint.crop((24, 0, 150, 110)),
        "a small part": first_paint.crop((50, 40, 100, 80)),
        "square": first_paint.crop((20, 0, 130, 110)),
        "part of mirrored": ImageOps.mirror(first_paint).crop((10, 7, 140, 103)),
        "blended": Image.blend(first_paint, paint(1), 0.3),
        "mostly another": Image.blend(first_paint, paint(1), 0.6),
        "another": paint(1),
        "few details": Image.linear_gradient("L").resize((150, 110)).convert("RGB"),
        "constant": Image.new("RGB", (150, 110), "grey"),
    }


@pytest.fixture(scope="module")
def pictures():
    """These pictures, painted once."""
    return edits()


def bits_of(picture):
    """Give the bits of a hash."""
    return np.unpackbits(hash_picture(picture).view(np.uint8)).astype(np.float64)


def test_hashes(recorded, pictures):
    greys = {
        name: picture.convert("L").resize((64, 64))
        for name, picture in pictures.items()
    }
    recorded(
        digits=4,
        bits={name: bits_of(picture) for name, picture in pictures.items()},
        details={name: count_details(grey) for name, grey in greys.items()},
        views={
            name: near_copies._locate_views(greys[name], pictures[name].size)
            for name in ("itself", "framed", "a small part")
        },
    )


def test_candidates(recorded, pictures):
    hashes = np.stack([hash_picture(picture) for picture in pictures.values()])
    candidates = find_candidates(hashes, hashes[1:])
    recorded(
        found=[list(row) for row in candidates],
        strict=[list(row) for row in find_candidates(hashes[:3], hashes, 5)],
    )


def test_likenesses(recorded, pictures):
    names = ("copy", "mirrored", "cropped", "")
    likenesses = {}
    for name, other_picture in pictures.items():
        pair = pictures["itself"], other_picture
        verdicts = [confirm_near_copy(*pair), confirm_near_copy(*pair[::-1])]
        likenesses[name] = [names.index(verdict) for verdict in verdicts]
    recorded(likenesses=likenesses, copies=[names.index(verdict) for verdict in COPIES])


def test_details(recorded, pictures):
    prepared = {}
    for name in ("itself", "part", "other colours", "framed", "mostly another"):
        picture = pictures[name]
        square = picture.resize((128, 128)).convert("YCbCr")
        prepared[name] = near_copies._PreparedPicture.from_square(square, picture.size)
    first_itself = prepared["itself"]
    window = np.array([0.05, 0.0, 0.1, 0.02])
    mirrored = first_itself.mirror()

    # details [2, 12, 625] of all views, some of which are kept
    details = {
        name: near_copies._measure_details(detail.lights, detail.views, 25)
        for name, detail in (prepared | {"mirrored": mirrored}).items()
    }
    for name, detail in (prepared | {"mirrored": mirrored}).items():
        grid = details[name].reshape(2, 12, 25, 25)
        coarse = grid[..., :10, :10].reshape(2, 12, 100)
        np.testing.assert_allclose(detail.details, details[name][:, 10], atol=0.5)
        np.testing.assert_allclose(detail.coarse_details, coarse, atol=0.5)
    all_mirrored = details.pop("mirrored")
    recorded(
        digits=3,
        counts=[detail.detail_count for detail in prepared.values()],
        details=list(details.values()),
        mirrored=[mirrored.square, mirrored.views, all_mirrored],
        correlations=[
            near_copies._correlate(details["itself"], detail, highest)
            for detail in details.values()
            for highest in (10, 24)
        ],
        colours=[
            near_copies._have_equal_colours(
                first_itself, window * 0, detail, window * size
            )
            for detail in prepared.values()
            for size in (0, 1)
        ],
        parts=[
            near_copies._share_part(first_itself, detail)
            for detail in prepared.values()
        ],
        window=near_copies._measure_details(first_itself.lights, window[None], 6)[:, 0],
    )
