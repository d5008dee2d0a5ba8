"""Scoring pictures that someone else made: a folder of reconstructions beside one of the true pictures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from brainhive_cli.core import console
from brainhive_cli.core.caveats import in_protocol
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.datasets import decode
from brainhive_cli.reconstruction.evaluation import Stimuli
from brainhive_cli.reconstruction.folders import caveats_around, digest_of, match_repeats, pictures_in
from brainhive_cli.reconstruction.generated import GeneratedSet

NAMED = 5
"""Names that a warning tells; the metrics file holds all."""


@dataclass(frozen=True)
class Folders:
    """Reconstructions matched with true pictures by name.

    Attributes:
        drawn: The reconstructions of each true picture that has some.
        truths: Name to file of the true pictures.
        unmatched: Names of reconstructions that are of no true picture.
        without: Names of true pictures that have no reconstruction.
        digests: Digests of the pictures of both folders, by what the user calls them.
    """

    drawn: GeneratedSet
    truths: Mapping[str, Path]
    unmatched: list[str]
    without: list[str]
    digests: Mapping[str, str]

    @classmethod
    def match(cls, score: str, truth: str | None) -> Self:
        """Match two folders, and tell what is left over.

        Raises:
            RecipeError: if there is no folder of true pictures.
            MissingData: if a folder is not there or no name matches.
        """
        if truth is None:
            raise RecipeError("pictures to score need the true ones", "--truth FOLDER")
        made, truths = pictures_in(score), pictures_in(truth)
        found, unmatched = match_repeats(list(made), list(truths))
        if not found:
            raise MissingData(
                f"no picture below {score} is named after one below {truth}: {unmatched[0]!r} beside "
                f"{next(iter(truths))!r}",
                "call reconstructions of NAME: NAME.png, NAME_0.png, NAME_1.png, or NAME/0.png",
            )
        without = [name for name in truths if name not in found]
        for names, what in (
            (unmatched, "reconstructions match no true picture"),
            (without, "true pictures have no reconstruction"),
        ):
            if names:
                more = " …" if len(names) > NAMED else ""
                console.warn(f"{len(names)} {what}: {', '.join(names[:NAMED])}{more}")
        digests = {score: digest_of(made), truth: digest_of(truths)}
        files = {name: [made[each] for each in names] for name, names in found.items()}
        how = in_protocol(_repeats(files.values()), caveats_around(score))
        drawn = GeneratedSet("scored", Path(score).name, (), files, made=how)
        return cls(drawn, truths, unmatched, without, digests)

    @property
    def stimuli(self) -> Stimuli:
        """The true pictures."""
        return Stimuli(
            lambda name: decode(str(self.truths[name]), self.truths[name]),
            lambda name: PurePosixPath(name).name,
        )


def _repeats(files: Iterable[Sequence[Path]]) -> str:
    """Say how many reconstructions an item has."""
    counts = sorted({len(some) for some in files})
    told = "–".join(map(str, (counts[0], counts[-1])[: len(counts)]))
    return f"{told} {'repeat' if counts == [1] else 'repeats'}"
