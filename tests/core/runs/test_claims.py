"""Claims on files."""

import os
import subprocess
import sys
import time
from threading import Thread

import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.files.files import atomic_write
from brainhive_cli.core.runs import claims
from brainhive_cli.core.runs.claims import (
    Claim,
    find_holder,
    is_held,
    is_held_by_this_process,
    name_worker,
)

HOLDER = """if True:
    import sys
    from pathlib import Path
    from brainhive_cli.core.runs.claims import Claim
    claim = Claim(Path(sys.argv[1]), "run X")
    print("ready", flush=True)
    sys.stdin.read()
"""
"""A process that holds a claim until it is killed."""


def test_a_claim_holds_until_it_is_released(tmp_path):
    claim = Claim(tmp_path / "new/.claim", "run X")
    with pytest.raises(BrainhiveError) as caught:
        Claim(tmp_path / "new/.claim", "run X")
    assert "run X" in caught.value.message
    assert Claim.attempt(tmp_path / "new/.claim") is None
    assert is_held(tmp_path / "new/.claim")
    claim.release()
    Claim(tmp_path / "new/.claim", "run X").release()
    assert not list((tmp_path / "new").iterdir())


def test_who_waits_for_a_claim_then_has_it(tmp_path):
    path, waited = tmp_path / ".claim", list[Claim]()
    first_claim = Claim(path, "run X")
    waiting = Thread(target=lambda: waited.append(Claim(path, "run X", wait=True)))
    waiting.start()
    time.sleep(0.1)
    assert not waited
    first_claim.release()
    waiting.join()
    with pytest.raises(BrainhiveError) as caught:
        Claim(path, "run X")
    assert "run X" in caught.value.message
    waited[0].release()


def test_a_claim_of_a_killed_process_is_taken_over_at_once(tmp_path):
    path, pipe = tmp_path / ".claim", subprocess.PIPE
    line = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "ready\n"
        assert Claim.attempt(path) is None
        assert find_holder(path).endswith(f" {holder.pid}")
        holder.kill()
    assert not is_held(path)
    claim = Claim.attempt(path)
    assert claim is not None
    assert claim.taken_from.endswith(f" {holder.pid}")


def test_a_remote_claim_lives_as_long_as_it_is_touched(
    tmp_path,
):
    path = tmp_path / ".claim"
    path.write_text("node7 0-0-0 4711 12_3")
    assert Claim.attempt(path) is None
    assert is_held(path)
    last_s = time.time() - claims.HEARTBEAT_S * claims.MISSED_HEARTBEATS - 1
    os.utime(path, (last_s, last_s))
    claim = Claim.attempt(path)
    assert claim is not None
    assert claim.taken_from == "node7 4711, job 12_3"
    assert is_held(path)


def test_a_holder_shows_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.01)
    path = tmp_path / ".claim"
    claim = Claim(path, "run X")
    os.utime(path, (0, 0))
    deadline_s = time.monotonic() + 20
    while path.stat().st_mtime < 1 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert time.time() - path.stat().st_mtime < 20
    claim.release()


IN_ANOTHER_CONTAINER = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child"]
"""Command that runs another with process numbers of its own, as containers do."""
WRITER = """if True:
    import os, sys
    from pathlib import Path
    from brainhive_cli.core.runs.claims import Claim, is_held_by_this_process
    from brainhive_cli.core.files.files import atomic_write
    with atomic_write(Path(sys.argv[1])) as part:
        claim = Claim(Path(sys.argv[2]), "run X")
        part.write_text("ten hours of work")
        print(os.getpid(), is_held_by_this_process(Path(sys.argv[2])), flush=True)
        sys.stdin.read()
"""
"""A process that writes a file, and holds a claim, until its stdin is closed."""


def test_files_and_claims_of_other_containers_are_left_alone(
    tmp_path,
):
    if subprocess.run(
        list(IN_ANOTHER_CONTAINER) + ["true"], check=False, capture_output=True
    ).returncode:
        pytest.skip("no process namespaces")
    path, claim, pipe = tmp_path / "model", tmp_path / ".claim", subprocess.PIPE
    line = list(IN_ANOTHER_CONTAINER) + [
        sys.executable,
        "-c",
        WRITER,
        str(path),
        str(claim),
    ]
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "1 True\n"
        with atomic_write(tmp_path / "other") as partial_file:
            partial_file.write_text("x")
        assert Claim.attempt(claim) is None
        assert not claims.is_held_by_this_process(claim)
    assert path.read_text() == "ten hours of work"
    assert writer.returncode == 0


OTHER = "node7 0-0-0 4711 -"
"""Content of a claim of another machine."""


def test_a_claim_that_was_taken_over_stays_with_its_new_holder(tmp_path):
    path = tmp_path / ".claim"
    first_claim = Claim(path, "run X")
    path.unlink()
    path.write_text(OTHER)
    first_claim.release()
    first_claim.release()
    assert path.read_text() == OTHER


def test_a_claim_from_the_future_lives_and_is_dated_anew(tmp_path):
    path = tmp_path / ".claim"
    path.write_text(OTHER)
    ahead_s = time.time() + 5000
    os.utime(path, (ahead_s, ahead_s))
    assert is_held(path)
    assert abs(path.stat().st_mtime - time.time()) < 60


@pytest.mark.parametrize(("early_s", "alive"), [(1.0, True), (-1.0, False)])
def test_ten_missed_heartbeats_are_death(tmp_path, early_s, alive):
    path = tmp_path / ".claim"
    path.write_text(OTHER)
    last_s = time.time() - 100 + early_s
    os.utime(path, (last_s, last_s))
    assert is_held(path) is alive
    assert not is_held(tmp_path / "absent")


def test_holders_are_named_with_machine_process_and_job(tmp_path, monkeypatch):
    path = tmp_path / ".claim"
    for text, holder in (
        ("node7 0-0-0 4711 12_3", "node7 4711, job 12_3"),
        (OTHER, "node7 4711"),
        ("node7 0-0-0 4711", ""),
        ("", ""),
        (f"{OTHER}\n", ""),
    ):
        path.write_text(text)
        assert find_holder(path) == holder
        assert not is_held_by_this_process(path)
    assert find_holder(tmp_path / "absent") == ""
    path.unlink()
    monkeypatch.setenv("BRAINHIVE_JOB", "a b\n" + "x" * 200)
    with_job = name_worker()
    claim = Claim(path, "run X")
    job = "a_b_" + "x" * 96
    assert find_holder(path) == with_job
    assert with_job.endswith(f"{os.getpid()}, job {job}")
    assert is_held_by_this_process(path)
    # another process of this machine is not this one
    path.write_text(path.read_text().replace(f" {os.getpid()} ", f" {os.getppid()} "))
    assert not is_held_by_this_process(path)
    assert is_held(path)
    claim.release()
    monkeypatch.delenv("BRAINHIVE_JOB")
    assert name_worker().endswith(f" {os.getpid()}")


def test_a_claim_that_cannot_be_written_is_not_left(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "full")

    initial_count = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError):
        Claim.attempt(tmp_path / ".claim")
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == initial_count


def test_an_empty_claim_of_a_dead_process_has_no_name(tmp_path):
    path = tmp_path / ".claim"
    path.touch()
    os.utime(path, (0, 0))
    claim = Claim.attempt(path)
    assert claim is not None
    assert claim.taken_from not in ("", None)
    assert list(tmp_path.iterdir()) == [path]
    claim.release()
    other_claim = Claim.for_path(tmp_path / "model", wait=True)
    assert list(tmp_path.iterdir()) == [tmp_path / ".model.claim"]
    other_claim.release()
    assert list(tmp_path.iterdir()) == []
