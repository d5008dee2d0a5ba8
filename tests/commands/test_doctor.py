"""doctor: what it finds is what is there."""

import platform

import torch


def test_it_tells_versions_device_and_what_lies_at_home(go, home):
    (home / "runs" / "train-align").mkdir(parents=True)

    result = go("doctor")

    assert result.details["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert result.details["device"] == "cpu"
    assert result.details["system"] == platform.platform()
    assert result.details["Apple GPU (MPS)"] in ("none", "there, and not used")
    assert result.details["home"] == home and result.details["home can be written"]
    assert (result.details["runs"], result.details["data"]) == (
        "train-align",
        "nothing yet",
    )
    assert result.tables[0].rows == tuple(result.details.items())
    assert (result.details["broken"], result.exit_code, result.hint) == (
        "nothing",
        0,
        "brainhive demo",
    )
