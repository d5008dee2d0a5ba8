"""Search for near-copies: pictures after compression, resizing or other edits.

Pictures are candidates if hashes of their windows (views) are similar. Their pixels are
then compared by *details*: DCT coefficients, each ring of frequencies scaled to unit
norm. A layout that many pictures share, such as a thing on white, weighs little.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from brainhive_cli.core.base import Float32, Float64, Int64, UInt64
from brainhive_cli.data.media.stimuli import Clip

Likeness = Literal["copy", "mirrored", "cropped", ""]
"""Result of a comparison of two pictures, empty if they differ."""
Pairs = tuple[Int64, Int64]
"""Rows [P] of test pictures, and rows [P] of training pictures."""

COPIES: tuple[Likeness, ...] = ("copy", "cropped")
"""Likenesses of pictures that count as the same. A mirrored picture is another
stimulus.
"""
CENTRE_MARGINS = (0.05, 0.12)
"""Shares that views leave out at each side, to match pictures cropped by 3 to 15 %."""
SIDE_MARGIN = 0.16
"""Share that a view leaves out at one side, to match pictures cropped there by up to
20 %.
"""
SQUARE_MARGINS = (0, 0.0625, (1 - 0.5**0.5) / 2)
"""Shares of the centre square that views leave out at each side, to keep all of it, 224
of 256 px, and the square inside its circle (for apertures).
"""
VIEWS = 12
WORDS = 2 * VIEWS
"""Number of 64-bit words of a hash: two for each view."""
BORDER_LEVELS = 10
"""Largest grey-level difference between a border and the upper left corner."""
MIN_DETAILS = 46
"""Number of independent details below which pictures look alike by nature. Gratings and
Gabor patches have at most 26 (32 dithered to a palette), blocks of colour 42,
handwritten digits at least 59, photographs 50 (benchmarks/near_copies.py).
"""
MIN_DETAILS_OF_SHARPER = 80
"""Smallest number of details of a picture whose partner has fewer than MIN_DETAILS."""
MAX_DISTANCE = 34
"""Largest number of the 128 bits of a view that differ between candidates. Of 14,280
pairs of different photographs, 0 to 2 are candidates (benchmarks/near_copies.py).
"""
MAX_EVEN_DISTANCE = 20
"""Largest number of the 64 bits of even frequencies that differ between candidates."""
NEAREST = 4
"""Number of candidates per test picture: the training pictures with nearest hashes."""
FADE = 0.03
"""Amplitude of a ring, relative to all rings, that halves its weight. Blur weakens fine
details.
"""
MIN_CORRELATION = 0.97
"""Smallest correlation of the luminance of copies. Different pictures of 2,000 digits
reach at most 0.96.
"""
MIN_FIRST_CORRELATION = 0.6
"""Smallest correlation of coarse details of two views that starts a search."""
SEARCH = ((0.04, 8, 0.8), (0.02, 12, 0.93), (0.01, 24, 0.95), (0.005, 24, 0.98))
"""Stages of the search for a window: step as a share of a side, highest frequency,
smallest final correlation.
"""
REACH = 0.2
"""Largest share of a side by which the search moves an edge."""
MIN_COLOUR = 0.05
"""Smallest chroma of a coloured picture, relative to luminance. Demo pictures that
differ only in colour have 0.2 or more.
"""
MIN_COLOUR_CORRELATION = 0.85
"""Smallest correlation of the chroma of copies. Demo pictures of different colours
reach 0.80.
"""
ROUNDING = 0.1
"""DCT coefficients closer to 0 count as 0. They are sums of 64 x 64 grey levels up to
1e6, which float32 rounds by 0.06, differently on each CPU.
"""

_SIDE_PX = 64  # side of the thumbnails whose details are measured
_CANVAS_PX = 128  # side of the squares whose windows are compared
_NO_MARGINS = np.zeros(4)
_EDGE_SHIFTS = np.concatenate([np.eye(4), -np.eye(4)])  # of a window's edges, [8, 4]
# hashes compared at a time, which as 2 MiB of 64-bit words fit the cache of a core
_BLOCK_PAIRS = 2**18
_BLOCK_ROWS = 32  # test pictures in such a block
# largest distance that bands find faster than a comparison of all pairs
_MAX_BANDED_DISTANCE = 10

# margins [12, 4] of the views in windows, and their windows in `_locate_views`
_MARGINS = np.concatenate(
    [
        np.repeat((0,) + CENTRE_MARGINS, 4).reshape(-1, 4),
        SIDE_MARGIN * np.eye(4),
        np.repeat(SQUARE_MARGINS + (0, SQUARE_MARGINS[-1]), 4).reshape(-1, 4),
    ]
)
_WINDOWS = [0] * 7 + [2] * 3 + [1, 3]
# views: inner square within borders, whole picture, its inner square
_INNER = 9
_WHOLE = 10
_WHOLE_INNER = 11
# compared views: the whole picture with each part, and inner parts with each other
_PAIRS = [(0, view) for view in range(_WHOLE)]
_PAIRS += [(view, 0) for view in range(1, _WHOLE)]
_PAIRS += [(view, view) for view in (_INNER, _WHOLE, _WHOLE_INNER)]
_FIRSTS, _SECONDS = np.transpose(_PAIRS)
# a mirror exchanges the views that leave out the left side and the right side
_MIRRORED_VIEWS = [0, 1, 2, 5, 4, 3] + list(range(6, VIEWS))

# in half cycles per picture, [64, 64]
_FREQUENCY = np.hypot(*np.mgrid[:_SIDE_PX, :_SIDE_PX])
# indices of the lowest frequencies, without the mean, [255]
_LOWEST = np.argsort(_FREQUENCY[:16, :16], None, kind="stable")[1:]
_LOWEST_EVEN = _LOWEST[_LOWEST % 2 == 0]
_LOWEST_ODD = _LOWEST[_LOWEST % 2 == 1]
_HASHED = np.concatenate([_LOWEST_EVEN[:64], _LOWEST_ODD[:64]])  # [128]
# the bit in the word of odd frequencies
_HAS_FEW_DETAILS = np.packbits(np.arange(64) == 63).view(np.uint64)

# highest compared frequency, because JPEG and resizing change higher ones
_BAND = 24
_CHROMA_BAND = 8
_COMPARED = _FREQUENCY[: _BAND + 1, : _BAND + 1].ravel()  # [625]
# ring of each compared frequency, [625, 23]
_RINGS = (_COMPARED[:, None].astype(int) == range(1, _BAND)).astype(np.float32)
_CHROMA_WEIGHTS = _COMPARED * (_COMPARED <= _CHROMA_BAND)
_MIRROR_SIGNS = np.tile(np.float32((-1) ** np.arange(_BAND + 1)), _BAND + 1)  # [625]


def hash_picture(stimulus: Image.Image | Clip) -> UInt64:
    """Hash the views of a picture of any size, or of the middle frame of a clip.

    Returns:
        Words [24], two for each view: signs of the 64 lowest DCT coefficients that are
        even from left to right, and of the 63 lowest that are odd. The last bit is set
        if the picture has few details. All zero for a constant picture.

    Source: Zauner, Implementation and benchmarking of perceptual image hash functions
    (2010), DCT hash. Signs replace the comparison with the median, because mirroring
    flips all odd signs and no other.
    """
    frame = _get_frame(stimulus)
    grey = frame.convert("L").resize(
        (_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR, reducing_gap=2
    )
    # the signs of a constant picture would be rounding errors
    if np.ptp(np.asarray(grey)) <= BORDER_LEVELS:
        return np.zeros(WORDS, np.uint64)

    square = np.asarray(grey, np.float32)
    views = []
    for margins in _locate_views(grey, frame.size):
        views.append(_measure_details(square, margins, 16))
    signs = np.stack(views)[:, _HASHED] > ROUNDING  # [12, 128]
    signs[:, -1] = count_details(grey) < MIN_DETAILS
    return np.packbits(signs).view(np.uint64)


def count_details(grey: Image.Image) -> float:
    """Count the independent details of a grey thumbnail of 64 x 64 px.

    Returns:
        (sum of e)² / (sum of e²), the participation ratio, where each e is the square
        of a DCT coefficient times its frequency. A grating has about 2, and a constant
        picture 0.
    """
    details = _measure_details(np.asarray(grey, np.float32), _NO_MARGINS, _SIDE_PX)
    details[np.abs(details) <= ROUNDING] = 0
    energy = np.square(details * _FREQUENCY.ravel())
    if not energy.any():
        return 0.0
    return float(energy.sum() ** 2 / np.square(energy).sum())


def find_candidates(
    test_hashes: UInt64, train_hashes: UInt64, max_distance: int = MAX_DISTANCE
) -> list[tuple[int, int, int]]:
    """Find the training pictures of which each test picture may be a near-copy.

    The whole of one picture is compared with each view of the other, and inner parts
    with each other, with and without mirroring.

    Args:
        test_hashes: Hashes [M, 24].
        train_hashes: Hashes [N, 24].
        max_distance: Largest number of bits, of 128, that differ.

    Returns:
        Test row, training row, and number of bits that differ between their nearest
        views, sorted by test row and number. A test picture has at most `NEAREST`.
    """
    test_rows = np.flatnonzero(test_hashes.any(1))
    train_rows = np.flatnonzero(train_hashes[:, :2].any(1))
    list_pairs = _list_banded if max_distance <= _MAX_BANDED_DISTANCE else _list_all
    max_even_distance = min(MAX_EVEN_DISTANCE, max_distance)

    blocks = [np.empty((0, 3), np.int64)]
    count = 0
    for test_view, train_view in _PAIRS:
        # words of even and of odd frequencies, [2, M] and [2, N]
        test_words = test_hashes[test_rows, 2 * test_view : 2 * test_view + 2].T.copy()
        train_words = train_hashes[
            train_rows, 2 * train_view : 2 * train_view + 2
        ].T.copy()
        for row, column in list_pairs(test_words, train_words, max_distance):
            # even frequencies, which a mirror keeps, exclude most pairs
            n_even = np.bitwise_count(test_words[0][row] ^ train_words[0][column])
            is_alike = n_even <= max_even_distance
            row = row[is_alike]
            column = column[is_alike]
            n_even = n_even[is_alike]

            # a mirror flips the signs of odd frequencies
            test_odd = test_words[1][row]
            train_odd = train_words[1][column]
            n_odd = np.bitwise_count(test_odd ^ train_odd)
            distance = n_even + np.minimum(n_odd, 64 - n_odd)
            both_have_few_details = test_odd & train_odd & _HAS_FEW_DETAILS != 0
            is_near = (distance <= max_distance) & ~both_have_few_details
            triples = np.column_stack([test_rows[row], distance, train_rows[column]])
            blocks.append(triples[is_near])

            # limit the memory if many pictures are alike
            count += len(blocks[-1])
            if count > _BLOCK_PAIRS:
                blocks = [_keep_nearest(blocks)]
                count = 0

    candidates = []
    for row, distance, train_row in _keep_nearest(blocks).tolist():
        candidates.append((row, train_row, distance))
    return candidates


def confirm_near_copy(
    test_stimulus: Image.Image | Clip, train_stimulus: Image.Image | Clip
) -> Likeness:
    """Compare the pixels of two pictures, or of the middle frames of clips.

    Returns:
        "copy", "cropped" if they share a part, "mirrored" if they share all or a part
        in mirror image, or "" if they differ.
    """
    pictures = []
    for stimulus in (test_stimulus, train_stimulus):
        frame = _get_frame(stimulus)
        pictures.append(_prepare(_make_square(frame).tobytes(), frame.size))
    test_picture, train_picture = pictures

    # pictures of few details, such as gratings, all look alike
    detail_counts = (test_picture.detail_count, train_picture.detail_count)
    has_few = min(detail_counts) < MIN_DETAILS
    if has_few and max(detail_counts) < MIN_DETAILS_OF_SHARPER:
        return ""
    if _are_equal(test_picture, train_picture):
        return "copy"
    mirrored = test_picture.mirror()
    if _are_equal(mirrored, train_picture):
        return "mirrored"
    if _share_part(test_picture, train_picture):
        return "cropped"
    return "mirrored" if _share_part(mirrored, train_picture) else ""


@lru_cache(2**12)
def _make_dct(low: float, high: float, side_px: int, count: int) -> Float32:
    """Make the matrix [count, side_px] of the lowest frequencies of a DCT-II.

    Args:
        low: Share of the pixels that are left out at the start.
        high: Share of the pixels that are left out at the end.
        side_px: Number of pixels.
        count: Number of frequencies.
    """
    # pixels may lie partly inside the margins
    start = low * side_px
    stop = (1 - high) * side_px
    edges = np.clip(np.arange(side_px + 1), start, stop) - start
    centres = (edges[1:] + edges[:-1]) / 2
    widths = np.diff(edges)
    dct = np.cos(np.pi / (stop - start) * np.outer(np.arange(count), centres)) * widths
    dct[0] /= np.sqrt(2)
    return np.asarray(dct * _SIDE_PX / (stop - start), np.float32)


def _measure_details(squares: Float32, margins: Float64, count: int) -> Float32:
    """Compute DCT coefficients of a window of squares.

    Args:
        squares: Pixels [..., S, S].
        margins: Left, upper, right and lower margin [4] of the window, as shares.
        count: Number of frequencies in each direction.

    Returns:
        Coefficients [..., count * count].
    """
    # rounded margins share cached matrices
    left, upper, right, lower = np.round(margins, 4).tolist()
    side_px = squares.shape[-1]
    rows = _make_dct(upper, lower, side_px, count)
    columns = _make_dct(left, right, side_px, count)
    return np.asarray((rows @ squares @ columns.T).reshape(*squares.shape[:-2], -1))


def _nest(windows: Float64, margins: Float64) -> Float64:
    """Convert margins in windows, both [W, 4], to margins in the picture."""
    return windows + margins * np.tile(1 - windows[:, :2] - windows[:, 2:], 2)


def _locate_views(grey: Image.Image, size: tuple[int, int]) -> Float64:
    """Compute the left, upper, right and lower margins [12, 4] of the views, as shares.

    Args:
        grey: Thumbnail of the picture.
        size: Width and height of the picture.
    """
    # the picture inside its borders, the whole picture, and the centre squares of both
    windows = np.stack([_measure_borders(np.asarray(grey, np.int16)), _NO_MARGINS])
    sides = (1 - windows[:, :2] - windows[:, 2:]) * size
    margins = 0.5 - sides.min(1, keepdims=True) / sides / 2
    squares = _nest(windows, np.tile(margins, 2))
    return _nest(np.concatenate([windows, squares])[_WINDOWS], _MARGINS)


def _measure_borders(grey: NDArray[np.int16]) -> Float64:
    """Measure the margins [4] of a border of constant grey level around a rectangle.

    They are 0 around another shape, or a rectangle shorter than half of the picture.
    """
    is_content = np.abs(grey - grey[0, 0]) > BORDER_LEVELS
    rows = np.flatnonzero(is_content.any(1))
    columns = np.flatnonzero(is_content.any(0))
    if not len(rows):
        return _NO_MARGINS
    top = rows[0]
    bottom = rows[-1]
    left = columns[0]
    right = columns[-1]
    box = is_content[top : bottom + 1, left : right + 1]

    # a disc or letters touch the edges of their box with few pixels
    edges = np.concatenate([box[[0, -1]].ravel(), box[:, [0, -1]].ravel()])
    if edges.mean() <= 0.3 or min(box.shape) < _SIDE_PX / 2:
        return _NO_MARGINS
    margins = np.array([left, top, _SIDE_PX - 1 - right, _SIDE_PX - 1 - bottom])
    return margins / _SIDE_PX


def _keep_nearest(blocks: list[Int64]) -> Int64:
    """Keep the nearest training pictures of each test picture.

    Args:
        blocks: Arrays [P, 3] of test rows, distances of hashes, and training rows.

    Returns:
        Array [P, 3], sorted by test row and distance.
    """
    # keep the smallest distance of each pair of pictures
    pairs = np.concatenate(blocks)
    rows, distances, train_rows = pairs.T
    pairs = pairs[np.lexsort((distances, train_rows, rows))]
    is_first = np.ones(len(pairs), bool)
    is_first[1:] = np.diff(pairs[:, ::2], axis=0).any(1)
    pairs = pairs[is_first]

    # keep the nearest training pictures
    rows, distances, train_rows = pairs.T
    pairs = pairs[np.lexsort((train_rows, distances, rows))]
    rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0])
    return pairs[rank < NEAREST]


def _list_all(
    test_words: UInt64, train_words: UInt64, max_distance: int
) -> Iterator[Pairs]:
    """Compare all words [2, M] and [2, N], and yield pairs with similar even words."""
    # NumPy is fast on long rows of words
    width = max(1, _BLOCK_PAIRS // _BLOCK_ROWS)
    limit = min(MAX_EVEN_DISTANCE, max_distance)
    for start in range(0, train_words.shape[1], width):
        train_even = train_words[0, start : start + width]
        for first_row in range(0, test_words.shape[1], _BLOCK_ROWS):
            test_even = test_words[0, first_row : first_row + _BLOCK_ROWS, None]
            n_even = np.bitwise_count(test_even ^ train_even)
            row, column = np.divmod(np.flatnonzero(n_even <= limit), n_even.shape[1])
            yield first_row + row, start + column


def _list_banded(
    test_words: UInt64, train_words: UInt64, max_distance: int
) -> Iterator[Pairs]:
    """Yield pairs of words [2, M] and [2, N] that agree in a band (a run of bits).

    Words that differ in n bits agree in at least one of n + 1 bands.

    Source: Norouzi, Punjani and Fleet, Fast search in Hamming space with multi-index
    hashing (2012).
    """
    # a mirror may flip all odd bits, so these have fewer bands
    # four or more bands have at most 16 bits, which NumPy sorts fast
    band_counts = (max_distance // 2 + 1, (max_distance + 1) // 2)
    for is_odd, band_count in enumerate(band_counts):
        edges = np.linspace(0, 64, max(4, band_count) + 1).astype(np.uint64)
        for low, high in pairwise(edges):
            mask = (np.uint64(1) << (high - low)) - np.uint64(1)
            keys = []
            for view_words in (test_words[is_odd], train_words[is_odd]):
                band = view_words >> low & mask
                # a band and its mirror image share a key
                key = np.minimum(band, band ^ mask) if is_odd else band
                keys.append(key.astype(np.uint16))
            yield from _list_equal(keys[0], keys[1])


def _list_equal(
    test_keys: NDArray[np.uint16], train_keys: NDArray[np.uint16]
) -> Iterator[Pairs]:
    """Yield blocks of pairs of positions in `test_keys` [M] and `train_keys` [N] with
    equal keys.
    """
    by_key = np.argsort(train_keys, kind="stable")
    key_counts = np.bincount(train_keys, minlength=2**16)
    counts = key_counts[test_keys]
    starts = np.cumsum(key_counts)[test_keys] - counts  # [M] in `by_key`
    ends = np.cumsum(counts)

    # each block contains all pairs of its test rows
    first_row = 0
    while first_row < len(ends):
        previous_pairs = ends[first_row] - counts[first_row]
        last_row = np.searchsorted(ends, previous_pairs + _BLOCK_PAIRS, "right")
        last_row = max(first_row + 1, int(last_row))
        block = slice(first_row, last_row)
        row = np.repeat(np.arange(first_row, last_row), counts[block])
        shift = np.repeat(starts[block] - ends[block] + counts[block], counts[block])
        yield row, by_key[previous_pairs + np.arange(len(row)) + shift]
        first_row = last_row


class _PreparedPicture(NamedTuple):
    """A picture, prepared for the comparison of its windows."""

    square: Float32  # Y, Cb and Cr, [3, 128, 128]
    lights: Float32  # luminance, then equalised luminance, [2, 128, 128]
    views: Float64  # margins of the views, [12, 4]
    details: Float32  # DCT coefficients of the lights in each view, [2, 12, 625]
    detail_count: float

    @classmethod
    def from_square(cls, square: Image.Image, size: tuple[int, int]) -> Self:
        """Prepare a square in Y, Cb, Cr of a picture of this width and height."""
        light = square.getchannel(0)
        grey = light.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR)
        views = _locate_views(grey, size)
        lights = np.stack(
            [
                np.asarray(light, np.float32),
                np.asarray(ImageOps.equalize(light), np.float32),
            ]
        )
        details = [_measure_details(lights, margins, _BAND + 1) for margins in views]
        channels = np.moveaxis(np.asarray(square, np.float32), -1, 0)
        return cls(channels, lights, views, np.stack(details, 1), count_details(grey))

    def mirror(self) -> Self:
        """Mirror the picture left to right: odd frequencies change their signs."""
        square = self.square[..., ::-1]
        lights = self.lights[..., ::-1]
        views = self.views[_MIRRORED_VIEWS][:, [2, 1, 0, 3]]
        details = self.details[:, _MIRRORED_VIEWS] * _MIRROR_SIGNS
        return self._replace(square=square, lights=lights, views=views, details=details)


# compared luminances: as they are, or either picture equalised
_LIGHTS = ((0, 0), (0, 1), (1, 0))


def _get_frame(stimulus: Image.Image | Clip) -> Image.Image:
    """Return a picture as RGB, or the middle frame of a clip."""
    if isinstance(stimulus, Clip):
        return Image.fromarray(stimulus.frames[len(stimulus.frames) // 2])
    return stimulus if stimulus.mode == "RGB" else stimulus.convert("RGB")


def _make_square(picture: Image.Image) -> Image.Image:
    """Resize a picture to a square of 128 x 128 px in Y, Cb, Cr."""
    square = picture.resize(
        (_CANVAS_PX, _CANVAS_PX), Image.Resampling.BILINEAR, reducing_gap=2
    )
    return square.convert("YCbCr")


@lru_cache(64)
def _prepare(square: bytes, size: tuple[int, int]) -> _PreparedPicture:
    """Prepare a picture from the bytes of its square. The result is cached."""
    picture = Image.frombytes("YCbCr", (_CANVAS_PX, _CANVAS_PX), square)
    return _PreparedPicture.from_square(picture, size)


def _are_equal(picture: _PreparedPicture, other: _PreparedPicture) -> bool:
    """Return True if two pictures are alike as a whole."""
    correlations = []
    for light, other_light in _LIGHTS:
        correlation = _correlate(
            picture.details[light][_WHOLE], other.details[other_light][_WHOLE]
        )
        correlations.append(float(correlation))
    is_alike = max(correlations) >= MIN_CORRELATION
    return is_alike and _have_equal_colours(picture, _NO_MARGINS, other, _NO_MARGINS)


def _share_part(picture: _PreparedPicture, other: _PreparedPicture) -> bool:
    """Return True if a window of either picture resembles a view of the other."""
    score_lists = []
    for light, other_light in _LIGHTS:
        details = picture.details[light][_FIRSTS]
        other_details = other.details[other_light][_SECONDS]
        score_lists.append(_correlate(details, other_details, highest=10))
    scores = np.stack(score_lists)  # [3, P]
    if scores.max() < MIN_FIRST_CORRELATION:
        return False

    # search in each picture for the window that shows the view of the other
    light_row, pair_row = np.unravel_index(int(np.argmax(scores)), scores.shape)
    light, other_light = _LIGHTS[light_row]
    view, other_view = _PAIRS[pair_row]
    window = picture.views[view]
    other_window = other.views[other_view]
    return _find_window(
        picture, light, window, other, other_light, other_window
    ) or _find_window(other, other_light, other_window, picture, light, window)


def _find_window(
    picture: _PreparedPicture,
    light: int,
    start: Float64,
    target: _PreparedPicture,
    target_light: int,
    target_window: Float64,
) -> bool:
    """Return True if a window near `start` [4] shows the same as a window of `target`.

    Args:
        picture: Picture whose windows are searched.
        light: Index of its luminance in `lights`.
        start: Margins of the initial window.
        target: The other picture.
        target_light: Index of its luminance in `lights`.
        target_window: Margins [4] of its window.
    """
    target_details = _measure_details(
        target.lights[target_light], target_window, _BAND + 1
    )
    window = start
    min_margins = np.maximum(start - REACH, 0)

    # move one edge at a time, by ever smaller steps, while the correlation grows
    for step, highest, min_score in SEARCH:
        best_score = -1.0
        windows = window[None]
        while True:
            details = []
            for margins in windows:
                details.append(
                    _measure_details(picture.lights[light], margins, _BAND + 1)
                )
            scores = _correlate(np.stack(details), target_details, highest)
            if scores.max() <= best_score:
                break
            best_score = scores.max()
            window = windows[np.argmax(scores)]
            windows = np.clip(window + step * _EDGE_SHIFTS, min_margins, start + REACH)
        if best_score < min_score:
            return False
    return _have_equal_colours(picture, window, target, target_window)


def _have_equal_colours(
    picture: _PreparedPicture,
    window: Float64,
    other: _PreparedPicture,
    other_window: Float64,
) -> bool:
    """Return True if colours of two windows agree, or either is grey or of one tint."""
    all_details = []
    own_chromas = []
    for prepared, margins in ((picture, window), (other, other_window)):
        # [3, 625] of Y, Cb, Cr
        details = (
            _measure_details(prepared.square, margins, _BAND + 1) * _CHROMA_WEIGHTS
        )
        light = details[0]
        chroma = details[1:]
        energy = max(float(light @ light), 1.0)
        # subtract the chroma of a tint, which follows the luminance
        own_chroma = chroma - np.outer(chroma @ light, light) / energy
        if np.linalg.norm(own_chroma) < MIN_COLOUR * np.sqrt(energy):
            return True
        all_details.append(details)
        own_chromas.append(own_chroma)

    own_correlation = _compute_cosine(own_chromas[0], own_chromas[1])
    correlation = _compute_cosine(all_details[0][1:], all_details[1][1:])
    if max(own_correlation, correlation) >= MIN_COLOUR_CORRELATION:
        return True
    # a small mark changes faint colours: compare them together with luminance
    return _compute_cosine(all_details[0], all_details[1]) >= MIN_CORRELATION


def _compute_cosine(vector: Float32, other: Float32) -> float:
    """Compute the cosine of two arrays of the same shape, taken as vectors."""
    norms = np.linalg.norm(vector) * np.linalg.norm(other)
    return float(np.vdot(vector, other) / norms)


def _correlate(
    details: Float32, other_details: Float32, highest: int = _BAND
) -> NDArray[np.floating]:
    """Average the cosines of details [..., 625] over frequencies below `highest`.

    A ring weighs little if its amplitude is low in either picture.
    """
    rings = _RINGS[:, : highest - 1]
    counts = rings.sum(0)
    norms = []
    for values in (details, other_details):
        norms.append(np.sqrt(np.square(values) @ rings))
    weights = np.sqrt(counts)
    for norm in norms:
        amplitude = norm / np.sqrt(counts)
        total = np.linalg.norm(norm, axis=-1, keepdims=True)
        weights = weights * amplitude / (amplitude + FADE * total + 1e-6)
    cosines = (details * other_details) @ rings / (norms[0] * norms[1] + 1e-6)
    return (weights * cosines).sum(-1) / (weights.sum(-1) + 1e-6)
