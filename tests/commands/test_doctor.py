"""doctor: what it finds is what is there."""

import platform
import subprocess
import sys

import torch

from brainhive_cli.commands import doctor


def test_it_tells_versions_device_and_what_lies_at_home(go, home):
    (home / "runs" / "train-align").mkdir(parents=True)

    result = go("doctor")

    assert result.details["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert result.details["device"] == "cpu"
    assert result.details["system"] == platform.platform()
    assert result.details["Apple GPU (MPS)"] in ("none", "there, and not used")
    assert result.details["home"] == home and result.details["home can be written"]
    assert (result.details["runs"], result.details["data"]) == ("train-align", "nothing yet")
    assert result.tables[0].rows == tuple(result.details.items())
    assert (result.details["broken"], result.exit_code, result.hint) == ("nothing", 0, "brainhive demo")


def test_a_home_that_does_not_exist_yet_is_no_reason_to_fail(go, home, monkeypatch):
    monkeypatch.setenv("BRAINHIVE_HOME", str(home / "later"))

    result = go("doctor")

    assert result.details["home can be written"] is True  # it can be made


def test_the_file_system_of_home_is_named_and_warned_of_where_locks_hold_on_one_node_only(
    go, home, monkeypatch, capsys, tmp_path
):
    assert " at /" in go("doctor").details["file system of home"]
    assert "locks" not in capsys.readouterr().err

    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"44 26 0:39 / {home} rw,relatime - nfs nas:/old rw,vers=3,nolock,local_lock=all\n")
    monkeypatch.setattr(doctor, "MOUNTS", mounts)
    result = go("doctor")

    assert result.details["file system of home"] == f"nfs, nas:/old at {home}"
    assert "with nolock, local_lock=all: locks hold on this node only" in " ".join(
        capsys.readouterr().err.split()
    )
    assert result.exit_code == 0


def test_the_gpu_of_a_mac_is_named_as_one_that_is_not_used(go, home, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)

    assert go("doctor").details["Apple GPU (MPS)"] == "there, and not used"


def test_a_system_without_locks_on_files_is_told_what_to_use(home):
    program = "import sys; sys.modules['fcntl'] = None; from brainhive_cli.__main__ import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, "runs"], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 4 and "cannot lock files" in ended.stderr and "WSL" in ended.stderr
