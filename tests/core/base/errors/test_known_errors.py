"""Exceptions of libraries and of the system become errors with two lines."""

import errno
import os

import numpy as np
import pytest
import torch

from brainhive_cli.cli.execute import describe_error
from brainhive_cli.core.base.errors import (
    BrainhiveError,
    DeviceError,
    LostProcess,
    RecipeError,
)


def test_lack_of_memory_is_a_device_error_with_advice():
    with pytest.raises(Exception) as caught:
        np.empty(2**60, np.uint8)
    for error in (
        caught.value,
        torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2 GiB.\nMore about it."
        ),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ):
        described = describe_error(error, "batch_size=4")
        assert isinstance(described, DeviceError)
        assert "\n" not in described.message
        assert described.hint.startswith("batch_size=4")


def test_an_error_of_the_system_names_the_file_and_its_way_out():
    for number, hint in (
        (errno.ENOENT, "it exists"),
        (errno.ENOSPC, "free space"),
        (errno.EACCES, "permissions"),
    ):
        described = describe_error(OSError(number, os.strerror(number), "a/file"))
        assert described.message == f"a/file: {os.strerror(number)}"
        assert hint in described.hint


def test_what_libraries_say_of_processes_and_disks_is_recognised():
    arguments = (
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by "
        "peer [127.0.0.1]:1"
    )
    described = describe_error(RuntimeError(arguments))
    assert isinstance(described, LostProcess)
    assert "another process" in described.message
    arguments = "DataLoader worker (pid 12) is killed by signal: Killed. "
    assert (
        "decodes pictures was killed" in describe_error(RuntimeError(arguments)).message
    )
    full = describe_error(RuntimeError("I/O error: No space left (os error 28)"))
    assert full.message == "No space left on device"


def test_errors_of_ours_stay_and_others_are_called_bugs():
    ours = RecipeError("a", "b")

    assert describe_error(ours) is ours
    assert (
        "unexpected ValueError: odd"
        in describe_error(ValueError("odd\nand more")).message
    )
    assert type(describe_error(ValueError())) is BrainhiveError
