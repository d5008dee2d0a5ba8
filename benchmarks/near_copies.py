"""How surely near-copies of pictures are told from different pictures, and how fast."""

import os
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import scipy.io
from harness import CHECKOUT, Bench, main
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from brainhive_cli.data.media import near_copies
from brainhive_cli.data.media.near_copies import (
    confirm_near_copy,
    count_details,
    find_candidates,
    hash_picture,
)
from brainhive_cli.data.media.picture_digests import digest_pixels
from brainhive_cli.demo import pictures as demo

SHARED = Path(os.environ.get("BRAINHIVE_SHARED") or CHECKOUT.parent / "shared")
"""The folder of real pictures."""
TESTED, LEARNED = 200, 16_740
"""Pictures of THINGS-EEG2: tested, and all."""
Pictures = list[Image.Image]


def read_photos() -> Pictures:
    """Read 120 photographs of 128 px."""
    return [
        Image.open(path).convert("RGB")
        for path in sorted((SHARED / "data/photos").glob("*.jpg"))
    ]


def read_wide_photos() -> Pictures:
    """Cut these photographs to 4:3, at 512 px."""
    return [crop(resize(photo, 4), 0, 0.125, 0, 0.125) for photo in read_photos()]


def read_rsa92() -> Pictures:
    """Read 92 objects on grey, 175 px (Kriegeskorte 2008)."""
    file = scipy.io.loadmat(
        SHARED / "data/rsa92/Kriegeskorte_Neuron2008_supplementalData.mat"
    )
    return [Image.fromarray(row["image"]) for row in file["stimuli_92objs"][0]]


def read_digits(name: str = "X") -> Pictures:
    """Read handwritten sixes and nines of 28 px: 100 that were recorded (X), 2,000
    others (X_prior).
    """
    values = scipy.io.loadmat(SHARED / "data/real/digits69/69dataset2.mat")[name]
    # MATLAB's order of rows and columns
    digits = values.reshape(-1, 28, 28).transpose(0, 2, 1)
    return [Image.fromarray(digit).convert("RGB") for digit in digits]


def draw_gratings() -> Pictures:
    """Draw the 16 gratings of shared/data/real/gratings_to_brainhive.py, 96 px."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    gratings = []
    for frequency in (0.6, 1.2, 2.4, 4.8):
        for angle in np.deg2rad((0, 45, 90, 135)):
            wave = np.sin(
                4 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle))
            )
            grey = (wave * (x**2 + y**2 < 0.95) * 0.5 + 0.5) * 255
            gratings.append(Image.fromarray(grey.astype(np.uint8)).convert("RGB"))
    return gratings


def draw_gabors() -> Pictures:
    """Draw 36 Gabor patches, 128 px."""
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    patches = []
    for angle in np.deg2rad(np.arange(0, 180, 15)):
        for cycles in (2, 4, 8):
            wave = np.cos(2 * np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)))
            grey = 128 + 120 * wave * np.exp(-(x**2 + y**2) / 0.18)
            patches.append(Image.fromarray(grey.astype(np.uint8)).convert("RGB"))
    return patches


def draw_demo() -> Pictures:
    """Draw 160 training pictures of the demo and its 100 test pictures, which differ in
    little, 64 px.
    """
    return [
        demo.draw_scene(scene)
        for scene in demo.list_scenes("train")[::6] + demo.list_scenes("test")
    ]


SETS: dict[str, Callable[[], Pictures]] = {
    "photos": read_photos,
    "4:3 photos": read_wide_photos,
    "rsa92": read_rsa92,
    "digits": read_digits,
    "2,000 digits": lambda: read_digits("X_prior"),
    "demo": draw_demo,
    "gratings": draw_gratings,
    "gabors": draw_gabors,
}


def compress(picture: Image.Image, quality: int) -> Image.Image:
    """Write and read a picture as JPEG."""
    file = BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def brighten(picture: Image.Image, gain: float, pivot: float = 0) -> Image.Image:
    """Multiply levels around a pivot; what leaves the range is clipped."""
    return picture.point(
        lambda level: round(min(255, max(0, pivot + gain * (level - pivot))))
    )


def resize(picture: Image.Image, factor: float) -> Image.Image:
    """Resize a picture by a factor."""
    width, height = (round(side * factor) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def change_pixel(picture: Image.Image) -> Image.Image:
    """Invert one pixel."""
    pixels = np.array(picture)
    pixels[pixels.shape[0] // 3, pixels.shape[1] // 3] ^= 255
    return Image.fromarray(pixels)


def crop(
    picture: Image.Image, left: float, upper: float, right: float, lower: float
) -> Image.Image:
    """Cut shares of the sides off."""
    width, height = picture.size
    box = (left * width, upper * height, (1 - right) * width, (1 - lower) * height)
    return picture.crop(tuple(map(round, box)))  # type: ignore[arg-type]


def cut_square(picture: Image.Image) -> Image.Image:
    """Cut the central square out."""
    return ImageOps.fit(picture, (min(picture.size),) * 2)


def mask(picture: Image.Image) -> Image.Image:
    """Show a picture behind an elliptic aperture, on grey."""
    aperture = Image.new("L", picture.size)
    ImageDraw.Draw(aperture).ellipse((0, 0, *picture.size), fill=255)
    return Image.composite(
        picture, Image.new("RGB", picture.size, (128, 128, 128)), aperture
    )


def blur(picture: Image.Image, share: float) -> Image.Image:
    """Blur a picture with a Gaussian, whose standard deviation is a share of the
    width.
    """
    return picture.filter(ImageFilter.GaussianBlur(share * picture.width))


def equalise(picture: Image.Image) -> Image.Image:
    """Equalise the histogram of luminance."""
    light, *chroma = picture.convert("YCbCr").split()
    return Image.merge("YCbCr", (ImageOps.equalize(light), *chroma)).convert("RGB")


def mirror(picture: Image.Image) -> Image.Image:
    """Mirror a picture left to right."""
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


Edits = Mapping[str, Callable[[Image.Image], Image.Image]]
COPIES: Edits = {
    "JPEG 75": lambda picture: compress(picture, 75),
    "10 % brighter": lambda picture: brighten(picture, 1.1),
    "10 % darker": lambda picture: brighten(picture, 0.9),
    "palette of 64": lambda picture: picture.quantize(64).convert("RGB"),
    "half size": lambda picture: resize(picture, 0.5),
    "double size": lambda picture: resize(picture, 2),
    "one pixel": change_pixel,
}
"""Edits after which a picture must be found."""
FURTHER: Edits = {
    "JPEG 50": lambda picture: compress(picture, 50),
    "contrast x 0.8": lambda picture: brighten(picture, 0.8, 128),
    "contrast x 1.2": lambda picture: brighten(picture, 1.2, 128),
    "palette of 16": lambda picture: picture.quantize(16).convert("RGB"),
    "web palette": lambda picture: picture.convert("P").convert("RGB"),
    "half size, JPEG 75": lambda picture: compress(resize(picture, 0.5), 75),
    "half, brighter, 64": lambda picture: (
        brighten(resize(picture, 0.5), 1.1).quantize(64).convert("RGB")
    ),
    "grey": lambda picture: picture.convert("L").convert("RGB"),
}
"""Edits after which it may be."""
MIRRORED: Edits = {
    "mirrored": mirror,
    "mirrored, JPEG 75": lambda picture: compress(mirror(picture), 75),
}
"""Edits after which it must be called mirrored."""
PREPARED: Edits = {
    "centre square": cut_square,
    "centre of the square": lambda picture: crop(cut_square(picture), *[1 / 16] * 4),
    "left square": lambda picture: ImageOps.fit(
        picture, (min(picture.size),) * 2, centering=(0, 0)
    ),
    "10 % off the left": lambda picture: crop(picture, 0.1, 0, 0, 0),
    "20 % off the left": lambda picture: crop(picture, 0.2, 0, 0, 0),
    "20 % off the bottom": lambda picture: crop(picture, 0, 0, 0, 0.2),
    "30 % off the left": lambda picture: crop(picture, 0.3, 0, 0, 0),
    "15 % off each side": lambda picture: crop(picture, *[0.15] * 4),
    "letterbox": lambda picture: ImageOps.pad(picture, (max(picture.size),) * 2),
    "padded": lambda picture: ImageOps.expand(picture, picture.width // 7, "white"),
    "aperture": lambda picture: mask(cut_square(picture)),
    "elliptic aperture": mask,
    "blurred": lambda picture: blur(picture, 0.02),
    "blurred by 3 %": lambda picture: blur(picture, 0.03),
    "blurred by 5 %": lambda picture: blur(picture, 0.05),
    "grey": FURTHER["grey"],
    "equalised": equalise,
    "equalised by channel": ImageOps.equalize,
    "equalised, square": lambda picture: cut_square(equalise(picture)),
    "turned by 1 degree": lambda picture: picture.rotate(1, Image.Resampling.BICUBIC),
    "turned by 2 degrees": lambda picture: picture.rotate(2, Image.Resampling.BICUBIC),
}
"""What is done to photographs that are shown: after which they must be copies; the rest
of it is counted.
"""
CROPPED: Edits = {
    "2 % off each side": lambda picture: crop(picture, *[0.02] * 4),
    "5 % off each side": lambda picture: crop(picture, *[0.05] * 4),
    "5 % off, size, JPEG": lambda picture: compress(
        crop(picture, *[0.05] * 4).resize(picture.size), 75
    ),
    "4 % off the left": lambda picture: crop(picture, 0.04, 0, 0, 0),
    "8 % off the left": lambda picture: crop(picture, 0.08, 0, 0, 0),
    "8 % off each side": lambda picture: crop(picture, *[0.08] * 4),
    "10 % off each side": lambda picture: crop(picture, *[0.1] * 4),
}
"""Edits after which it must be called cropped; the last four exceed what is asked."""


def edits(on: Bench) -> None:
    """Count the edited pictures that are found among all of their set, and called what
    they are.
    """
    print(
        "set, edit: found; most bits that differ; range of details; least correlation"
    )
    for name in list(SETS)[: on.pick(1, None, None)]:
        pictures = SETS[name]()
        chosen = range(0, len(pictures), max(1, len(pictures) // on.pick(2, 40, 200)))
        hashes = np.array([hash_picture(picture) for picture in pictures])
        copies = {**COPIES, **FURTHER, **PREPARED, **CROPPED}
        for verdicts, group in (
            (near_copies.COPIES, copies),
            (("mirrored",), MIRRORED),
        ):
            for edit, change in group.items():
                bits, correlations, details, hits = [0], [1.0], [], 0
                for row in chosen:
                    edited = change(pictures[row])
                    details.append(count_picture_details(edited))
                    own = find_candidates(
                        hash_picture(edited)[None], hashes[[row]], 128
                    )
                    bits += [distance for *_, distance in own]
                    correlations.append(correlate_pictures(edited, pictures[row]))
                    rivals = find_candidates(hash_picture(edited)[None], hashes)
                    if row in (learned for _, learned, _ in rivals):
                        hits += confirm_near_copy(edited, pictures[row]) in verdicts
                figures = f"{hits:3} of {len(chosen):3}  {max(bits):3} bits"
                figures += (
                    f"  {min(details):4.0f} to {max(details):4.0f}  "
                    f"{min(correlations):.3f}"
                )
                print(f"{name:14} {edit:20} {figures}", flush=True)


def different(on: Bench) -> None:
    """Count different pictures of a set that are called near-copies of each other."""
    print(
        "set: pictures, pairs; details; pairs of near hashes, compared; their highest "
        "correlation; copies"
    )
    for name in list(SETS)[: on.pick(1, None, None)]:
        pictures = SETS[name]()[: on.pick(20, None, None)]
        hashes = np.array([hash_picture(picture) for picture in pictures])
        near = [
            (tested + row, learned)
            for row in range(len(hashes))
            for tested, learned, _ in find_candidates(
                hashes[[row]], hashes * (np.arange(len(hashes)) != row)[:, None]
            )
        ]
        compared = near[:: max(1, len(near) // on.pick(5, 300, 10_000))]
        pairs = [(pictures[first], pictures[second]) for first, second in compared]
        verdicts = [confirm_near_copy(*pair) for pair in pairs]
        highest = max((correlate_pictures(*pair) for pair in pairs), default=0)
        details = [count_picture_details(picture) for picture in pictures]
        counts = {
            verdict: verdicts.count(verdict)
            for verdict in ("copy", "mirrored", "cropped")
        }
        figures = f"{len(pictures):5} {len(pictures) * (len(pictures) - 1):7}"
        figures += f"  {min(details):4.0f} to {max(details):4.0f}"
        figures += f"  {len(near):5} {len(compared):5}  {highest:.3f}"
        print(f"{name:14} {figures}  {counts}", flush=True)


def count_picture_details(picture: Image.Image) -> float:
    """Count the details of a picture of any size, as it is hashed."""
    return count_details(
        picture.convert("L").resize((64, 64), Image.Resampling.BILINEAR, reducing_gap=2)
    )


def correlate_pictures(first: Image.Image, second: Image.Image) -> float:
    """Correlate the luminance of two pictures."""
    details = []
    for picture in (first, second):
        light = np.asarray(near_copies._make_square(picture).getchannel(0), np.float32)
        details.append(
            near_copies._measure_details(
                light, near_copies._NO_MARGINS, near_copies._BAND + 1
            )
        )
    return float(near_copies._correlate(*details))


def comparing(on: Bench) -> None:
    """Compare finding candidates with a bare loop over tested pictures, which yields
    distances alone.
    """
    rng = np.random.default_rng(0)
    tested, learned = (
        rng.integers(0, 2**63, (count, near_copies.WORDS), dtype=np.uint64)
        for count in (on.pick(20, TESTED, TESTED), on.pick(500, LEARNED, LEARNED))
    )

    def loop() -> None:
        for hashes in tested:
            distances = []
            for first, second in near_copies._PAIRS:
                even, odd = np.bitwise_count(
                    hashes[2 * first : 2 * first + 2]
                    ^ learned[:, 2 * second : 2 * second + 2]
                ).T
                distances.append(even + np.minimum(odd, 64 - odd))
            np.min(distances, axis=0)

    pairs = len(tested) * len(learned)
    on.compare(
        "candidates: of a bare loop",
        lambda: find_candidates(tested, learned),
        loop,
        pairs,
        "pairs/s",
        1,
    )
    seconds = on.measure_seconds(lambda: find_candidates(tested, learned))
    on.show(
        f"candidates of {len(tested)} x {len(learned)}",
        seconds,
        unit="s",
        target=1,
        at_most=True,
    )


def hashing(on: Bench) -> None:
    """Compare hashing pictures of 500 px with their exact digests; time the
    confirmation of a pair.
    """
    photos = [
        resize(photo, 500 / photo.width)
        for photo in read_photos()[: on.pick(2, 40, 40)]
    ]

    sides = (
        lambda: [*map(hash_picture, photos)],
        lambda: [*map(digest_pixels, photos)],
    )
    on.compare("hashing 500 px: of exact digests", *sides, len(photos), "pictures/s")
    for name, edit in (
        ("different", lambda photo: photo.rotate(180)),
        ("a copy", COPIES["JPEG 75"]),
    ):
        pairs = [(edit(photo), photo) for photo in photos]
        seconds = on.measure_seconds(
            lambda: [confirm_near_copy(*pair) for pair in pairs]  # noqa: B023
        )
        on.show(f"confirming a pair, {name}", 1000 * seconds / len(pairs), unit="ms")


CASES = (edits, different, comparing, hashing)

if __name__ == "__main__":
    main(__doc__, CASES, {})
