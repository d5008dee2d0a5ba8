"""Exceptions of libraries and of the system become errors with two lines."""

import errno
import os

import numpy as np
import pytest
import torch

from brainhive_cli.cli.execute import describe_error
from brainhive_cli.core.errors import BrainhiveError, DeviceError, LostProcess, RecipeError


def too_large(library: str) -> None:
    if library == "numpy":
        np.empty(2**60, np.uint8)
    elif library == "torch":
        torch.empty(2**60, dtype=torch.uint8)
    else:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore about it.")


@pytest.mark.parametrize("library", ["numpy", "torch", "cuda"])
def test_too_little_memory_is_a_device_error_with_the_commands_advice(library: str) -> None:
    with pytest.raises(Exception) as caught:
        too_large(library)

    described = describe_error(caught.value, "batch_size=4")

    assert isinstance(described, DeviceError) and "out of memory: " in described.message
    assert "\n" not in described.message and described.hint.startswith("batch_size=4")


def test_an_error_of_the_system_names_the_file() -> None:
    described = describe_error(FileNotFoundError(2, "No such file or directory", "a/file"))

    assert described.message == "a/file: No such file or directory" and "it exists" in described.hint


@pytest.mark.parametrize(
    ("number", "way"),
    [
        *((number, "free space") for number in (errno.ENOSPC, errno.EDQUOT)),
        *((number, "fix permissions") for number in (errno.EACCES, errno.EPERM, errno.EROFS)),
        *((number, "move away") for number in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)),
        *((number, "check the network") for number in (errno.EADDRINUSE, errno.ECONNREFUSED)),
        (errno.EMFILE, "ulimit -n"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EIO, "check the disk"),
        (errno.ENAMETOOLONG, "shorter"),
        (errno.EINVAL, "check that the file is complete"),
    ],
)
def test_each_error_of_the_system_has_a_way_out_of_its_own(number: int, way: str) -> None:
    described = describe_error(OSError(number, os.strerror(number), "a/file"))

    assert described.message == f"a/file: {os.strerror(number)}" and way in described.hint
    is_space = number in (errno.ENOSPC, errno.EDQUOT)
    is_permission = number in (errno.EACCES, errno.EPERM, errno.EROFS)
    assert ("free space" in described.hint, "permissions" in described.hint) == (is_space, is_permission)


def test_an_error_of_the_system_without_a_number_is_no_bug() -> None:
    described = describe_error(OSError("Unable to open the file\nand more"))

    assert described.message == "Unable to open the file" and "a bug" not in described.hint


def test_too_little_memory_in_the_words_of_the_system_is_that() -> None:
    assert isinstance(describe_error(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))), DeviceError)


def test_the_loss_of_another_process_is_said_to_be_that() -> None:
    words = "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"
    described = describe_error(RuntimeError(words))

    assert isinstance(described, LostProcess) and "another process" in described.message


def test_a_killed_decoder_is_named_as_one() -> None:
    words = "DataLoader worker (pid 12) is killed by signal: Killed. "
    assert "decodes pictures was killed" in describe_error(RuntimeError(words)).message


def test_a_full_disk_is_recognised_in_the_words_of_safetensors() -> None:
    assert (
        describe_error(RuntimeError("I/O error: No space left (os error 28)")).message
        == "No space left on device"
    )


def test_errors_of_ours_stay_and_others_are_called_bugs() -> None:
    ours = RecipeError("a", "b")

    assert describe_error(ours) is ours
    assert "unexpected ValueError: odd" in describe_error(ValueError("odd\nand more")).message
    assert type(describe_error(ValueError())) is BrainhiveError
