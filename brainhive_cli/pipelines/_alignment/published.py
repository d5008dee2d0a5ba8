"""What a paper reports, the set-up that it was measured with, and how what is run differs from that."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from brainhive_cli.core import parts
from brainhive_cli.core.recipe import Numbers, Section, split
from brainhive_cli.encoders import Encoders

if TYPE_CHECKING:
    from brainhive_cli.pipelines.train_align import Recipe


def _backbone(value: Any) -> Any:
    return None if value is None else parts.resolve("backbones", value, "brain_mlp")


class Published(Section):
    """What a paper reports: shown beside what is measured in the same set-up, else with the differences.

    What the source does not state is left out, and counts as a difference.
    """

    top1: float | None = Field(None, ge=0, le=1, description="of the retrieval of test pictures")
    top5: float | None = Field(None, ge=0, le=1)
    source: str = Field(description="where it is printed")
    dataset: str | None = Field(None, description="data set")
    mode: Literal["intra", "inter", "joint", "finetune"] | None = Field(None, description="as in a recipe")
    subjects: Numbers | None = Field(None, description="who was tested")
    encoders: Encoders | None = Field(None, description="embeddings that were fused")
    backbone: Annotated[Any, BeforeValidator(_backbone)] = Field(None, description="brain encoder")
    epochs: int | None = Field(None, gt=0, description="most epochs of a training")
    selection: Literal["best", "last", "test"] | None = Field(
        None, description="the epoch that was kept, as in `train`"
    )
    pool: int | None = Field(None, gt=0, description="pictures searched (200 on THINGS)")
    lacking: Annotated[list[str], BeforeValidator(split)] = Field(
        [], description="what was done there and no recipe offers, in words"
    )

    def beside(
        self, what: "Recipe", dataset: str, subjects: Sequence[int], pool: int | None = None
    ) -> dict[str, Any]:
        """Give what was published, and all in which a run differs.

        Args:
            what: The recipe of the run, or of one variant of a sweep.
            dataset: The name that the signals are kept under which were tested.
            subjects: Who was tested.
            pool: Pictures searched; None where none were yet.

        Returns:
            `top1`, `top5` where they are known, `source`, and `differs`: empty if nothing does.
        """
        numbers = self.model_dump(include={"top1", "top5", "source"}, exclude_none=True)
        return {**numbers, "differs": self._differences(what, dataset, subjects, pool)}

    def _differences(
        self, what: "Recipe", dataset: str, subjects: Sequence[int], pool: int | None
    ) -> list[str]:
        is_unselected = what.train.selection == "best" and not what.train.validation
        found = {
            "dataset": (dataset, self.dataset),
            "mode": (what.mode, self.mode),
            "encoders": (_joined(what.encoders), _joined(self.encoders)),
            "epochs": (what.train.epochs, self.epochs),
            "selection": ("last" if is_unselected else what.train.selection, self.selection),
            "pool": (pool, self.pool),
        }
        told = [_told(key, *pair) for key, pair in found.items() if key != "pool" or pool is not None]
        told += [_subjects(subjects, self.subjects), *_knobs(what.backbone, self.backbone)]
        return [*filter(None, told), *(f"without {each}" for each in self.lacking)]


def shown(published: dict[str, Any]) -> str:
    """Say in how far what was published is of this set-up."""
    differs = published["differs"]
    return f"another set-up: {'; '.join(differs)}" if differs else "this set-up"


def _joined(encoders: Any) -> str | None:
    return None if encoders is None else "+".join(sorted(config.name for config in encoders))


def _told(key: str, here: Any, there: Any) -> str:
    """Say how one key differs; empty if it does not."""
    if there is None:
        return f"{key} not stated"
    return "" if here == there else f"{key} {here}, not {there}"


def _subjects(here: Sequence[int], there: Sequence[int] | None) -> str:
    """Say of whom of those tested there something is measured; empty if of all."""
    if there is None or sorted(here) == sorted(there):
        return _told("subjects", 0, None if there is None else 0)
    named = f"subject{'s' if len(here) > 1 else ''} {', '.join(map(str, here))}"
    is_share = set(here) < set(there)
    return f"{named} of {len(there)}" if is_share else f"{named}, not {', '.join(map(str, there))}"


def _knobs(here: Any, there: Any) -> list[str]:
    """Say how one brain encoder differs from another, by kind or else by its knobs."""
    if there is None or here.kind != there.kind:
        return [_told("backbone", here.kind, there and there.kind)]
    pairs = ((key, value, getattr(there, key)) for key, value in here)
    return [_told(f"backbone.{key}", mine, theirs) for key, mine, theirs in pairs if mine != theirs]
