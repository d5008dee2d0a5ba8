"""Commands of tests are forked of a process that has imported their libraries, if variables allow it."""

import os
from typing import Any

import pytest
from warm_process import WarmProcess, is_fit


def test_a_command_is_forked_whatever_tests_have_imported(brainhive: Any) -> None:
    process = brainhive("--version", wait=False)

    assert isinstance(process, WarmProcess) and process.wait() == 0


@pytest.mark.parametrize("name", ["HF_HOME", "OMP_NUM_THREADS"])
def test_a_variable_that_libraries_read_when_they_are_imported_needs_a_new_process(name: str) -> None:
    assert is_fit({**os.environ, "COLUMNS": "40"})
    assert not is_fit({**os.environ, name: "elsewhere"})
