"""Ctrl-C that a library swallows."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brainhive_cli.__main__ import main
from brainhive_cli.core import console
from brainhive_cli.core.errors import raise_if_interrupted, remember_interrupts
from brainhive_cli.core.runs import RunFolder

TRAP = """
import os, signal, time
class Trap:
    def __del__(self):  # in which Python prints an exception and goes on
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
"""
ENCODER = """
from brainhive_cli.models.encoders.python import example
def make():
    network, preprocess = example()
    network.register_forward_hook(lambda *_: Trap() and None)
    return network, preprocess
"""
BACKBONE = """
from brainhive_cli.models.backbones import brain_mlp
class Config(brain_mlp.Config):
    def build(self, channels, samples, dim, subjects=1):
        made = brain_mlp.Config.build(self, channels, samples, dim, subjects)
        made.register_forward_hook(lambda *_: Trap() and None)
        return made
"""


def is_interrupted() -> bool:
    try:
        raise_if_interrupted()
    except KeyboardInterrupt:
        return True
    return False


def swallowed() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("stop", ["check", "bar", "file"])
def test_a_ctrl_c_that_was_swallowed_is_raised_at_the_next_step_and_before_a_name_is_final(
    tmp_path: Path, stop: str
) -> None:
    def write() -> None:
        RunFolder(tmp_path).write_text("metrics.json", "{}")

    def advance() -> None:
        with console.progress("some", 2) as bar:
            bar.advance()

    steps: dict[str, Callable[[], None]] = {"check": raise_if_interrupted, "bar": advance, "file": write}
    with remember_interrupts():
        steps[stop]()
        (tmp_path / "metrics.json").unlink(missing_ok=True)
        swallowed()
        assert is_interrupted()
        with pytest.raises(KeyboardInterrupt):
            steps[stop]()
    assert not (tmp_path / "metrics.json").exists()


def test_a_new_command_forgets_it_and_python_s_own_handler_is_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT)
    with remember_interrupts():
        swallowed()
    assert signal.getsignal(signal.SIGINT) is before
    with remember_interrupts():
        raise_if_interrupted()


def test_an_error_that_a_library_makes_of_it_is_it_and_nothing_is_remembered_afterwards() -> None:
    with pytest.raises(KeyboardInterrupt), remember_interrupts():
        swallowed()
        raise RuntimeError("callback failed")
    assert not is_interrupted()


def test_in_a_thread_no_signal_is_waited_for() -> None:
    found: list[bool] = []

    def command() -> None:
        with remember_interrupts():
            found.append(is_interrupted())

    thread = threading.Thread(target=command)
    thread.start()
    thread.join()
    assert found == [False]


@pytest.mark.parametrize("command", ["embed", "train-align"])
def test_a_command_in_which_ctrl_c_is_swallowed_does_not_complete(
    home: Path, go: Any, brainhive: Any, small: tuple[str, ...], command: str
) -> None:
    (home / "traps").mkdir()
    (home / "traps/all.py").write_text(TRAP + ENCODER + BACKBONE)
    words = [small[0], "encoders=python:traps.all:make", "batch_size=64", "run.workers=0"]
    if command == "train-align":
        go("embed", *small[:2])
        words = [*small, "subjects=1", "backbone.kind=traps.all"]
    ended = brainhive(command, *words, cwd=home)
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr.endswith("interrupted: the same command continues where it stopped\n")
    assert not [*home.rglob("*make.h5"), *home.rglob("runs/*/*/metrics.json")]


def test_a_ctrl_c_in_a_destructor_shows_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    made: dict[str, Any] = {}
    exec(TRAP, made)
    with remember_interrupts():
        made["Trap"]()
        assert is_interrupted()
    assert "Traceback" not in capfd.readouterr().err


def test_a_ctrl_c_before_the_command_begins_ends_the_program_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("brainhive_cli.app.app", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130


def test_a_ctrl_c_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        with remember_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            assert not is_interrupted()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_in_c_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(signal, "getsignal", lambda _: None)
            with remember_interrupts():
                pass
    finally:
        signal.signal(signal.SIGINT, before)
