"""Account of a folder: counts of items, and disputes that need a yes."""

import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.preparations.recording import Config
from brainhive_cli.data.recordings.account import Account, Dispute


def test_the_source_of_most_items_is_named_first():
    account = Account()
    account.set_aside("markers", "not in the table", "sub-01.vhdr", 2)
    account.set_aside("markers", "not in the table", "sub-02.vhdr", 40)
    account.set_aside("files", "of a format that is not read", "sub-03.xdf")
    account.set_aside("files", "empty", "sub-04.fif", 0)
    markers, files = account.describe()
    assert markers.startswith("42 markers left out, not in the table")
    assert markers.index("sub-02.vhdr (40)") < markers.index("sub-01.vhdr (2)")
    assert "sub-03.xdf" in files


def test_few_sources_are_named_of_many():
    account = Account()
    for count, source in enumerate(["a.fif", "b.fif", "c.fif", "d.fif", "e.fif"], 2):
        account.set_aside("files", "too short", source, count)
    account.set_aside("rows", "blank", "t.csv")
    files, rows = account.describe()
    assert files.startswith("20 files")
    assert files.endswith("…")
    assert "a.fif" not in files
    assert not rows.endswith("…")


def test_a_store_keeps_counts_by_kind_and_reason():
    account = Account()
    account.set_aside("voxels", "constant", "sub-01_ses-01", 3)
    account.set_aside("voxels", "constant", "sub-01_ses-02", 2)
    assert account.as_facts() == {"voxels": {"constant": 5}}


def make_disputes():
    return [
        Dispute("lost-trials", "5 trials are lost", count=5, subject=1),
        Dispute("lost-trials", "3 trials are lost", count=3, subject=2),
        Dispute("unnamed-codes", "99 has no name", names=("99",), subject=2),
    ]


@pytest.mark.parametrize(
    "accept",
    [
        {"lost-trials": 8, "unnamed-codes": [99]},
        {"lost-trials": 20, "unnamed-codes": 1},
    ],
)
def test_a_yes_accepts_that_much(accept):
    account = Account(disputes=make_disputes(), accept=accept)
    account.require()
    assert account.list_accepted(2) == {"lost-trials": 3, "unnamed-codes": 1}


@pytest.mark.parametrize(
    ("accept", "way_out"),
    [
        ({}, "preparation.accept={lost-trials: 8, unnamed-codes: [99]}"),
        ({"lost-trials": 7}, "{lost-trials: 8, unnamed-codes: [99]}"),
        ({"lost-trials": 8, "unnamed-codes": [98]}, "unnamed-codes: [99]"),
    ],
)
def test_more_than_the_yes_is_an_error_with_all_amounts(accept, way_out):
    account = Account(disputes=make_disputes(), accept=accept)
    with pytest.raises(BrainhiveError) as refused:
        account.require()
    assert way_out in refused.value.hint
    assert "subject 2: 99 has no name" in refused.value.message


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(ValueError, match="did you mean lost-trials"):
        Config(accept={"lost-trial": 8})
