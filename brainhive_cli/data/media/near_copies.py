"""Search for near-copies: pictures after compression, resizing or other edits.

Pictures are candidates if hashes of their windows (views) are similar. Their pixels are
then compared by *details*: DCT coefficients, each ring of frequencies scaled to unit
norm. A layout that many pictures share, such as a thing on white, weighs little.
"""

import math
from functools import cache, lru_cache
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from brainhive_cli.core.base import Float32, Float64, UInt64
from brainhive_cli.data.media.stimuli import Clip

Likeness = Literal["copy", "mirrored", "cropped", ""]
"""Result of a comparison of two pictures, empty if they differ."""

COPIES: tuple[Likeness, ...] = ("copy", "cropped")
"""Likenesses of pictures that count as the same. A mirrored picture is another
stimulus.
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
MAX_DISTANCE = 34
"""Largest number of the 128 bits of a view that differ between candidates. Of 14,280
pairs of different photographs, 0 to 2 are candidates (benchmarks/near_copies.py).
"""
NEAREST = 4
"""Number of candidates per test picture: the training pictures with nearest hashes."""
MIN_CORRELATION = 0.97
"""Smallest correlation of the luminance of copies. Different pictures of 2,000 digits
reach at most 0.96.
"""
ROUNDING = 0.1
"""DCT coefficients closer to 0 count as 0. They are sums of 64 x 64 grey levels up to
1e6, which float32 rounds by 0.06, differently on each CPU.
"""

_SIDE_PX = 64  # side of the thumbnails whose details are measured
_CANVAS_PX = 128  # side of the squares whose windows are compared
_NO_MARGINS = np.zeros(4)
# views: inner square within borders, whole picture, its inner square
_INNER = 9
_WHOLE = 10
_WHOLE_INNER = 11
# compared views: the whole picture with each part, and inner parts with each other
_PAIRS = [(0, view) for view in range(_WHOLE)]
_PAIRS += [(view, 0) for view in range(1, _WHOLE)]
_PAIRS += [(view, view) for view in (_INNER, _WHOLE, _WHOLE_INNER)]
# the bit in the word of odd frequencies
_HAS_FEW_DETAILS = np.uint64(1 << 56)
# highest compared frequency, because JPEG and resizing change higher ones
_BAND = 24
# views are first compared by lower frequencies
_COARSE_BAND = 10
_CHROMA_BAND = 8


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
    details = _measure_details(square, _locate_views(grey, frame.size), 16)
    lowest = np.argsort(_make_frequencies(16), kind="stable")[1:]  # without the mean
    is_odd = lowest % 2 == 1
    hashed = np.concatenate([lowest[~is_odd][:64], lowest[is_odd][:64]])
    signs = details[:, hashed] > ROUNDING  # [12, 128]
    signs[:, -1] = count_details(grey) < MIN_DETAILS
    return np.packbits(signs).view(np.uint64)


def count_details(grey: Image.Image) -> float:
    """Count the independent details of a grey thumbnail of 64 x 64 px.

    Returns:
        (sum of e)² / (sum of e²), the participation ratio, where each e is the square
        of a DCT coefficient times its frequency. A grating has about 2, and a constant
        picture 0.
    """
    details = _measure_details(
        np.asarray(grey, np.float32), _NO_MARGINS[None], _SIDE_PX
    )
    details[np.abs(details) <= ROUNDING] = 0
    energy = np.square(details * _make_frequencies(_SIDE_PX))
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
    train_words = train_hashes.T.copy()  # [24, N]
    is_constant = ~train_words[:2].any(0)
    # at most 20 of the 64 bits of even frequencies differ between candidates
    max_even_distance = min(20, max_distance)
    candidates = []
    for row in np.flatnonzero(test_hashes.any(1)).tolist():
        # smallest number of bits that differ from each training picture, [N]
        nearest = np.full(len(train_hashes), 255, np.uint8)
        for view, train_view in _PAIRS:
            even, odd = test_hashes[row, 2 * view : 2 * view + 2]
            train_even, train_odd = train_words[2 * train_view : 2 * train_view + 2]
            # even frequencies, which a mirror keeps, exclude most pictures
            n_even = np.bitwise_count(even ^ train_even)
            alike = np.flatnonzero(n_even <= max_even_distance)
            if not len(alike):
                continue
            # a mirror flips the signs of odd frequencies
            n_odd = np.bitwise_count(odd ^ train_odd[alike])
            distance = n_even[alike] + np.minimum(n_odd, 64 - n_odd)
            both_have_few_details = odd & train_odd[alike] & _HAS_FEW_DETAILS != 0
            distance[both_have_few_details] = 255
            nearest[alike] = np.minimum(nearest[alike], distance)
        nearest[is_constant] = 255

        near_rows = np.flatnonzero(nearest <= max_distance)
        order = np.argsort(nearest[near_rows], kind="stable")
        for train_row in near_rows[order[:NEAREST]].tolist():
            candidates.append((row, train_row, int(nearest[train_row])))
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
    # Smallest number of details of a picture whose partner has fewer than MIN_DETAILS.
    if has_few and max(detail_counts) < 80:
        return ""
    if _are_equal(test_picture, train_picture):
        return "copy"
    mirrored = test_picture.mirror()
    if _are_equal(mirrored, train_picture):
        return "mirrored"
    if _share_part(test_picture, train_picture):
        return "cropped"
    return "mirrored" if _share_part(mirrored, train_picture) else ""


@cache
def _make_frequencies(count: int) -> Float64:
    """Make the frequencies [count * count] of DCT coefficients, in half cycles."""
    return np.hypot(*np.mgrid[:count, :count]).ravel()


@cache
def _make_rings(count: int, highest: int) -> Float32:
    """Make the ring [count * count, highest - 1] of each frequency below `highest`."""
    rings = np.arange(1, highest)
    return (_make_frequencies(count)[:, None].astype(int) == rings).astype(np.float32)


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


def _measure_details(squares: Float32, windows: Float64, count: int) -> Float32:
    """Compute DCT coefficients of windows of squares.

    Args:
        squares: Pixels [..., S, S].
        windows: Left, upper, right and lower margins [W, 4] of the windows, as shares.
        count: Number of frequencies in each direction.

    Returns:
        Coefficients [..., W, count * count].
    """
    side_px = squares.shape[-1]
    rows = []
    columns = []
    # rounded margins share cached matrices
    for left, upper, right, lower in np.round(windows, 4).tolist():
        rows.append(_make_dct(upper, lower, side_px, count))
        columns.append(_make_dct(left, right, side_px, count).T)
    details = np.stack(rows) @ squares[..., None, :, :] @ np.stack(columns)
    return details.reshape(*details.shape[:-2], count**2)


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

    # margins of the views in these windows
    # Shares of the centre square that views leave out at each side, to keep all of it,
    # 224 of 256 px, and the square inside its circle (for apertures).
    square_margins = (0, 0.0625, (1 - 0.5**0.5) / 2)
    view_margins = np.concatenate(
        [
            # the whole, and views that match pictures cropped by 3 to 15 %
            np.repeat((0, 0.05, 0.12), 4).reshape(-1, 4),
            # views that match pictures cropped at one side by up to 20 %
            0.16 * np.eye(4),
            np.repeat(square_margins + (0, square_margins[-1]), 4).reshape(-1, 4),
        ]
    )
    view_windows = [0] * 7 + [2] * 3 + [1, 3]
    return _nest(np.concatenate([windows, squares])[view_windows], view_margins)


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


class _PreparedPicture(NamedTuple):
    """A picture, prepared for the comparison of its windows."""

    square: Float32  # Y, Cb and Cr, [3, 128, 128]
    lights: Float32  # luminance, then equalised luminance, [2, 128, 128]
    views: Float64  # margins of the views, [12, 4]
    details: Float32  # DCT coefficients of the lights in the whole picture, [2, 625]
    coarse_details: Float32  # DCT coefficients of the lights in each view, [2, 12, 100]
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
        channels = np.moveaxis(np.asarray(square, np.float32), -1, 0)
        return cls(
            square=channels,
            lights=lights,
            views=views,
            details=_measure_details(lights, _NO_MARGINS[None], _BAND + 1)[:, 0],
            coarse_details=_measure_details(lights, views, _COARSE_BAND),
            detail_count=count_details(grey),
        )

    def mirror(self) -> Self:
        """Mirror the picture left to right: odd frequencies change their signs."""
        # the views that leave out the left side and the right side change places
        order = [0, 1, 2, 5, 4, 3] + list(range(6, VIEWS))
        signs = (-1) ** np.arange(_BAND + 1, dtype=np.float32)
        coarse_signs = np.tile(signs[:_COARSE_BAND], _COARSE_BAND)
        return self._replace(
            square=self.square[..., ::-1],
            lights=self.lights[..., ::-1],
            views=self.views[order][:, [2, 1, 0, 3]],
            details=self.details * np.tile(signs, _BAND + 1),
            coarse_details=self.coarse_details[:, order] * coarse_signs,
        )


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
        correlation = _correlate(picture.details[light], other.details[other_light])
        correlations.append(float(correlation))
    is_alike = max(correlations) >= MIN_CORRELATION
    return is_alike and _have_equal_colours(picture, _NO_MARGINS, other, _NO_MARGINS)


def _share_part(picture: _PreparedPicture, other: _PreparedPicture) -> bool:
    """Return True if a window of either picture resembles a view of the other."""
    firsts, seconds = np.transpose(_PAIRS)
    score_lists = []
    for light, other_light in _LIGHTS:
        details = picture.coarse_details[light][firsts]
        other_details = other.coarse_details[other_light][seconds]
        score_lists.append(_correlate(details, other_details, _COARSE_BAND))
    scores = np.stack(score_lists)  # [3, P]
    # Smallest correlation of coarse details of two views that starts a search.
    if scores.max() < 0.6:
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
    own_light = picture.lights[light]
    other_light = target.lights[target_light]
    window = start
    # Largest share of a side by which the search moves an edge.
    reach = 0.2
    min_margins = np.maximum(start - reach, 0)
    edge_shifts = np.concatenate([np.eye(4), -np.eye(4)])  # [8, 4]

    # move one edge at a time, by ever smaller steps, while the correlation grows
    # Stages of the search for a window: step as a share of a side, highest frequency,
    # smallest final correlation.
    search = ((0.04, 8, 0.8), (0.02, 12, 0.93), (0.01, 24, 0.95), (0.005, 24, 0.98))
    for step, highest, min_score in search:
        target_details = _measure_details(other_light, target_window[None], highest)
        best_score = -1.0
        windows = window[None]
        while True:
            details = _measure_details(own_light, windows, highest)
            scores = _correlate(details, target_details, highest)
            if scores.max() <= best_score:
                break
            best_score = scores.max()
            window = windows[np.argmax(scores)]
            windows = np.clip(window + step * edge_shifts, min_margins, start + reach)
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
    # highest compared frequency of colours
    chroma_band = 8
    frequencies = _make_frequencies(chroma_band + 1)
    weights = frequencies * (frequencies <= chroma_band)
    all_details = []
    own_chromas = []
    for prepared, margins in ((picture, window), (other, other_window)):
        # [3, 81] of Y, Cb, Cr
        details = (
            weights
            * _measure_details(prepared.square, margins[None], chroma_band + 1)[:, 0]
        )
        light = details[0]
        chroma = details[1:]
        energy = max(float(light @ light), 1.0)
        # subtract the chroma of a tint, which follows the luminance
        own_chroma = chroma - np.outer(chroma @ light, light) / energy
        # Smallest chroma of a coloured picture, relative to luminance. Demo pictures
        # that differ only in colour have 0.2 or more.
        if np.linalg.norm(own_chroma) < 0.05 * np.sqrt(energy):
            return True
        all_details.append(details)
        own_chromas.append(own_chroma)

    own_correlation = _compute_cosine(own_chromas[0], own_chromas[1])
    correlation = _compute_cosine(all_details[0][1:], all_details[1][1:])
    # Smallest correlation of the chroma of copies. Demo pictures of different
    # colours reach 0.80.
    if max(own_correlation, correlation) >= 0.85:
        return True
    # a small mark changes faint colours: compare them together with luminance
    return _compute_cosine(all_details[0], all_details[1]) >= MIN_CORRELATION


def _compute_cosine(vector: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Compute the cosine of two arrays of the same shape, taken as vectors."""
    norms = np.linalg.norm(vector) * np.linalg.norm(other)
    return float(np.vdot(vector, other) / norms)


def _correlate(
    details: Float32, other_details: Float32, highest: int = _BAND
) -> NDArray[np.floating]:
    """Average the cosines of details [..., D] over frequencies below `highest`.

    A ring weighs little if its amplitude is low in either picture.
    """
    rings = _make_rings(math.isqrt(details.shape[-1]), highest)
    counts = rings.sum(0)
    norms = []
    for values in (details, other_details):
        norms.append(np.sqrt(np.square(values) @ rings))
    weights = np.sqrt(counts)
    for norm in norms:
        amplitude = norm / np.sqrt(counts)
        total = np.linalg.norm(norm, axis=-1, keepdims=True)
        # Amplitude of a ring, relative to all rings, that halves its weight. Blur
        # weakens fine details.
        weights = weights * amplitude / (amplitude + 0.03 * total + 1e-6)
    cosines = (details * other_details) @ rings / (norms[0] * norms[1] + 1e-6)
    return (weights * cosines).sum(-1) / (weights.sum(-1) + 1e-6)
