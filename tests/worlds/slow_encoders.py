"""Mean colours, slowly: an encoder that a test has time to interrupt."""

import os
import resource
import time
from typing import Any

from brainhive_cli.models.encoders.python import example


def load(pause_s: float = 0.2) -> tuple[Any, Any]:
    """Return the example encoder, which waits at each picture."""
    module, preprocess = example()

    def slowly(picture: Any) -> Any:
        time.sleep(pause_s)
        return preprocess(picture)

    return module, slowly


def wide() -> tuple[Any, Any]:
    """Return mean colours repeated to 128 KiB a picture: an encoder that fills a
    disk.
    """
    import torch

    module, preprocess = example()
    return torch.nn.Sequential(
        module, torch.nn.ReplicationPad1d((0, 2**15 - 12))
    ), preprocess


def filling() -> tuple[Any, Any]:
    """Return the wide encoder, on a disk that is full after as many pictures as
    FULL_AFTER says.
    """
    module, preprocess = wide()
    room = iter(range(int(os.environ.get("FULL_AFTER", 2**20))))

    def until_full(picture: Any) -> Any:
        if next(room, None) is None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**10, 2**10))
        return preprocess(picture)

    return module, until_full


def logged() -> tuple[Any, Any]:
    """Return the example encoder, adding what it sees of each picture to a file that
    SEEN names.

    In every process it stops after three pictures, for as long as the file that HOLD
    names is there.
    """
    module, preprocess = example()
    free = iter(range(3))

    def seen(picture: Any) -> Any:
        while next(free, None) is None and os.path.exists(os.environ["HOLD"]):
            time.sleep(0.02)
        view = preprocess(picture)
        # one write: processes do not mix
        with open(os.environ["SEEN"], "ab", buffering=0) as log:
            log.write(view.numpy().tobytes())
        return view

    return module, seen
