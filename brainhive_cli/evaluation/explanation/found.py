"""What the analyses of one subject found, and what they could not measure; kept in a file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.evaluation.explanation.profiles import Profile

TIME_PART, SPACE_PART = "time", "space"
"""Parts of an analysis that has one profile over times, and one over sensors or regions."""


@dataclass
class Found:
    """What was found of one cell and subject, or of one subject's signals.

    Attributes:
        profiles: By `analysis`, or `analysis:part`; an analysis may be of one level, as `encoding · vae`.
        arrays: Maps and curves without items, by name.
        missing: Reasons, by analysis.
        image_ids: [N] what the items of all profiles showed.
    """

    image_ids: list[str]
    profiles: dict[str, Profile] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def attempt(self, analysis: str, measure: Callable[[], dict[str, Profile] | Profile]) -> None:
        """Add the profiles of an analysis, by their parts; or the reason why there are none.

        Raises:
            RecipeError: as any: what the recipe has wrong is no property of the signals.
        """
        try:
            found = measure()
        except RecipeError:
            raise
        except BrainhiveError as error:
            self.missing[analysis] = error.in_one_line
            return
        if isinstance(found, Profile):
            self.profiles[analysis] = found
        else:
            self.profiles |= {f"{analysis}:{part}": profile for part, profile in found.items()}

    def save(self, path: Path) -> None:
        """Write everything to one file."""
        plain: dict[str, NDArray[Any]] = {"image_ids": np.array(self.image_ids)}
        for name, profile in self.profiles.items():
            plain |= {f"profiles/{name}/{key}": array for key, array in profile.as_arrays().items()}
        plain |= {f"arrays/{name}": array for name, array in self.arrays.items()}
        plain |= {f"missing/{name}": np.array(reason) for name, reason in self.missing.items()}
        with open(path, "wb") as stream:
            np.savez(stream, **plain)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read back what `save` wrote."""
        found = cls([])
        nested: dict[str, dict[str, NDArray[Any]]] = {}
        with np.load(path, allow_pickle=False) as file:
            found.image_ids = file["image_ids"].tolist()
            for name in file.files:
                kind, _, rest = name.partition("/")
                if kind == "profiles":
                    profile, _, key = rest.rpartition("/")
                    nested.setdefault(profile, {})[key] = file[name]
                elif kind == "arrays":
                    found.arrays[rest] = file[name]
                elif kind == "missing":
                    found.missing[rest] = str(file[name])
        found.profiles = {name: Profile.from_arrays(arrays) for name, arrays in nested.items()}
        return found


def analysis_of(name: str) -> str:
    """Name the analysis, with its level if it is of one, that a profile is of."""
    return name.partition(":")[0]
