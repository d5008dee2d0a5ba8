"""Accuracy and speed of the search for near-copies of pictures."""

from collections.abc import Callable, Container
from functools import partial
from io import BytesIO

import numpy as np
import scipy.io
from harness import SHARED, Bench, main
from numpy.typing import NDArray
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

N_TEST = 200
N_ALL = 16_740
"""Numbers of test pictures and of all pictures in THINGS-EEG2."""
Pictures = list[Image.Image]


def read_photos() -> Pictures:
    """Read 120 photographs of 128 px."""
    return [
        Image.open(path).convert("RGB")
        for path in sorted((SHARED / "data/photos").glob("*.jpg"))
    ]


def read_wide_photos() -> Pictures:
    """Read the photographs, cut to 4:3, with 512 px."""
    return [crop(resize(photo, 4), 0, 0.125, 0, 0.125) for photo in read_photos()]


def read_rsa92() -> Pictures:
    """Read 92 objects on grey with 175 px (Kriegeskorte 2008)."""
    file = scipy.io.loadmat(
        SHARED / "data/rsa92/Kriegeskorte_Neuron2008_supplementalData.mat"
    )
    return [Image.fromarray(row["image"]) for row in file["stimuli_92objs"][0]]


def read_digits(name: str = "X") -> Pictures:
    """Read 28 px digits: the 100 that were recorded (X), or 2,000 more (X_prior)."""
    values = scipy.io.loadmat(SHARED / "data/real/digits69/69dataset2.mat")[name]
    # MATLAB stores columns first
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
    """Draw 160 training pictures and 100 test pictures of the demo."""
    scenes = demo.list_scenes("train")[::6] + demo.list_scenes("test")
    return [demo.draw_scene(scene) for scene in scenes]


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
    """Multiply the levels around a pivot, and clip them."""
    return picture.point(
        lambda level: round(min(255, max(0, pivot + gain * (level - pivot))))
    )


def resize(picture: Image.Image, factor: float) -> Image.Image:
    """Resize a picture by a factor."""
    size = (round(picture.width * factor), round(picture.height * factor))
    return picture.resize(size, Image.Resampling.BICUBIC)


def change_pixel(picture: Image.Image) -> Image.Image:
    """Invert one pixel."""
    pixels = np.array(picture)
    pixels[pixels.shape[0] // 3, pixels.shape[1] // 3] ^= 255
    return Image.fromarray(pixels)


def crop(
    picture: Image.Image, left: float, upper: float, right: float, lower: float
) -> Image.Image:
    """Cut off shares of the width and height."""
    width, height = picture.size
    box = (left * width, upper * height, (1 - right) * width, (1 - lower) * height)
    return picture.crop(tuple(map(round, box)))  # type: ignore[arg-type]


def crop_sides(picture: Image.Image, share: float) -> Image.Image:
    """Cut off the same share on all four sides."""
    return crop(picture, share, share, share, share)


def cut_square(picture: Image.Image) -> Image.Image:
    """Cut out the central square."""
    size = min(picture.size)
    return ImageOps.fit(picture, (size, size))


def cut_left_square(picture: Image.Image) -> Image.Image:
    """Cut out the square at the upper left."""
    size = min(picture.size)
    return ImageOps.fit(picture, (size, size), centering=(0, 0))


def letterbox(picture: Image.Image) -> Image.Image:
    """Pad a picture to a square."""
    size = max(picture.size)
    return ImageOps.pad(picture, (size, size))


def mask(picture: Image.Image) -> Image.Image:
    """Show a picture on grey behind an elliptic aperture."""
    aperture = Image.new("L", picture.size)
    box = (0, 0, picture.width, picture.height)
    ImageDraw.Draw(aperture).ellipse(box, fill=255)
    grey = Image.new("RGB", picture.size, (128, 128, 128))
    return Image.composite(picture, grey, aperture)


def blur(picture: Image.Image, share: float) -> Image.Image:
    """Blur a picture. The standard deviation is a share of the width."""
    return picture.filter(ImageFilter.GaussianBlur(share * picture.width))


def equalise(picture: Image.Image) -> Image.Image:
    """Equalise the histogram of luminance."""
    luminance, blue, red = picture.convert("YCbCr").split()
    bands = (ImageOps.equalize(luminance), blue, red)
    return Image.merge("YCbCr", bands).convert("RGB")


def mirror(picture: Image.Image) -> Image.Image:
    """Mirror a picture left to right."""
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


Edit = Callable[[Image.Image], Image.Image]
Edits = dict[str, Edit]
COPIES: Edits = {
    "JPEG 75": lambda picture: compress(picture, 75),
    "10 % brighter": lambda picture: brighten(picture, 1.1),
    "10 % darker": lambda picture: brighten(picture, 0.9),
    "palette of 64": lambda picture: picture.quantize(64).convert("RGB"),
    "half size": lambda picture: resize(picture, 0.5),
    "double size": lambda picture: resize(picture, 2),
    "one pixel": change_pixel,
}
"""Edits that must be found."""
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
"""Edits that may be found."""
MIRRORED: Edits = {
    "mirrored": mirror,
    "mirrored, JPEG 75": lambda picture: compress(mirror(picture), 75),
}
"""Edits that must be found as mirrored."""
PREPARED: Edits = {
    "centre square": cut_square,
    "centre of the square": lambda picture: crop_sides(cut_square(picture), 1 / 16),
    "left square": cut_left_square,
    "10 % off the left": lambda picture: crop(picture, 0.1, 0, 0, 0),
    "20 % off the left": lambda picture: crop(picture, 0.2, 0, 0, 0),
    "20 % off the bottom": lambda picture: crop(picture, 0, 0, 0, 0.2),
    "30 % off the left": lambda picture: crop(picture, 0.3, 0, 0, 0),
    "15 % off each side": lambda picture: crop_sides(picture, 0.15),
    "letterbox": letterbox,
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
"""Usual preparations of photographs before they are shown. Their hits are counted."""
CROPPED: Edits = {
    "2 % off each side": lambda picture: crop_sides(picture, 0.02),
    "5 % off each side": lambda picture: crop_sides(picture, 0.05),
    "5 % off, size, JPEG": lambda picture: compress(
        crop_sides(picture, 0.05).resize(picture.size), 75
    ),
    "4 % off the left": lambda picture: crop(picture, 0.04, 0, 0, 0),
    "8 % off the left": lambda picture: crop(picture, 0.08, 0, 0, 0),
    "8 % off each side": lambda picture: crop_sides(picture, 0.08),
    "10 % off each side": lambda picture: crop_sides(picture, 0.1),
}
"""Edits that must be found as cropped, apart from the last four."""


def edits(bench: Bench) -> None:
    """Count the edited pictures that are found in their set with the right verdict."""
    print(
        "set, edit: found; most bits that differ; range of details; least correlation"
    )
    n_sets = bench.pick(1, None, None)
    for name in list(SETS)[:n_sets]:
        pictures = SETS[name]()
        step = max(1, len(pictures) // bench.pick(2, 40, 200))
        hashes = np.array([hash_picture(picture) for picture in pictures])
        copies = COPIES | FURTHER | PREPARED | CROPPED
        for edit_name, edit in copies.items():
            figures = measure_edit(edit, pictures, hashes, step, near_copies.COPIES)
            print(f"{name:14} {edit_name:20} {figures}", flush=True)
        for edit_name, edit in MIRRORED.items():
            figures = measure_edit(edit, pictures, hashes, step, ("mirrored",))
            print(f"{name:14} {edit_name:20} {figures}", flush=True)


def measure_edit(
    edit: Edit,
    pictures: Pictures,
    hashes: NDArray[np.uint64],
    step: int,
    verdicts: Container[str | None],
) -> str:
    """Edit every `step`-th picture of a set, and count hits with the given verdicts."""
    rows = range(0, len(pictures), step)
    n_bits = [0]
    correlations = [1.0]
    details = []
    n_hits = 0
    for row in rows:
        edited = edit(pictures[row])
        digest = hash_picture(edited)[None]
        details.append(count_picture_details(edited))
        for _, _, distance in find_candidates(digest, hashes[[row]], 128):
            n_bits.append(distance)
        correlations.append(correlate_pictures(edited, pictures[row]))
        candidates = [index for _, index, _ in find_candidates(digest, hashes)]
        if row in candidates:
            n_hits += confirm_near_copy(edited, pictures[row]) in verdicts
    return (
        f"{n_hits:3} of {len(rows):3}  {max(n_bits):3} bits  {min(details):4.0f} to "
        f"{max(details):4.0f}  {min(correlations):.3f}"
    )


def different(bench: Bench) -> None:
    """Count different pictures of a set that are called near-copies of each other."""
    print(
        "set: pictures, pairs; details; pairs of near hashes, compared; their highest "
        "correlation; copies"
    )
    n_sets = bench.pick(1, None, None)
    for name in list(SETS)[:n_sets]:
        pictures = SETS[name]()[: bench.pick(20, None, None)]
        hashes = np.array([hash_picture(picture) for picture in pictures])
        candidates = []
        for row in range(len(hashes)):
            others = hashes * (np.arange(len(hashes)) != row)[:, None]
            for _, other_row, _ in find_candidates(hashes[[row]], others):
                candidates.append((row, other_row))
        step = max(1, len(candidates) // bench.pick(5, 300, 10_000))

        # compare evenly spaced candidates
        n_compared = 0
        counts = {"copy": 0, "mirrored": 0, "cropped": 0}
        highest = 0.0
        for row, other_row in candidates[::step]:
            n_compared += 1
            verdict = confirm_near_copy(pictures[row], pictures[other_row])
            if verdict in counts:
                counts[verdict] += 1
            correlation = correlate_pictures(pictures[row], pictures[other_row])
            highest = max(highest, correlation)
        details = [count_picture_details(picture) for picture in pictures]
        figures = f"{len(pictures):5} {len(pictures) * (len(pictures) - 1):7}"
        figures += f"  {min(details):4.0f} to {max(details):4.0f}"
        figures += f"  {len(candidates):5} {n_compared:5}  {highest:.3f}"
        print(f"{name:14} {figures}  {counts}", flush=True)


def count_picture_details(picture: Image.Image) -> float:
    """Count the details of a picture of any size at the scale of its hash."""
    grey = picture.convert("L")
    return count_details(
        grey.resize((64, 64), Image.Resampling.BILINEAR, reducing_gap=2)
    )


def correlate_pictures(first: Image.Image, second: Image.Image) -> float:
    """Correlate the luminance of two pictures."""
    details = []
    for picture in (first, second):
        square = near_copies._make_square(picture)
        luminance = np.asarray(square.getchannel(0), np.float32)
        details.append(
            near_copies._measure_details(
                luminance, near_copies._NO_MARGINS[None], near_copies._BAND + 1
            )[0]
        )
    return float(near_copies._correlate(*details))


def comparing(bench: Bench) -> None:
    """Compare the search for candidates with a bare loop that yields distances."""
    rng = np.random.default_rng(0)
    n_tested = bench.pick(20, N_TEST, N_TEST)
    n_learned = bench.pick(500, N_ALL, N_ALL)
    tested, learned = (
        rng.integers(0, 2**63, (count, near_copies.WORDS), dtype=np.uint64)
        for count in (n_tested, n_learned)
    )

    def loop() -> None:
        for hashes in tested:
            distances = []
            for i, j in near_copies._PAIRS:
                ours = hashes[2 * i : 2 * i + 2]
                theirs = learned[:, 2 * j : 2 * j + 2]
                even, odd = np.bitwise_count(ours ^ theirs).T
                distances.append(even + np.minimum(odd, 64 - odd))
            np.min(distances, axis=0)

    pairs = len(tested) * len(learned)
    bench.compare(
        "candidates: of a bare loop",
        lambda: find_candidates(tested, learned),
        loop,
        count=pairs,
        unit="pairs/s",
        target=1,
    )
    seconds = bench.measure_seconds(lambda: find_candidates(tested, learned))
    bench.show(
        f"candidates of {len(tested)} x {len(learned)}",
        seconds,
        unit="s",
        target=1,
        at_most=True,
    )


def hashing(bench: Bench) -> None:
    """Compare hashing with exact digests, and time the confirmation of pairs."""
    photos = []
    for photo in read_photos()[: bench.pick(2, 40, 40)]:
        photos.append(resize(photo, 500 / photo.width))

    bench.compare(
        "hashing 500 px: of exact digests",
        lambda: [hash_picture(photo) for photo in photos],
        lambda: [digest_pixels(photo) for photo in photos],
        count=len(photos),
        unit="pictures/s",
    )
    turned = [photo.rotate(180) for photo in photos]
    compressed = [COPIES["JPEG 75"](photo) for photo in photos]
    for name, edited in (("different", turned), ("a copy", compressed)):
        confirm = partial(confirm_pairs, edited, photos)
        seconds = bench.measure_seconds(confirm)
        bench.show(
            f"confirming a pair, {name}", 1000 * seconds / len(photos), unit="ms"
        )


def confirm_pairs(edited: Pictures, photos: Pictures) -> None:
    """Compare each edited picture with its original."""
    for first, second in zip(edited, photos, strict=True):
        confirm_near_copy(first, second)


CASES = (edits, different, comparing, hashing)

if __name__ == "__main__":
    main(__doc__, CASES, {})
