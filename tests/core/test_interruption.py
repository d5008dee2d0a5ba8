"""Ctrl-C that a library swallows."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from brainhive_cli.__main__ import main
from brainhive_cli.core import console
from brainhive_cli.core.errors import raise_if_interrupted, remember_interrupts
from brainhive_cli.core.runs import RunFolder


def is_interrupted() -> bool:
    try:
        raise_if_interrupted()
    except KeyboardInterrupt:
        return True
    return False


def swallowed() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("stop", ["bar", "file"])
def test_a_swallowed_ctrl_c_is_raised_at_the_next_step_and_before_a_name_is_final(
    tmp_path: Path, stop: str
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with remember_interrupts():
        swallowed()
        assert is_interrupted()
        with pytest.raises(KeyboardInterrupt):
            if stop == "file":
                RunFolder(tmp_path).write_text("metrics.json", "{}")
            else:
                with console.progress("some", 2) as bar:
                    bar.advance()
    assert not (tmp_path / "metrics.json").exists()
    assert signal.getsignal(signal.SIGINT) is before
    with remember_interrupts():
        raise_if_interrupted()


def test_a_ctrl_c_before_the_command_begins_ends_the_program_quietly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("brainhive_cli.app.app", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
