"""Near-copies of pictures: candidates by perceptual hashes of views, confirmed on
pixels.

A near-copy shows a learned picture after compression, with another contrast, without
colours, blurred, at another size, or in a way that stimuli are prepared: cut to a
square, with a side cut off, between bars or behind an aperture. Its exact digest
(`picture_digests.digest_pixels`) is another one. Pictures are compared by their
*details*: DCT coefficients, each ring of frequencies scaled to one size. A layout that
many pictures share, such as a thing on white ground, then weighs little. Pictures of
few details, such as gratings, are alike by nature and are not compared with each other.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from brainhive_cli.core.arrays import Float32, Float64, Int64, UInt64
from brainhive_cli.data.media.stimuli import Clip

Likeness = Literal["copy", "mirrored", "cropped", ""]
Pairs = tuple[Int64, Int64]
"""Rows of tested pictures and of learned ones, [P] each."""

COPIES: tuple[Likeness, ...] = ("copy", "cropped")
"""Likenesses of pictures that are taken for one. A mirrored picture is another
stimulus.
"""
CENTRE_MARGINS, SIDE_MARGIN = (0.05, 0.12), 0.16
"""Shares that views leave out at all sides and at one side; they match pictures cropped
by 3 to 15 % and by up to 20 %.
"""
SQUARE_MARGINS = (0, 0.0625, (1 - 0.5**0.5) / 2)
"""The same of the centre square: all of it, 224 of 256 px, and the square within its
circle (apertures).
"""
VIEWS = 12
WORDS = 2 * VIEWS
"""64-bit words of a hash: two of each view."""
BORDER_LEVELS = 10
"""Most levels by which pixels of a border differ from that of the first corner."""
MIN_DETAILS = 46
"""Least number of independent details that one picture of a pair has. Gratings and
Gabor patches have at most 26, or 32 dithered to a palette, squares and blocks of colour
42; handwritten digits 59 or more, photographs 50 (benchmarks/near_copies.py).
"""
MIN_DETAILS_OF_BLURRED = 80
"""The same of the other picture where one has fewer, as a blurred one has."""
MAX_DISTANCE, MAX_EVEN_DISTANCE = 34, 20
"""Most bits in which the hashes of candidates' views differ, of 128 and of the 64 of
even frequencies. None to 2 of 14,280 pairs of different photographs are as near
(benchmarks/near_copies.py).
"""
NEAREST = 4
"""Candidates of each tested picture: the learned pictures of the nearest hashes."""
FADE = 0.03
"""Amplitude of a ring, as a share of all, at which its weight is half: blur leaves less
of fine details.
"""
MIN_CORRELATION = 0.97
"""Least correlation of the luminance of copies; different pictures reach .96 at most,
of 2,000 digits.
"""
MIN_FIRST_CORRELATION = 0.6
"""The same of the best pair of views, by coarse details, from which a window is
searched.
"""
SEARCH = ((0.04, 8, 0.8), (0.02, 12, 0.93), (0.01, 24, 0.95), (0.005, 24, 0.98))
"""Steps of that search: share of a side, highest frequency, least correlation at its
end.
"""
REACH = 0.2
"""Share of a side by which the search moves an edge at most."""
MIN_COLOUR, MIN_COLOUR_CORRELATION = 0.05, 0.85
"""Least chroma of a picture with colours of its own, relative to luminance; least
correlation of those of copies. Demo pictures that differ in colour alone have .2 or
more, and reach .80.
"""
ROUNDING = 0.1
"""DCT coefficients closer to 0 than this are 0. They are sums of 64 x 64 grey levels,
which reach 1e6, where float32 rounds by 0.06. CPUs round differently. The coefficients
of photographs are larger.
"""

_SIDE_PX = 64  # of the thumbnails whose details are measured
_CANVAS_PX = 128  # of the pictures of which windows are compared
_NO_MARGINS = np.zeros(4)
_EDGE_SHIFTS = np.concatenate([np.eye(4), -np.eye(4)])  # of a window's edges, [8, 4]
# hashes compared at one time: 2 MiB of 64-bit words, which a core's cache holds; and
# the tested pictures among them
_BLOCK_PAIRS = 2**18
_BLOCK_ROWS = 32
# most bits that bands find faster than a comparison of all pairs
_MAX_BANDED_DISTANCE = 10

# Views of a picture: all within its borders, parts of that, its centre square; all with
# the borders.
_MARGINS = np.concatenate(
    [
        np.repeat([0, *CENTRE_MARGINS], 4).reshape(-1, 4),
        SIDE_MARGIN * np.eye(4),
        np.repeat([*SQUARE_MARGINS, 0, SQUARE_MARGINS[-1]], 4).reshape(-1, 4),
    ]
)  # [12, 4], of windows that are numbered in `_locate_views`
_WINDOWS = [0] * 7 + [2] * 3 + [1, 3]
_INNER = 9
_WHOLE = 10
_WHOLE_INNER = 11
_PAIRS = [(0, view) for view in range(_WHOLE)] + [
    (view, 0) for view in range(1, _WHOLE)
]
_PAIRS += [(view, view) for view in (_INNER, _WHOLE, _WHOLE_INNER)]
_FIRSTS, _SECONDS = np.transpose(_PAIRS)
# without its left side is without its right side
_MIRRORED_VIEWS = [0, 1, 2, 5, 4, 3, *range(6, VIEWS)]

# [64, 64], in half cycles a picture
_FREQUENCY = np.hypot(*np.mgrid[:_SIDE_PX, :_SIDE_PX])
# without the mean, [255]
_LOWEST = np.argsort(_FREQUENCY[:16, :16], None, kind="stable")[1:]
_BY_PARITY = (_LOWEST[_LOWEST % 2 == 0], _LOWEST[_LOWEST % 2 == 1])  # of columns
_HASHED = np.concatenate([lowest[:64] for lowest in _BY_PARITY])  # [128]
# the bit in the word of odd frequencies
_HAS_FEW_DETAILS = np.packbits(np.arange(64) == 63).view(np.uint64)

# highest frequencies compared: JPEG and resizing change those above
_BAND = 24
_CHROMA_BAND = 8
_COMPARED = _FREQUENCY[: _BAND + 1, : _BAND + 1].ravel()  # [625]
# [625, 23]
_RINGS = (_COMPARED[:, None].astype(int) == range(1, _BAND)).astype(np.float32)
_CHROMA_WEIGHTS = _COMPARED * (_COMPARED <= _CHROMA_BAND)
_MIRROR_SIGNS = np.tile(np.float32((-1) ** np.arange(_BAND + 1)), _BAND + 1)  # [625]


@lru_cache(2**12)
def _make_dct(low: float, high: float, side_px: int, count: int) -> Float32:
    """Make the matrix [count, side_px] of the lowest DCT frequencies of a line between
    two margins.
    """
    # DCT-II on fractional pixel edges, so that margins need not be whole pixels
    start = low * side_px
    stop = (1 - high) * side_px
    edges = np.clip(np.arange(side_px + 1), start, stop) - start
    centres = (edges[1:] + edges[:-1]) / 2
    widths = np.diff(edges)
    dct = np.cos(np.pi / (stop - start) * np.outer(np.arange(count), centres)) * widths
    dct[0] /= np.sqrt(2)
    return np.asarray(dct * _SIDE_PX / (stop - start), np.float32)


def _measure_details(square: Float32, margins: Float64, count: int) -> Float32:
    """Measure the lowest frequencies of a window of squares [..., S, S]: [..., count *
    count].
    """
    # rounded margins share matrices, which are cached
    left, upper, right, lower = np.round(margins, 4).tolist()
    side_px = square.shape[-1]
    rows = _make_dct(upper, lower, side_px, count)
    columns = _make_dct(left, right, side_px, count)
    return np.asarray((rows @ square @ columns.T).reshape(*square.shape[:-2], -1))


def hash_picture(stimulus: Image.Image | Clip) -> UInt64:
    """Hash what a picture shows, or the middle frame of a clip: signs of its views'
    lowest DCT frequencies.

    Args:
        stimulus: Of any size and aspect, which do not count.

    Returns:
        [24]: of each view 64 bits of frequencies that are even from left to right, and
        64 of odd ones. The last bit says that it has few details. All zero for a
        constant picture, which is no candidate.

    Source: Zauner, Implementation and benchmarking of perceptual image hash functions
    (2010), DCT hash. Signs replace its comparison with the median, so that the hash of
    a mirrored picture follows.
    """
    # a constant picture has no signs but rounding
    frame = _frame(stimulus)
    grey = frame.convert("L").resize(
        (_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR, reducing_gap=2
    )
    if np.ptp(np.asarray(grey)) <= BORDER_LEVELS:
        return np.zeros(WORDS, np.uint64)
    square = np.asarray(grey, np.float32)
    # signs of the lowest frequencies of each view, and a bit for few details
    views = np.stack(
        [_measure_details(square, view, 16) for view in _locate_views(grey, frame.size)]
    )
    signs = views[:, _HASHED] > ROUNDING  # [12, 128]
    signs[:, -1] = count_details(grey) < MIN_DETAILS
    return np.packbits(signs).view(np.uint64)


def count_details(grey: Image.Image) -> float:
    """Count the independent details of a grey thumbnail of 64 px: the participation
    ratio of its gradient.

    Returns:
        (sum of e)² / (sum of e²) over the energies e of DCT coefficients weighted by
        frequency: the number of coefficients if all have one energy, about 2 for a
            grating, 0 for a constant picture.
    """
    details = _measure_details(np.asarray(grey, np.float32), _NO_MARGINS, _SIDE_PX)
    details[np.abs(details) <= ROUNDING] = 0
    energy = np.square(details * _FREQUENCY.ravel())
    return float(energy.sum() ** 2 / np.square(energy).sum()) if energy.any() else 0.0


def _locate_views(grey: Image.Image, size: tuple[int, int]) -> Float64:
    """Return left, upper, right and lower margins of a picture's views, as shares of
    its sides: [12, 4].
    """

    def nest(windows: Float64, margins: Float64) -> Float64:
        return windows + margins * np.tile(1 - windows[:, :2] - windows[:, 2:], 2)

    # what lies within the borders, all of the picture, and the centre squares of both
    windows = np.stack([_measure_borders(np.asarray(grey, np.int16)), _NO_MARGINS])
    sides = (1 - windows[:, :2] - windows[:, 2:]) * size
    squares = nest(windows, np.tile(0.5 - sides.min(1, keepdims=True) / sides / 2, 2))
    return nest(np.concatenate([windows, squares])[_WINDOWS], _MARGINS)


def _measure_borders(grey: NDArray[np.int16]) -> Float64:
    """Return the margins of a border of one level around a rectangle, none around what
    has another shape.
    """
    differs = np.abs(grey - grey[0, 0]) > BORDER_LEVELS
    # a border of one level around a rectangle that is large enough to be a picture
    rows = np.flatnonzero(differs.any(1))
    columns = np.flatnonzero(differs.any(0))
    if not len(rows):
        return _NO_MARGINS
    top = rows[0]
    bottom = rows[-1]
    left = columns[0]
    right = columns[-1]
    content = differs[top : bottom + 1, left : right + 1]
    # a disc or letters touch their bounding box at few pixels only
    edges = np.concatenate([content[[0, -1]].ravel(), content[:, [0, -1]].ravel()])
    is_rectangle = edges.mean() > 0.3 and min(content.shape) >= _SIDE_PX / 2
    margins = (
        np.array([left, top, _SIDE_PX - 1 - right, _SIDE_PX - 1 - bottom]) / _SIDE_PX
    )
    return margins if is_rectangle else _NO_MARGINS


def find_candidates(
    tested: UInt64, learned: UInt64, max_distance: int = MAX_DISTANCE
) -> list[tuple[int, int, int]]:
    """Find the learned pictures that each tested picture may be a near-copy of.

    All of one picture is compared with each view of the other, and inner parts with
    each other: as they are and mirrored.

    Args:
        tested: [M, 24] hashes.
        learned: [N, 24] hashes.
        max_distance: Most bits that differ, of 128.

    Returns:
        Row of the tested picture, row of the learned one, and the bits, of 128, in
        which hashes of two views differ, or those of one and the mirrored other; at
        most `NEAREST` of each tested picture, by tested row and distance.
    """
    tested_rows = np.flatnonzero(tested.any(1))
    learned_rows = np.flatnonzero(learned[:, :2].any(1))
    list_pairs = _list_banded if max_distance <= _MAX_BANDED_DISTANCE else _list_all
    max_even_distance = min(MAX_EVEN_DISTANCE, max_distance)
    found = [np.empty((0, 3), np.int64)]
    count = 0
    for first, second in _PAIRS:
        # words of even and of odd frequencies, [2, M] and [2, N]
        tested_words = tested[tested_rows, 2 * first : 2 * first + 2].T.copy()
        learned_words = learned[learned_rows, 2 * second : 2 * second + 2].T.copy()
        for row, column in list_pairs(tested_words, learned_words, max_distance):
            # Even frequencies, which a mirror does not change, exclude most pairs.
            even = np.bitwise_count(tested_words[0][row] ^ learned_words[0][column])
            is_alike = even <= max_even_distance
            row = row[is_alike]
            column = column[is_alike]
            even = even[is_alike]

            # It flips the signs of odd ones.
            words = tested_words[1][row], learned_words[1][column]
            odd = np.bitwise_count(words[0] ^ words[1])
            distance = even + np.minimum(odd, 64 - odd)
            is_near = (distance <= max_distance) & (
                words[0] & words[1] & _HAS_FEW_DETAILS == 0
            )
            near = tested_rows[row], distance, learned_rows[column]
            found.append(np.column_stack(near)[is_near])

            # memory stays bounded where many pictures are alike
            count += len(found[-1])
            if count > _BLOCK_PAIRS:
                found = [_keep_nearest(found)]
                count = 0

    return [
        (row, learned_row, distance)
        for row, distance, learned_row in _keep_nearest(found).tolist()
    ]


def _keep_nearest(found: list[Int64]) -> Int64:
    """Keep the nearest learned pictures of each tested one, each by its nearest views.

    Args:
        found: Arrays [P, 3] of tested rows, distances and learned rows.

    Returns:
        [P, 3] by tested row and distance.
    """
    # the nearest views of each pair of pictures
    pairs = np.concatenate(found)
    rows, distances, learned_rows = pairs.T
    pairs = pairs[np.lexsort((distances, learned_rows, rows))]
    is_first = np.ones(len(pairs), bool)
    is_first[1:] = np.diff(pairs[:, ::2], axis=0).any(1)
    pairs = pairs[is_first]

    # the nearest of each tested picture
    rows, distances, learned_rows = pairs.T
    pairs = pairs[np.lexsort((learned_rows, distances, rows))]
    rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0])
    return pairs[rank < NEAREST]


def _list_all(
    tested_words: UInt64, learned_words: UInt64, max_distance: int
) -> Iterator[Pairs]:
    """Yield the pairs of words [2, M] and [2, N] whose even frequencies are alike.

    Every pair is compared: words that differ in 20 bits agree in short bands only, as
    most pairs do.
    """
    # long rows of learned words, as NumPy has little overhead in those
    width = max(1, _BLOCK_PAIRS // _BLOCK_ROWS)
    limit = min(MAX_EVEN_DISTANCE, max_distance)
    for start in range(0, learned_words.shape[1], width):
        learned_even = learned_words[0, start : start + width]
        for first_row in range(0, tested_words.shape[1], _BLOCK_ROWS):
            tested_even = tested_words[0, first_row : first_row + _BLOCK_ROWS, None]
            even = np.bitwise_count(tested_even ^ learned_even)
            row, column = np.divmod(np.flatnonzero(even <= limit), even.shape[1])
            yield first_row + row, start + column


def _list_banded(
    tested_words: UInt64, learned_words: UInt64, max_distance: int
) -> Iterator[Pairs]:
    """Yield the pairs of words [2, M] and [2, N] that agree in all bits of a band.

    Of `max_distance + 1` bands, bits that differ leave one unchanged (pigeonhole).

    Source: Norouzi, Punjani and Fleet, Fast search in Hamming space with multi-index
    hashing (2012).
    """
    # Odd frequencies get fewer bands, as a mirror may also flip all their bits. Bands
    # of four or more are of 16 bits at most, which NumPy sorts by their digits.
    band_counts = max_distance // 2 + 1, (max_distance + 1) // 2
    for is_odd, band_count in enumerate(band_counts):
        edges = np.linspace(0, 64, max(4, band_count) + 1).astype(np.uint64)
        for low, high in pairwise(edges):
            mask = (np.uint64(1) << (high - low)) - np.uint64(1)
            keys = []
            for words in (tested_words[is_odd], learned_words[is_odd]):
                band = words >> low & mask
                # a band and its mirrored one have one key
                key = np.minimum(band, band ^ mask) if is_odd else band
                keys.append(key.astype(np.uint16))
            yield from _list_equal(*keys)


def _list_equal(
    tested_keys: NDArray[np.uint16], learned_keys: NDArray[np.uint16]
) -> Iterator[Pairs]:
    """Yield the pairs of equal keys [M] and [N], in blocks."""
    by_key = np.argsort(learned_keys, kind="stable")
    key_counts = np.bincount(learned_keys, minlength=2**16)
    counts = key_counts[tested_keys]
    starts = np.cumsum(key_counts)[tested_keys] - counts  # [M] in `by_key`
    ends = np.cumsum(counts)

    # blocks of whole tested rows
    first_row = 0
    while first_row < len(ends):
        before = ends[first_row] - counts[first_row]
        last_row = np.searchsorted(ends, before + _BLOCK_PAIRS, "right")
        last_row = max(first_row + 1, int(last_row))
        block = slice(first_row, last_row)
        row = np.repeat(np.arange(first_row, last_row), counts[block])
        shift = np.repeat(starts[block] - ends[block] + counts[block], counts[block])
        yield row, by_key[before + np.arange(len(row)) + shift]
        first_row = last_row


def confirm_near_copy(
    tested: Image.Image | Clip, learned: Image.Image | Clip
) -> Likeness:
    """Confirm on pixels that a candidate is a near-copy.

    Args:
        tested: A tested picture, or a clip, whose middle frame counts.
        learned: A learned one.

    Returns:
        "copy"; "mirrored", a part of it too; "cropped": they share a part, within
        borders or an aperture too; "" for different pictures.
    """
    # squares in Y, Cb, Cr, of which windows are taken
    sides = (_CANVAS_PX, _CANVAS_PX)
    first, second = (
        _prepare(
            frame.resize(sides, Image.Resampling.BILINEAR, reducing_gap=2)
            .convert("YCbCr")
            .tobytes(),
            frame.size,
        )
        for frame in map(_frame, (tested, learned))
    )
    counts = first.detail_count, second.detail_count
    # gratings are alike by nature, so pictures of few details are not compared
    if min(counts) < MIN_DETAILS and max(counts) < MIN_DETAILS_OF_BLURRED:
        return ""
    if _are_equal(first, second):
        return "copy"
    mirrored = first.mirror()
    if _are_equal(mirrored, second):
        return "mirrored"
    if _share_part(first, second):
        return "cropped"
    return "mirrored" if _share_part(mirrored, second) else ""


class _Prepared(NamedTuple):
    """A picture as a square in Y, Cb, Cr; its luminance as it is and equalised; details
    of views of both.
    """

    square: Float32  # [3, 128, 128]
    lights: Float32  # [2, 128, 128]
    views: Float64  # [12, 4]
    details: Float32  # [2, 12, 625]
    detail_count: float

    @classmethod
    def of(cls, square: Image.Image, size: tuple[int, int]) -> Self:
        light = square.getchannel(0)
        # details of all views [2, 12, 625], of the luminance as it is and equalised
        grey = light.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR)
        views = _locate_views(grey, size)
        lights = np.stack(
            [np.asarray(each, np.float32) for each in (light, ImageOps.equalize(light))]
        )
        details = np.stack(
            [_measure_details(lights, view, _BAND + 1) for view in views], 1
        )
        channels = np.moveaxis(np.asarray(square, np.float32), -1, 0)
        return cls(channels, lights, views, details, count_details(grey))

    def mirror(self) -> Self:
        """Mirror the picture left to right: odd frequencies change their signs."""
        square = self.square[..., ::-1]
        lights = self.lights[..., ::-1]
        views = self.views[_MIRRORED_VIEWS][:, [2, 1, 0, 3]]
        details = self.details[:, _MIRRORED_VIEWS] * _MIRROR_SIGNS
        return self._replace(square=square, lights=lights, views=views, details=details)


# of two pictures: the luminance of either may have been equalised
_LIGHTS = ((0, 0), (0, 1), (1, 0))


@lru_cache(64)
def _prepare(square: bytes, size: tuple[int, int]) -> _Prepared:
    """Prepare a square in Y, Cb, Cr of a picture of some size, which is often compared
    with several others, once.
    """
    picture = Image.frombytes("YCbCr", (_CANVAS_PX, _CANVAS_PX), square)
    return _Prepared.of(picture, size)


def _are_equal(first: _Prepared, second: _Prepared) -> bool:
    """Say whether pictures are alike as a whole."""
    pairs = [
        (first.details[light][_WHOLE], second.details[other][_WHOLE])
        for light, other in _LIGHTS
    ]
    is_alike = max(float(_correlate(*pair)) for pair in pairs) >= MIN_CORRELATION
    return is_alike and _have_equal_colours(first, _NO_MARGINS, second, _NO_MARGINS)


def _share_part(first: _Prepared, second: _Prepared) -> bool:
    """Say whether windows of two pictures are alike: near the views that are most
    so.
    """
    details = [
        (first.details[light][_FIRSTS], second.details[other][_SECONDS])
        for light, other in _LIGHTS
    ]
    scores = np.stack([_correlate(*pair, highest=10) for pair in details])  # [3, P]
    if scores.max() < MIN_FIRST_CORRELATION:
        return False

    # search in either picture for the window that shows the other's
    best, pair = np.unravel_index(int(np.argmax(scores)), scores.shape)
    (light, other), (view, other_view) = _LIGHTS[best], _PAIRS[pair]
    sides = (
        (first, light, first.views[view]),
        (second, other, second.views[other_view]),
    )
    return _align(*sides[0], *sides[1]) or _align(*sides[1], *sides[0])


def _align(
    full: _Prepared,
    full_light: int,
    start: Float64,
    part: _Prepared,
    part_light: int,
    part_window: Float64,
) -> bool:
    """Say whether a window of a picture, not far from that at the start, shows a window
    of another.
    """
    details = _measure_details(part.lights[part_light], part_window, _BAND + 1)
    window = start
    least_margins = np.maximum(start - REACH, 0)

    # Move one edge at a time, by ever smaller steps, while the correlation grows.
    for step, highest, least in SEARCH:
        best = -1.0
        moved = window[None]
        while True:
            views = np.stack(
                [
                    _measure_details(full.lights[full_light], each, _BAND + 1)
                    for each in moved
                ]
            )
            scores = _correlate(views, details, highest)
            if scores.max() <= best:
                break
            best = scores.max()
            window = moved[np.argmax(scores)]
            moved = np.clip(window + step * _EDGE_SHIFTS, least_margins, start + REACH)
        if best < least:
            return False
    return _have_equal_colours(full, window, part, part_window)


def _have_equal_colours(
    first: _Prepared, window: Float64, second: _Prepared, other: Float64
) -> bool:
    """Say whether the colours of two windows agree; those of a picture in grey or of
    one tint do with any.
    """
    all_details = []
    own_chromas = []
    for prepared, margins in ((first, window), (second, other)):
        details = (
            _measure_details(prepared.square, margins, _BAND + 1) * _CHROMA_WEIGHTS
        )  # [3, 625] of Y, Cb, Cr
        light = details[0]
        chroma = details[1:]
        energy = max(float(light @ light), 1.0)
        # without that of a tint
        own_chroma = chroma - np.outer(chroma @ light, light) / energy
        if np.linalg.norm(own_chroma) < MIN_COLOUR * np.sqrt(energy):
            return True
        all_details.append(details)
        own_chromas.append(own_chroma)

    def correlate(left: Float32, right: Float32) -> float:
        return float(
            np.vdot(left, right) / (np.linalg.norm(left) * np.linalg.norm(right))
        )

    # faint colours, which a small mark changes, count less
    chromas = [details[1:] for details in all_details]
    highest = max(correlate(*own_chromas), correlate(*chromas))
    return (
        highest >= MIN_COLOUR_CORRELATION or correlate(*all_details) >= MIN_CORRELATION
    )


def _frame(stimulus: Image.Image | Clip) -> Image.Image:
    """Take a picture as RGB, or the middle frame of a clip."""
    if isinstance(stimulus, Clip):
        return Image.fromarray(stimulus.frames[len(stimulus.frames) // 2])
    return stimulus if stimulus.mode == "RGB" else stimulus.convert("RGB")


def _correlate(
    first: Float32, second: Float32, highest: int = _BAND
) -> NDArray[np.floating]:
    """Correlate details [..., 625] by rings of frequencies; average over those that
    neither lacks: [...].
    """
    # norms by ring, each ring scaled to one size
    rings = _RINGS[:, : highest - 1]
    counts = rings.sum(0)
    norms = [np.sqrt(np.square(details) @ rings) for details in (first, second)]
    weights = np.sqrt(counts)
    for norm in norms:
        amplitude = norm / np.sqrt(counts)
        total = np.linalg.norm(norm, axis=-1, keepdims=True)
        weights = weights * amplitude / (amplitude + FADE * total + 1e-6)
    cosines = (first * second) @ rings / (norms[0] * norms[1] + 1e-6)
    return (weights * cosines).sum(-1) / (weights.sum(-1) + 1e-6)
