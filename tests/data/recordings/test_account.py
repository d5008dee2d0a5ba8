"""Counts of omitted items by kind and reason."""

from brainhive_cli.data.recordings.account import Account


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


def test_a_store_keeps_counts_by_kind_and_reason():
    account = Account()
    account.set_aside("voxels", "constant", "sub-01_ses-01", 3)
    account.set_aside("voxels", "constant", "sub-01_ses-02", 2)
    assert account.as_facts() == {"voxels": {"constant": 5}}
