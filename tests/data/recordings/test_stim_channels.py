"""Events from codes of a port: keys with bits of their own, and ports that hold."""

import numpy as np
import pytest

from brainhive_cli.data.recordings.stim_channels import find_code_changes

RATE_HZ = 500.0
ONSETS = 1000 + 650 * np.arange(80)
CODES = np.random.default_rng(0).integers(1, 29, 80)
PICTURE_CODES = {str(code) for code in range(1, 29)}


def find_events(port):
    """Return the events of pictures, and the names of the others."""
    _, events, _ = find_code_changes(port, RATE_HZ, PICTURE_CODES.intersection)
    pictures = [(time_s, int(name)) for time_s, name in events if name in PICTURE_CODES]
    return pictures, {name for _, name in events} - PICTURE_CODES


def send_codes(width):
    port = np.zeros(54_000, np.int64)
    for onset, code in zip(ONSETS, CODES, strict=True):
        port[onset : onset + width] = code
    return port


EXPECTED = list(zip(ONSETS.tolist(), CODES.tolist(), strict=True))


@pytest.mark.parametrize("key", [64, 96])
@pytest.mark.parametrize("width", [10, 150, 250])
def test_a_key_with_bits_of_its_own_changes_no_code(width, key):
    port = send_codes(width)
    for onset in ONSETS + np.random.default_rng(1).integers(-300, 300, 80):
        port[onset : onset + 250] |= key
    pictures, other_events = find_events(port)
    assert pictures == EXPECTED
    assert other_events == {str(key)}


def test_a_port_that_holds_its_value_falls_to_its_next_code():
    port = np.zeros(54_000, np.int64)
    for onset, stop, code in zip(
        ONSETS, list(ONSETS[1:]) + [54_000], CODES, strict=True
    ):
        port[onset:stop] = code
    repeats = np.append(False, CODES[1:] == CODES[:-1])  # a held code does not change
    expected = [
        pair
        for pair, second_repeat in zip(EXPECTED, repeats, strict=True)
        if not second_repeat
    ]
    assert (CODES[1:] & CODES[:-1] == CODES[1:]).any()
    assert find_events(port)[0] == expected


def test_a_fall_to_the_code_below_an_added_one_is_no_event():
    port = send_codes(200)
    for onset in ONSETS[::4]:
        port[onset + 50 : onset + 100] |= 96 | 1  # shares a bit with codes of pictures
    pictures = find_events(port)[0]
    assert len(pictures) == len(EXPECTED)
    assert set(pictures) == set(EXPECTED)


def test_bits_that_change_with_the_code_belong_to_it():
    port = send_codes(100)
    port[port == 5] += 256
    pictures, other_events = find_events(port)
    assert other_events == {"261"}
    assert pictures == [pair for pair in EXPECTED if pair[1] != 5]
