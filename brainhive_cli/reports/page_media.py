"""The pictures and clips of a page: each is in it once, small, however often it is shown."""

import base64
import hashlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import read_regular

TILE_PX, WHOLE_PX = 200, 1200
"""Longest side of a tile of a sheet, and of a picture of its own."""
KEPT_BYTES = 6_000
"""A smaller file goes into the page as it is."""
LARGEST_BYTES = 1 << 28
"""Of a file that is shown; a page holds all of them."""
CLIPS = {".mp4": "video/mp4", ".webm": "video/webm"}
PLAIN = {".svg": "image/svg+xml", ".gif": "image/gif", ".webp": "image/webp", ".png": "image/png"}


@dataclass
class Pictures:
    """All that a page shows, by digest of the file.

    Attributes:
        named: Id of each picture.
        loose: Data URLs by id, of those that no element of the page holds.
    """

    named: dict[str, str] = field(default_factory=dict)
    loose: dict[str, str] = field(default_factory=dict)
    _known: dict[Path, str] = field(default_factory=dict)

    def element(self, path: Path, words: str, poster: Path | None = None, side_px: int = TILE_PX) -> Markup:
        """Write the element of a picture, or of a clip that can be played.

        Args:
            path: The file.
            words: What it shows, for those who do not see it.
            poster: A still picture of a clip.
            side_px: Longest side.
        """
        if path.suffix in CLIPS:
            still = f' poster="{_shrunk(poster, TILE_PX)}"' if poster else ""
            source = f"data:{CLIPS[path.suffix]};base64,{_base64(_read(path))}"
            clip = '<video controls loop muted playsinline aria-label="{}"{} src="{}"></video>'
            return Markup(clip).format(words, Markup(still), Markup(source))
        digest = f"{self._digest(path)}-{side_px}"
        if found := self.named.get(digest):
            return Markup('<img alt="{}" data-same="{}">').format(words, found)
        name = self.named[digest] = f"p{len(self.named)}"
        return Markup('<img alt="{}" id="{}" src="{}">').format(words, name, Markup(_shrunk(path, side_px)))

    def reference(self, path: Path) -> str:
        """Give the id of a picture that is shown on demand."""
        digest = f"{self._digest(path)}-{TILE_PX}"
        if digest not in self.named:
            self.named[digest] = f"p{len(self.named)}"
            self.loose[self.named[digest]] = _shrunk(path, TILE_PX)
        return self.named[digest]

    def _digest(self, path: Path) -> str:
        if path not in self._known:
            self._known[path] = hashlib.sha256(_read(path)).hexdigest()
        return self._known[path]


def _shrunk(path: Path, side_px: int) -> str:
    """Give a picture as a data URL, as WebP where that is smaller; drawings and animations as they are."""
    content, kind = _read(path), PLAIN.get(path.suffix, "image/jpeg")
    if len(content) > KEPT_BYTES and path.suffix not in (".svg", ".gif"):
        try:
            with Image.open(BytesIO(content)) as opened:
                is_still = getattr(opened, "n_frames", 1) == 1
                small = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise MissingData(f"{path} is no whole picture", "run the command that made it again") from error
        small.thumbnail((side_px, side_px))
        held = BytesIO()
        small.save(held, "WEBP", quality=80, method=4)
        if is_still and held.tell() < len(content):
            content, kind = held.getvalue(), "image/webp"
    return f"data:{kind};base64,{_base64(content)}"


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise MissingData(
            f"{path} is missing, and an artifact shows it", "run the command that made it again"
        )
    return read_regular(path, LARGEST_BYTES)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
