"""Near-copies of pictures: candidates by a perceptual hash, confirmed on pixels.

A near-copy shows a learned picture after compression, brightening, a palette, another size or a retouched
pixel, so that its exact digest (`decoding.digest_pixels`) is another one. Pictures are compared by their
*details*: DCT coefficients weighted by frequency. A layout that many pictures share, such as a thing on white
ground, then weighs little. Pictures of few details, such as gratings, are alike by nature and have no hash.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brainhive_cli.data.datasets import Clip

Hashes = NDArray[np.uint64]
Details = NDArray[np.float32]
Margins = NDArray[np.float64]
Likeness = Literal["copy", "mirrored", "cropped", ""]

WORDS = 4
"""64-bit words of a hash: two of the picture, two of its centre."""
CENTRE_MARGIN = 0.05
"""Share that the centre leaves out at each side, so that it matches a picture cropped by that."""
MIN_DETAILS = 40
"""Least number of independent details of a picture that has a hash. Gratings and Gabor patches have at most
26, or 32 dithered to a palette; handwritten digits 59 or more, photographs 63 (benchmarks/near_copies.py)."""
MAX_DISTANCE = 22
"""Most bits of 128 in which the hashes of candidates differ. Edits that copies must survive change 15 or
fewer, 5 % off each side 11, 2 % off 21; different photographs differ in 31 or more
(benchmarks/near_copies.py)."""
NEAREST = 4
"""Candidates of each tested picture: the learned pictures of the nearest hashes."""
MIN_CORRELATION = 0.97
"""Least correlation of the details of copies. Copies with 64 colours reach .973, with one pixel
changed .988; different photographs .52 at most, digits .964 (2,000 of them), demo pictures that differ in
colour and texture alone .93 (benchmarks/near_copies.py)."""
MIN_ALIGNED_CORRELATION = 0.98
"""The same for a cropped picture and the best of many windows. Cropped ones reach .99; one pair of 2,000
different digits exceeded .97 while thresholds were chosen."""
MIN_COARSE_CORRELATION = 0.85
"""The same after the coarsest steps of the search for that window, which otherwise ends there. 40 pictures
(of photos, rsa92, digits and demo), cropped in seven ways, reach .89 or more."""
MIN_FIRST_CORRELATION = 0.75
"""The same of brightness alone, after the first few windows. Pictures of which 2 to 10 % were cut off all
sides reach .88, 4 % off one side .97; different demo pictures .80 at most (40 photographs and 40 demo
pictures, 26 pairs of demo pictures)."""
MAX_MARGIN = 0.12
"""Largest share cut off a side that is looked for."""

_SIDE_PX = 64  # of the thumbnails whose details are measured
_HASHED_PX = 32  # of the views that are hashed: twice the highest hashed frequency, so that nothing aliases
_NO_MARGINS = np.zeros(4)
_EDGE_SHIFTS = np.concatenate([np.eye(4), -np.eye(4)])  # of a window's edges, [8, 4]
_BLOCK_PAIRS = 2**18  # hashes compared at one time: 2 MiB of 64-bit words, which a core's cache holds

_FREQUENCY = np.hypot(*np.mgrid[:_SIDE_PX, :_SIDE_PX])  # [64, 64], in half cycles a picture
_LOWEST = np.argsort(_FREQUENCY[:16, :16], axis=None, kind="stable")[1:129]  # without the mean, [128]
_HASHED = np.unravel_index(_LOWEST, (16, 16))  # rows and columns of the coefficients whose signs are hashed
_MIRROR = np.packbits(np.tile(_HASHED[1] % 2 == 1, 2)).view(np.uint64)  # the signs that a mirror flips, [4]

_BAND, _CHROMA_BAND = 24, 8  # highest frequencies compared: JPEG and resizing change those above
_COMPARED = _FREQUENCY[: _BAND + 1, : _BAND + 1]  # [25, 25]
_CHROMA_WEIGHTS = 2 * _COMPARED * (_COMPARED <= _CHROMA_BAND)  # 2: colour alone distinguishes demo pictures
_WEIGHTS = np.stack([_COMPARED, _CHROMA_WEIGHTS, _CHROMA_WEIGHTS], axis=-1)  # of Y, Cb, Cr: [25, 25, 3]


def _make_dct(count: int, samples: int) -> NDArray[np.float32]:
    """Make the matrix [count, samples] of a DCT's lowest frequencies; its scale does not count."""
    matrix = np.cos(np.pi / samples * np.outer(np.arange(count), np.arange(samples) + 0.5))
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix, np.float32)


_FULL_DCT, _HASHED_DCT = _make_dct(_SIDE_PX, _SIDE_PX), _make_dct(16, _HASHED_PX)
_COMPARED_DCT = _FULL_DCT[: _BAND + 1]


class Candidate(NamedTuple):
    """A pair of pictures with near hashes.

    Attributes:
        tested: Row of the tested picture.
        learned: Row of the learned picture.
        distance: Bits in which their hashes differ, or those of one and the mirrored other, of 128.
    """

    tested: int
    learned: int
    distance: int


def hash_picture(stimulus: Image.Image | Clip) -> Hashes:
    """Hash what a picture shows, or the middle frame of a clip: signs of its lowest DCT frequencies.

    Args:
        stimulus: Of any size and aspect, which do not count.

    Returns:
        [4]: 128 bits of the picture, 128 of its centre. All zero for a picture of fewer than `MIN_DETAILS`
        details, which is never a candidate: pictures so simple are alike by nature.

    Source: Zauner, Implementation and benchmarking of perceptual image hash functions (2010), DCT hash.
    Signs replace its comparison with the median, so that the hash of a mirrored picture follows.
    """
    picture = _frame(stimulus).convert("L")
    grey = picture.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR, reducing_gap=2)
    if count_details(grey) < MIN_DETAILS:
        return np.zeros(WORDS, np.uint64)

    # Hash the picture and its centre.
    signs = []
    for margin in (0, CENTRE_MARGIN * _SIDE_PX):
        box = (margin, margin, _SIDE_PX - margin, _SIDE_PX - margin)
        view = grey.resize((_HASHED_PX, _HASHED_PX), Image.Resampling.BILINEAR, box)
        spectrum = _HASHED_DCT @ np.asarray(view, np.float32) @ _HASHED_DCT.T  # [16, 16]
        signs.append(spectrum[_HASHED] > 0)
    return np.packbits(np.concatenate(signs)).view(np.uint64)


def count_details(grey: Image.Image) -> float:
    """Count the independent details of a grey thumbnail of 64 px: the participation ratio of its gradient.

    Returns:
        (sum of e)² / (sum of e²) over the energies e of DCT coefficients weighted by frequency: the number of
        coefficients if all have one energy, about 2 for a grating, 0 for a constant picture.
    """
    energy = np.square(_FULL_DCT @ np.asarray(grey, np.float32) @ _FULL_DCT.T * _FREQUENCY)
    return float(energy.sum() ** 2 / np.square(energy).sum()) if energy.any() else 0.0


def find_candidates(tested: Hashes, learned: Hashes, max_distance: int = MAX_DISTANCE) -> list[Candidate]:
    """Find the learned pictures that each tested picture may be a near-copy of.

    The picture is compared with the picture, and with the other's centre in case either is cropped; both as
    they are and mirrored.

    Args:
        tested: [M, 4] hashes.
        learned: [N, 4] hashes.
        max_distance: Most bits that differ, of 128.

    Returns:
        At most `NEAREST` of each tested picture, by tested row and distance.
    """
    candidates = []
    is_hashed: NDArray[np.bool_] = np.any(learned, axis=1)
    orientations = (tested, tested ^ _MIRROR)
    block = max(1, _BLOCK_PAIRS // max(1, len(tested)))
    for start in range(0, len(learned), block):
        # Take the least distance over orientations and views: [M, block].
        hashes = learned[start : start + block].T.copy()
        distances = np.full((len(tested), hashes.shape[1]), 255, np.uint8)
        for ours in orientations:
            for first, second in ((0, 0), (0, 2), (2, 0)):
                bits = np.bitwise_count(ours[:, [first]] ^ hashes[second])
                bits += np.bitwise_count(ours[:, [first + 1]] ^ hashes[second + 1])
                np.minimum(distances, bits, out=distances)
        distances[:, ~is_hashed[start : start + block]] = 255
        distances[~tested.any(1)] = 255

        # Keep the nearest of each tested picture that has any.
        for row in np.flatnonzero(distances.min(1) <= max_distance):
            nearest = np.argsort(distances[row], kind="stable")[:NEAREST]
            candidates += [
                Candidate(int(row), start + int(column), int(distances[row, column]))
                for column in nearest[distances[row, nearest] <= max_distance]
            ]

    # Keep the nearest over all blocks.
    candidates.sort(key=lambda candidate: (candidate.tested, candidate.distance, candidate.learned))
    firsts = np.searchsorted([candidate.tested for candidate in candidates], range(len(tested)))
    return [
        candidate
        for position, candidate in enumerate(candidates)
        if position - firsts[candidate.tested] < NEAREST
    ]


def confirm_near_copy(tested: Image.Image | Clip, learned: Image.Image | Clip) -> Likeness:
    """Confirm on pixels that a candidate is a near-copy.

    Args:
        tested: A tested picture, or a clip, whose middle frame counts.
        learned: A learned one.

    Returns:
        "copy"; "mirrored", cropped or not; "cropped": one shows most of the other, up to `MAX_MARGIN` cut off
        each side; "" for different pictures.
    """
    # Compare whole pictures, in both orientations.
    (upright, learned_square), weights = _prepare([tested, learned])
    mirrored = upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    details = _measure_details(learned_square, weights)
    if _correlate(_measure_details(upright, weights), details) >= MIN_CORRELATION:
        return "copy"
    if _correlate(_measure_details(mirrored, weights), details) >= MIN_CORRELATION:
        return "mirrored"

    # Look in either picture for a window that shows the other one.
    for square in (upright, mirrored):
        for full, part in ((square, learned_square), (learned_square, square)):
            if _align(full, _measure_details(part, weights), weights) >= MIN_ALIGNED_CORRELATION:
                return "mirrored" if square is mirrored else "cropped"
    return ""


def _align(full: Image.Image, part: Details, weights: Details) -> float:
    """Return the correlation of a part with the window of a picture that shows it best."""

    def score(window: Margins) -> float:
        return _correlate(_measure_details(full, weights, window), part)

    # Begin with the best of a few windows, by brightness: centred ones, and those with one side cut off.
    brightness = full.getchannel(0)
    centred = np.arange(0, MAX_MARGIN, 0.02)[:, None].repeat(4, 1)  # [6, 4]
    windows = np.concatenate([centred, 0.04 * np.eye(4)])
    firsts = [_measure_details(brightness, weights[..., :1], window) for window in windows]
    scores = [_correlate(first, part[..., :1]) for first in firsts]
    if max(scores) < MIN_FIRST_CORRELATION:
        return max(scores)
    margins = windows[np.argmax(scores)]
    best = score(margins)

    # Move one edge at a time, by ever smaller steps, while the correlation grows.
    for step in (0.02, 0.01, 0.005):
        while True:
            moved = np.clip(margins + step * _EDGE_SHIFTS, 0, MAX_MARGIN)
            scores = [score(window) for window in moved]
            if max(scores) <= best:
                break
            best, margins = max(scores), moved[np.argmax(scores)]
        if best < MIN_COARSE_CORRELATION:
            break
    return best


def _frame(stimulus: Image.Image | Clip) -> Image.Image:
    """Take a picture as RGB, or the middle frame of a clip."""
    if isinstance(stimulus, Clip):
        return Image.fromarray(stimulus.frames[len(stimulus.frames) // 2])
    return stimulus if stimulus.mode == "RGB" else stimulus.convert("RGB")


def _prepare(stimuli: Sequence[Image.Image | Clip]) -> tuple[list[Image.Image], Details]:
    """Reduce stimuli to squares in Y, Cb, Cr; return weights [25, 25, 3] of what all of them can show."""
    frames = [_frame(stimulus) for stimulus in stimuli]
    highest = max(6, 0.6 * min(side for frame in frames for side in frame.size))
    canvas = (2 * _SIDE_PX, 2 * _SIDE_PX)  # of which windows are taken
    squares = [frame.resize(canvas, Image.Resampling.BILINEAR, reducing_gap=2) for frame in frames]
    weights: Details = np.where(_COMPARED[..., None] > highest, 0, _WEIGHTS).astype(np.float32)
    return [square.convert("YCbCr") for square in squares], weights


def _measure_details(square: Image.Image, weights: Details, margins: Margins = _NO_MARGINS) -> Details:
    """Weight the DCT of a window, whose left, upper, right and lower margins are shares: [25, 25, 3 or 1]."""
    left, upper, right, lower = (square.width * margins).tolist()
    box = (left, upper, square.width - right, square.height - lower)
    window = square.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR, box)
    channels = np.asarray(window, np.float32).reshape(_SIDE_PX, _SIDE_PX, -1).transpose(2, 0, 1)
    spectrum = _COMPARED_DCT @ channels @ _COMPARED_DCT.T  # [3, 25, 25]
    details = spectrum.transpose(1, 2, 0) * weights
    return np.asarray(details, np.float32)


def _correlate(first: Details, second: Details) -> float:
    """Correlate details: their means have no weight. 0 where a picture is constant."""
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.vdot(first, second)) / norm if norm else 0.0
