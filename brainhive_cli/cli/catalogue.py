"""All encoders there are, and whether their weights are on this machine (`embed --list`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from brainhive_cli.core import console, parts
from brainhive_cli.core.results import Result

COLUMNS = ("encoder", "D", "px", "weights", "licence", "here")


def catalogue() -> Result:
    """List encoders by name, then the families that take any source; no network is used."""
    from huggingface_hub.constants import HF_HUB_CACHE

    rows = [row for kind in parts.kinds("encoders") for row in _rows(parts.load("encoders", kind).Config)]
    rows.sort(key=lambda row: row[1] == "–")
    return Result(
        Path(HF_HUB_CACHE),
        (console.Table("Encoders", COLUMNS, tuple(rows)),),
        hint="brainhive embed --encoders NAME,NAME:OUTPUT (class, mean, patches, block-I.class …)",
    )


def _rows(config: Any) -> Iterator[tuple[Any, ...]]:
    plain = config()
    source = getattr(plain, "source", "")
    size = config.dim or "×".join(map(str, config.shape or ()))
    known = {plain.name: (size, config.image_px, source)}
    known |= {name: (of["dim"], of["image_px"], of["source"]) for name, of in config.variants.items()}
    for name, (dim, side, weights) in known.items():
        is_here = (config(source=weights) if weights else plain).is_here
        here = "yes" if is_here else "no" if weights or dim else "–"
        anyones = f"{{kind: {name}, source: …}}"
        yield name, dim or "–", side or "–", weights or anyones, config.licence or "–", here
