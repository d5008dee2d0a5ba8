"""The filmstrip: frames of what was seen above those of what was made, with words beside."""

import numpy as np
import pytest
from clips import clip

from brainhive_cli.reports.sheets import MARGIN_PX, OUTLINE, PAPER, SIDE_PX, Strip, draw_filmstrips, outlined

RED, BLUE = (
    np.full((count, 8, 8, 3), colour, np.uint8) for count, colour in ((6, (200, 0, 0)), (6, (0, 0, 200)))
)


def test_six_frames_of_the_stimulus_stand_above_six_of_the_result():
    made = Strip(BLUE, "made", ["a dog runs", "animal"], metrics={"SSIM": 0.5})

    sheet = np.asarray(draw_filmstrips("First items", [[Strip(RED, "seen"), made]]))

    left, right = MARGIN_PX + 5, MARGIN_PX + 6 * SIDE_PX - 5
    for colour in (RED, BLUE):
        rows = (sheet[:, [left, right]] == colour[0, 0, 0]).all((1, 2)).nonzero()[0]
        assert len(rows) == SIDE_PX and (np.diff(rows) == 1).all()
    assert (sheet[:, left] == RED[0, 0, 0]).all(1).argmax() < (sheet[:, left] == BLUE[0, 0, 0]).all(
        1
    ).argmax()
    words = sheet[:, right + 20 :]
    assert (words != PAPER).any(2).sum() > 100  # the captions, and the scores


@pytest.mark.parametrize("count", [2, 6, 16])
def test_clips_of_any_length_are_shown_by_six_frames_at_most(count):
    sheet = draw_filmstrips("", [[Strip(clip(0, frames=count), "seen")]])

    assert sheet.width == draw_filmstrips("", [[Strip(clip(0, frames=min(6, count)), "seen")]]).width


def test_a_long_caption_makes_room_for_itself():
    short, long = (
        draw_filmstrips("", [[Strip(RED, "seen", [words])]]) for words in ("a", "many words " * 60)
    )

    assert long.height > short.height


def test_masks_are_outlined_and_what_is_inside_them_is_not_covered():
    masks = np.zeros((6, 8, 8), bool)
    masks[:, 2:6, 2:6] = True

    found = outlined(RED, masks, 64)

    is_line = (found == OUTLINE).all(3)
    assert is_line[0, 16, 20:40].all() and is_line[0, 20:40, 16].all()
    assert not is_line[0, 32, 32] and not is_line[0, :14].any()
    assert (outlined(RED, masks[:3], 64) == RED[0, 0, 0]).all()  # masks of another clip are left out
