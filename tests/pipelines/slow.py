"""Mean colours, slowly: an encoder that a test has time to interrupt."""

import os
import resource
import time
from typing import Any

from brainhive_cli.encoders.python import example


def load(pause_s: float = 0.2) -> tuple[Any, Any]:
    """Return the example encoder, which waits at each picture."""
    module, preprocess = example()

    def slowly(picture: Any) -> Any:
        time.sleep(pause_s)
        return preprocess(picture)

    return module, slowly


def wide() -> tuple[Any, Any]:
    """Return mean colours repeated to 128 KiB a picture: an encoder that fills a disk."""
    import torch

    module, preprocess = example()
    return torch.nn.Sequential(module, torch.nn.ReplicationPad1d((0, 2**15 - 12))), preprocess


def filling() -> tuple[Any, Any]:
    """Return the wide encoder, on a disk that is full after as many pictures as FULL_AFTER says."""
    module, preprocess = wide()
    room = iter(range(int(os.environ.get("FULL_AFTER", 2**20))))

    def until_full(picture: Any) -> Any:
        if next(room, None) is None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**10, 2**10))
        return preprocess(picture)

    return module, until_full


def logged() -> tuple[Any, Any]:
    """Return the example encoder, slowly, adding what it sees of each picture to the file that SEEN names."""
    module, preprocess = load(0.1)

    def seen(picture: Any) -> Any:
        view = preprocess(picture)
        with open(os.environ["SEEN"], "ab", buffering=0) as log:  # one write: processes do not mix
            log.write(view.numpy().tobytes())
        return view

    return module, seen
