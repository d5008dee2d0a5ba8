"""What all human-aligned encoders share: their names, and weights that no hub has."""

from collections.abc import Sequence
from pathlib import Path

from brainhive_cli.core import home, hub
from brainhive_cli.core.errors import MissingData
from brainhive_cli.models.encoders import EncoderConfig, require, slug


class AlignedConfig(EncoderConfig):
    """An encoder called `base+alignment`, after its file `base_alignment.py`."""

    def _base_name(self) -> str:
        name = "+".join(self.kind.rsplit("-", 1))
        source = getattr(self, "source", None)
        return name if source == type(self).model_fields["source"].default else f"{name}--{slug(str(source))}"


def find(source: str, files: Sequence[str], way: str) -> Path:
    """Find a folder of weights.

    Args:
        source: `hub:owner/name`, or a folder.
        files: What it must hold, as paths below it.
        way: How to get them.

    Raises:
        MissingData: if the folder or one of its files is not there.
    """
    if not source.startswith("hub:") and not home.located(source).is_dir():
        raise MissingData(f"no folder {source!r}", way)
    folder = hub.folder(source, allow=files)
    require(folder, *files, way=way)
    return folder
