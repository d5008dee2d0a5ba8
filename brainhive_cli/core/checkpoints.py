"""Checkpoints of a training: the newest, and the one before in case the newest is damaged."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.core import console, interruption
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.launch import Launch

if TYPE_CHECKING:
    import torch

ANEW = "delete it: the same command then trains anew"
"""What to do about a checkpoint that is whole, but of another training."""


@dataclass(frozen=True)
class Checkpoint:
    """The file that the newest checkpoint of a training has; the one before lies next to it."""

    path: Path

    @property
    def previous(self) -> Path:
        """The checkpoint before the newest."""
        return self.path.with_name(f"{self.path.name}.previous")

    def save(self, content: Mapping[str, Any]) -> None:
        """Save tensors and plain values, and keep the last checkpoint as the previous one.

        Raises:
            OSError: if the disk is full; the checkpoints are then as they were.
        """
        import torch

        buffer = io.BytesIO()
        torch.save(dict(content), buffer)
        with atomic_write(self.path) as part:
            part.write_bytes(buffer.getbuffer())
            if self.path.is_file():
                os.replace(self.path, self.previous)

    def load(self, launch: Launch, device: "torch.device | str" = "cpu") -> dict[str, Any] | None:
        """Read the newest checkpoint that is whole, in each of these processes; None without one.

        The main process sets each that is damaged aside, with a warning.
        """
        content = self._load(device) if launch.is_main else None
        launch.barrier()
        return content if launch.is_main else self._load(device)

    def _load(self, device: "torch.device | str") -> dict[str, Any] | None:
        from brainhive_cli.core import weights

        for path in filter(Path.is_file, (self.path, self.previous)):
            try:
                return weights.read_checkpoint(path, device)
            except BrainhiveError as error:
                interruption.check()  # a library may have made another error of it: nothing is damaged
                aside = path.with_name(f"{path.name}.damaged")
                os.replace(path, aside)
                console.warn(f"{error.in_one_line}; it is kept as {aside.name}")
        return None

    def remove(self) -> None:
        """Remove what a finished training no longer needs."""
        for path in (self.path, self.previous):
            path.unlink(missing_ok=True)
