"""Ctrl-C that a library swallows."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

from brainhive_cli.__main__ import main
from brainhive_cli.core.base import (
    INTERRUPT_SIGNALS,
    console,
    leave_closed_terminal,
    raise_if_interrupted,
    remember_interrupts,
)
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.evaluation.live.loop import stop_at_interrupt
from tests.tools.warm_process import stop_ignoring_signals


@pytest.fixture(autouse=True)
def usual_handlers():
    initial_getsignals_by_name = {
        number: signal.getsignal(number) for number in INTERRUPT_SIGNALS
    }
    stop_ignoring_signals()
    yield
    for number, handler in initial_getsignals_by_name.items():
        signal.signal(number, handler)


def is_interrupted():
    try:
        raise_if_interrupted()
    except KeyboardInterrupt:
        return True
    return False


def swallowed(number):
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", INTERRUPT_SIGNALS)
@pytest.mark.parametrize("stop", ["bar", "file"])
def test_a_swallowed_ctrl_c_is_raised_at_the_next_step(tmp_path, stop, number):
    initial_getsignal = signal.getsignal(number)
    with remember_interrupts():
        swallowed(number)
        assert is_interrupted()
        with pytest.raises(KeyboardInterrupt):
            if stop == "file":
                RunFolder(tmp_path).write_text("metrics.json", "{}")
            else:
                with console.progress("some", 2) as bar:
                    bar.advance()
    assert not (tmp_path / "metrics.json").exists()
    assert signal.getsignal(number) is initial_getsignal
    with remember_interrupts():
        raise_if_interrupted()


def test_a_system_that_sends_two_signals_interrupts_once():
    with remember_interrupts():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)  # while files are removed
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_signals_that_were_ignored_stay_so():
    initial_signals_by_name = {
        number: signal.signal(number, signal.SIG_IGN) for number in INTERRUPT_SIGNALS
    }
    try:
        with remember_interrupts(), stop_at_interrupt(stop := threading.Event()):
            for number in INTERRUPT_SIGNALS:
                os.kill(os.getpid(), number)
            assert not stop.is_set()
            assert not is_interrupted()
    finally:
        for number, handler in initial_signals_by_name.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("number", INTERRUPT_SIGNALS)
def test_a_second_signal_interrupts_an_ending_live_session(
    number,
):
    with (
        remember_interrupts(),
        pytest.raises(KeyboardInterrupt),
        stop_at_interrupt(stop := threading.Event()),
    ):
        os.kill(os.getpid(), number)
        assert stop.is_set()
        os.kill(os.getpid(), number)


def test_what_goes_to_a_closed_terminal_goes_to_nowhere():
    """Else the next message would end a live session with an error."""
    terminal, end = pty.openpty()
    dup = os.dup(2)
    try:
        os.dup2(end, 2)
        leave_closed_terminal()
        assert os.isatty(2)
        os.close(terminal)
        with pytest.raises(OSError, match="Input/output"):
            os.write(2, b"lost")
        leave_closed_terminal()
        os.write(2, b"nowhere")
    finally:
        os.dup2(dup, 2)
        os.close(dup)
        os.close(end)


WAITING = """
import sys, threading, time, types

def app(**_):
    threading.Thread(target=time.sleep, args=(60,)).start()
    print("begun")
    raise KeyboardInterrupt

sys.modules["brainhive_cli.app"] = types.SimpleNamespace(app=app)
from brainhive_cli.__main__ import main
main()
"""
"""A command whose library has a thread that waits for a server."""


def test_ctrl_c_does_not_wait_for_threads_of_libraries():
    ended = subprocess.run(
        [sys.executable, "-c", WAITING], capture_output=True, text=True, timeout=20
    )
    assert ended.returncode == 130
    assert ended.stdout == "begun\n"


def test_an_early_ctrl_c_ends_the_program_quietly(
    monkeypatch,
):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("brainhive_cli.app.app", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
