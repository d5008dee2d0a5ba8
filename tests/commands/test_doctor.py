"""Tests of doctor, which describes this machine."""

import platform

import torch


def test_it_tells_versions_device_and_what_lies_at_home(run_command, home):
    (home / "runs" / "train-align").mkdir(parents=True)

    result = run_command("doctor")

    facts = result.details
    assert facts["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert facts["device"] == "cpu"
    assert facts["system"] == platform.platform()
    has_mps = torch.backends.mps.is_available()
    assert (facts["Apple GPU (MPS)"] != "none") == has_mps
    assert facts["home"] == home and facts["home can be written"]
    assert facts["runs"] == "train-align" != facts["data"]
    assert result.tables[0].rows == tuple(facts.items())
    assert result.exit_code == 0
    assert result.hint == "brainhive demo"
