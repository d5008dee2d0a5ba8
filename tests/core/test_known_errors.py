"""Exceptions of libraries and of the system become errors with two lines."""

import numpy as np
import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError, DeviceError, RecipeError
from brainhive_cli.core.known_errors import describe


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

    described = describe(caught.value, "batch_size=4")

    assert isinstance(described, DeviceError) and "out of memory: " in described.message
    assert "\n" not in described.message and described.hint.startswith("batch_size=4")


def test_an_error_of_the_system_names_the_file() -> None:
    described = describe(FileNotFoundError(2, "No such file or directory", "a/file"))

    assert described.message == "a/file: No such file or directory" and "permissions" in described.hint


def test_a_full_disk_is_recognised_in_the_words_of_safetensors() -> None:
    assert (
        describe(RuntimeError("I/O error: No space left (os error 28)")).message == "No space left on device"
    )


def test_errors_of_ours_stay_and_others_are_called_bugs() -> None:
    ours = RecipeError("a", "b")

    assert describe(ours) is ours
    assert "unexpected ValueError: odd" in describe(ValueError("odd\nand more")).message
    assert type(describe(ValueError())) is BrainhiveError
