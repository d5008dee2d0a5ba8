"""An encoder whose embeddings are large, so that a test can fill a disk with them."""

import os
import resource
from typing import Any

from brainhive_cli.models.encoders.python import example


def load_large() -> tuple[Any, Any]:
    """Return an encoder that repeats mean colours to 128 KiB a picture."""
    import torch

    module, preprocess = example()
    padding = torch.nn.ReplicationPad1d((0, 2**15 - 12))
    return torch.nn.Sequential(module, padding), preprocess


def load_until_full() -> tuple[Any, Any]:
    """Return the large encoder, whose disk is full after FULL_AFTER pictures."""
    module, preprocess = load_large()
    remaining = iter(range(int(os.environ.get("FULL_AFTER", 2**20))))

    def preprocess_until_full(picture: Any) -> Any:
        if next(remaining, None) is None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**10, 2**10))
        return preprocess(picture)

    return module, preprocess_until_full
