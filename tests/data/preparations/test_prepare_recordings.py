"""prepare of anyone's own recordings: what the command says of them."""

import pytest
from own_recordings import PICTURES, RATE_HZ, Shown, annotate, make_raw, write_pictures

from brainhive_cli.core.errors import BrainhiveError

pytest.importorskip("mne")


@pytest.fixture
def shown(home):
    write_pictures(home / "data/image-folder")
    (home / "data/recordings").mkdir()
    return Shown.of(2, 0)


def record(home, shown, session, blinks=()):
    """Save a recording, with a blink at each test picture."""
    raw = annotate(make_raw(shown, session), shown, list(shown.pictures))
    for name, onset in zip(shown.pictures, shown.onsets, strict=True):
        if name in blinks:
            raw.annotations.append(onset / RATE_HZ, 0.1, "BAD blink")
    raw.save(home / f"data/recordings/sub-01_ses-{session:02d}.fif", verbose="ERROR")


def test_the_result_counts_what_was_dropped_of_a_split_in_sessions_where_nothing_was_left(home, shown, go):
    record(home, shown, 1, PICTURES["test"])
    result = go("prepare", "preparation.kind=recording")
    assert result.tables[0].rows == (
        (1, "train", 6, "2", 12, "none"),
        (1, "test", 0, "0", 0, "4 BAD blink"),
    )

    record(home, shown, 2, PICTURES["test"][:1])
    result = go("prepare", "preparation.kind=recording", again=True)
    assert result.tables[0].rows[1] == (1, "test", 1, "2", 2, "6 BAD blink")


def test_a_table_of_events_that_was_edited_to_the_same_size_is_seen_by_a_finished_store(home, shown, go):
    record(home, shown, 1)
    table = home / "data/recordings/events.csv"
    events = [f"{name},{name}.png" for names in PICTURES.values() for name in names]
    table.write_text("\n".join(["event,picture", *events]))
    go("prepare", "preparation.kind=recording")
    table.write_text(table.read_text().replace("cat_0,train/cat/cat_0", "cat_0,train/cat/cat_1"))
    with pytest.raises(BrainhiveError, match=r"made from other files than now, such as events\.csv"):
        go("prepare", "preparation.kind=recording")
