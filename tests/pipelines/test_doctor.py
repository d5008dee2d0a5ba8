"""doctor: what it finds is what is there."""

import torch


def test_it_tells_versions_device_and_what_lies_at_home(go, home):
    (home / "runs" / "train-align").mkdir(parents=True)

    result = go("doctor")

    assert result.metrics.notes["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert result.metrics.notes["device"] == "cpu"
    assert result.metrics.notes["home"] == home and result.metrics.notes["home can be written"]
    assert (result.metrics.notes["runs"], result.metrics.notes["data"]) == ("train-align", "nothing yet")
    assert result.tables[0].rows == tuple(result.metrics.notes.items())
    assert (result.metrics.notes["broken"], result.exit_code, result.hint) == ("nothing", 0, "brainhive demo")


def test_a_home_that_does_not_exist_yet_is_no_reason_to_fail(go, home, monkeypatch):
    monkeypatch.setenv("BRAINHIVE_HOME", str(home / "later"))

    result = go("doctor")

    assert result.metrics.notes["home can be written"] is True  # it can be made
