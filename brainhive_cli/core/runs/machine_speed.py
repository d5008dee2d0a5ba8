"""Measured speed of this machine, and the time that common tasks would take on it."""

import io
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

from brainhive_cli.core.files import documents

MIN_PROBE_S = 0.15
"""Shortest measurement of a call."""
N_STEP_OPERATORS = 8
"""Operators of torch in `_run_small_step`, as benchmarks/task_costs.py counts them."""
UNITS = {
    "matmul fp32": ("matrix product, float32", 1e12, "TFLOP/s"),
    "matmul bf16": ("matrix product, bfloat16", 1e12, "TFLOP/s"),
    "conv fp32": ("convolution, float32", 1e12, "TFLOP/s"),
    "conv bf16": ("convolution, bfloat16", 1e12, "TFLOP/s"),
    "bytes": ("memory of the device, read and written", 1e9, "GB/s"),
    "operators": ("small operators of torch", 1e3, "thousand/s"),
    "pictures": ("JPEG pictures of 500 px, decoded on a core", 1, "pictures/s"),
    "write": ("home, written", 1e6, "MB/s"),
    "read": ("home, read", 1e6, "MB/s"),
    "files": ("home, small files written", 1, "files/s"),
    "starts": ("imports of a command", 1 / 60, "a minute"),
}
"""Label, divisor and unit in tables of each rate, which is in FLOP, bytes or a number
per second.
"""


def read_tasks() -> list[dict[str, Any]]:
    """Read the tasks that users come for, and their costs.

    Returns:
        Mappings as benchmarks/task_costs.py writes them: name ("task"), "command",
        "precision" of matrix products and convolutions, "counts" of work by rate (see
        `UNITS`; "matmul" and "conv" in FLOP), "memory_gb" of the device, and "disk_gb"
        of downloads and files.
    """
    path = Path(__file__).with_name("task_costs.json")
    return documents.read(path, list[dict[str, Any]])


def estimate_seconds(
    task: Mapping[str, Any], rates: Mapping[str, float]
) -> float | None:
    """Estimate the duration of a task: the sum over its amounts of work.

    The result is None if a rate was not measured.

    Args:
        task: The task.
        rates: Measured rates (see `UNITS`).
    """
    seconds = 0.0
    for kind, amount in task["counts"].items():
        name = f"{kind} {task['precision']}" if kind in ("matmul", "conv") else kind
        if name not in rates:
            return None
        seconds += amount / rates[name]
    return seconds


def measure_device(device: torch.device) -> dict[str, float]:
    """Measure matrix products, convolutions, memory and small operators.

    The sizes are those of layers of CLIP ViT-H/14 and of SDXL's U-Net.

    Returns:
        Rates (see `UNITS`), in FLOP, bytes and operators per second.
    """
    scale = 32 if device.type == "cuda" else 1
    random = torch.Generator(device).manual_seed(0)
    rates = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        draw = partial(torch.rand, generator=random, device=device, dtype=dtype)
        product = partial(torch.matmul, draw(128 * scale, 1280), draw(1280, 5120))
        flops = 2 * 128 * scale * 1280 * 5120
        rates[f"matmul {precision}"] = flops / time_call(product, device)
        pictures = draw(scale, 320, 32, 32)
        kernels = draw(320, 320, 3, 3)
        convolve = partial(functional.conv2d, pictures, kernels, padding=1)
        flops = 2 * pictures.numel() * 320 * 9
        rates[f"conv {precision}"] = flops / time_call(convolve, device)

    values = torch.zeros(2**21 * scale, 8, device=device)
    copy = partial(torch.empty_like(values).copy_, values)
    rates["bytes"] = 2 * values.nbytes / time_call(copy, device)
    weights = torch.rand(16, 16, device=device, requires_grad=True)
    step = partial(_run_small_step, weights)
    rates["operators"] = N_STEP_OPERATORS / time_call(step, device)
    return rates


def _run_small_step(weights: torch.Tensor) -> None:
    """Run a forward and a backward pass whose time is the overhead of its operators."""
    functional.linear(weights.detach(), weights).square().sum().backward()
    weights.grad = None


def time_call(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call on a device, after a first call."""
    n_calls = 1
    call()
    synchronise = torch.get_device_module(device).synchronize
    while True:
        synchronise()
        start_s = time.perf_counter()
        for _ in range(n_calls):
            call()
        synchronise()
        seconds = time.perf_counter() - start_s
        if seconds > MIN_PROBE_S:
            return seconds / n_calls
        n_calls *= 2


def measure_decoding() -> float:
    """Measure the pictures per second that a core decodes and resizes."""
    file = io.BytesIO()
    # Side of a picture of THINGS, about.
    picture_px = 500
    size = (picture_px, picture_px)
    Image.effect_noise(size, 50).convert("RGB").save(file, "JPEG")

    def decode() -> None:
        with Image.open(file) as picture:
            picture.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)

    return 1 / time_call(decode, torch.device("cpu"))


def measure_disk(folder: Path) -> dict[str, float]:
    """Measure a disk with temporary files in a folder.

    Returns:
        Bytes per second that are written and read, and small files per second.

    Raises:
        OSError: if the folder cannot be written, or the disk is full.
    """
    disk_bytes = 2**25
    content = os.urandom(disk_bytes)
    n_small_files = 200
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary, "large")
        start_s = time.perf_counter()
        with path.open("wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        written_s = time.perf_counter()

        # forget the cached content, so that it is read from the disk
        with path.open("rb") as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            opened_s = time.perf_counter()
            file.read()
        read_s = time.perf_counter()
        for number in range(n_small_files):
            Path(temporary, str(number)).write_bytes(content[:4096])
        files_s = time.perf_counter()

    return {
        "write": disk_bytes / (written_s - start_s),
        "read": disk_bytes / (read_s - opened_s),
        "files": n_small_files / (files_s - read_s),
    }
