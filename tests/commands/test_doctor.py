"""Tests of doctor, which describes this machine."""

import importlib.metadata
import platform
from email.message import Message

import pytest
import torch

from brainhive_cli.commands import doctor
from brainhive_cli.core.errors import MissingData, MissingExtra


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
    assert list(facts)[-1] == "verdict"
    assert "extra parquet" in facts


def test_it_knows_every_extra_that_the_metadata_names(monkeypatch):
    extras = ["live", "no-such-extra", "parquet", "video"]
    metadata = Message()
    for extra in extras:
        metadata["Provides-Extra"] = extra
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: metadata)
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda name: [
            "numpy>=1",
            "numpy>=999; extra == 'parquet'",
            "no-such-library; extra == 'video'",
            "numpy>=1; extra == 'live'",
        ],
    )
    libraries = doctor.check_libraries()
    assert libraries.lacking == []
    assert list(libraries.extras) == extras
    assert libraries.extras["live"] == "installed"
    assert "no-such-library" in libraries.extras["video"]
    assert ">=999" in libraries.extras["parquet"]


def test_a_missing_required_library_is_listed(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["no-such-one"])
    assert doctor.check_libraries().lacking == ["no-such-one"]


@pytest.mark.parametrize(
    ("changes", "exit_code"),
    [
        ({}, None),
        ({"lacking": ["mne"]}, MissingExtra.exit_code),
        ({"broken": [MissingExtra("timm does not import")]}, MissingExtra.exit_code),
        ({"is_writable": False}, MissingData.exit_code),
        ({"free_mib": 100}, MissingData.exit_code),
    ],
)
def test_the_verdict_is_an_error_if_commands_cannot_run(changes, exit_code, tmp_path):
    facts = {
        "lacking": [],
        "broken": [],
        "home": tmp_path,
        "is_writable": True,
        "free_mib": 50_000,
        "device_name": "cpu",
    }
    sentence, error = doctor.judge_machine(**facts | changes)
    assert (error and error.exit_code) == exit_code
    assert ("GPU" in sentence) == (not changes)
