"""The job of embed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from brainhive_cli.commands import embed
from brainhive_cli.core.command import Result
from brainhive_cli.core.launch import READ_ONLY

COLOURS = "python:brainhive_cli.models.encoders.python:example"


def test_who_only_reads_writes_no_split(
    go: Callable[..., Result], pictures: Path
) -> None:
    words: tuple[Any, ...] = (
        f"dataset={{kind: image-folder, root: {pictures}}}",
        f"encoders=['{COLOURS}']",
        "held_out={by: clusters, folds: 2}",
    )
    written = go("embed", *words).files["split"]
    assert written.is_file()
    written.unlink()

    found = embed.run(embed.Recipe.resolve("embed", None, {}, words), READ_ONLY)

    assert "split" not in found.files and not written.exists()
