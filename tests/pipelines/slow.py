"""Mean colours, slowly: an encoder that a test has time to interrupt."""

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
    return torch.nn.Sequential(module, torch.nn.Linear(12, 2**15)), preprocess
