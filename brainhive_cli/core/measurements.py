"""Measurements of a run: metrics with context and caveats, in the one document that
every command writes.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import ConfigDict

from brainhive_cli.core import documents
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import FACTS, Facts

F = TypeVar("F", bound=Facts)
SCHEMA = 4
"""The number of the document's format; documents of another one are refused."""
ALL = "all"
"""The scope of everything that was measured, taken together."""
BACKWARD = "backward"
"""End of the scopes of the other direction: a picture searches among the signals."""

# What a reader must know of a number wherever it is shown:
SIMULATED = "simulated"
"""The signals that were tested on come from a program."""
TRAINED_ON_SIMULATED = "trained on simulated signals"
"""Only the signals that were trained on do."""
CALIBRATED = "calibrated on the left-out subject's unlabelled training recordings"
"""A subject who was not trained on gave recordings of training pictures for the
normalisation.
"""
SAME_PERSON = "the same person in another study was trained on"
"""By the publisher's table; scanner, task and pictures differ, and betas were
normalised by study.
"""
WHITENED_BY_TESTED = "transductive whitening by test trials"
"""The noise by which signals were whitened was also measured in (unlabelled) trials of
the test.
"""
UNKNOWN_STEPS = "earlier steps unknown"
"""Trials came as arrays or epochs, and nobody has said whether they had been whitened
or averaged: test trials may have had a part in it.
"""
UNKNOWN_PICTURES = "pictures unknown"
"""Pixels of the pictures that were trained on or tested are not known, so copies are
not noticed.
"""
UNKNOWN_NETWORK = "embeddings of an unknown network"
"""Embeddings were imported, and nothing says what made them: it may have learned from
what is tested.
"""
UNKNOWN_SELECTION = "nothing says how its epoch was selected"
UNKNOWN_HISTORY = "history unknown (selection, subjects, pictures)"
"""Training began from weights that nothing says anything of; it stands for the two
before, too.
"""
SEEN_COPIES = "copies of training pictures are tested"
"""As copies=allow asks."""
SEEN_CONCEPTS = "concepts of the test seen in earlier training"
"""A model learned from other pictures of a tested concept, in another data set or
before this training.
"""
SEEN_PICTURES = "seen pictures"
"""Other trials of the tested pictures or categories were trained on, as
`dataset.holdout` asks.
"""
NOT_INTERLEAVED = "signal or time"
"""Labels were not interleaved in time, so that drift alone says something of them."""
ORDER_UNKNOWN = "order of trials unknown"
"""Nothing says in which order trials were shown, so labels may have come in blocks."""
TRAINED_TRIALS = "tested on trials of its training"
"""Trials that a model learned from were shown to it again: what it says of them is no
result.
"""
UNKNOWN_TRIALS = "trials unknown"
"""The tested pictures were trained on, and nothing says whether these trials of them
were, too.
"""
NORMALISED_BY_TESTED = "normalised by held-out trials"
"""Held-out runs or sessions were z-scored by their own (unlabelled) trials."""
CHANNELS_MAPPED = "channels mapped"
"""Channels that a model was trained on were not recorded; the protocol says how they
were mapped.
"""
TRIALS_TOGETHER = "transductive: tokens of test trials depend on each other"
"""The model gives a test trial another token alone than together with others."""
SELECTED_ON_TEST = "selected on test"
"""The epoch that was kept was chosen on the test set, here or in a model that training
began from.
"""
TWINS = "duplicates among the candidates"
"""Candidates have equal embeddings, so that no signal can tell which was seen."""
PRIOR_OF_OTHERS = "prior trained on other pictures"
"""The prior that draws has learned from another data set than it draws."""
MIXED_WITH_BLURRY = "mixed with the blurry picture: a low-level gain by construction"
"""The scored picture is the mean of a generated one and one that a latent was regressed
to.
"""
ONE_COLOUR = "pictures of one colour"
"""Some reconstructions show nothing, as where a generator overflowed."""
CAVEATS = {
    SIMULATED: "†",
    TRAINED_ON_SIMULATED: "§",
    CALIBRATED: "ᵃ",
    SAME_PERSON: "ᵇ",
    WHITENED_BY_TESTED: "ᶜ",
    UNKNOWN_STEPS: "ᵈ",
    NORMALISED_BY_TESTED: "ᵉ",
    TRAINED_TRIALS: "‖",
    UNKNOWN_TRIALS: "ᶠ",
    SEEN_PICTURES: "¶",
    NOT_INTERLEAVED: "ᵍ",
    ORDER_UNKNOWN: "ᵗ",
    UNKNOWN_PICTURES: "ʰ",
    UNKNOWN_NETWORK: "ⁱ",
    UNKNOWN_SELECTION: "ʲ",
    UNKNOWN_HISTORY: "ᵏ",
    SEEN_COPIES: "ˡ",
    SEEN_CONCEPTS: "ᵐ",
    TWINS: "ⁿ",
    PRIOR_OF_OTHERS: "ᵒ",
    MIXED_WITH_BLURRY: "ᵖ",
    ONE_COLOUR: "ᵘ",
    CHANNELS_MAPPED: "ʳ",
    TRIALS_TOGETHER: "ˢ",
    SELECTED_ON_TEST: "‡",
}
"""All caveats, in the order in which they are listed, each with its footnote sign at a
number: one sign means one caveat, wherever it stands.
"""
NO_RESULT = {
    SELECTED_ON_TEST,
    WHITENED_BY_TESTED,
    NORMALISED_BY_TESTED,
    TRIALS_TOGETHER,
    TRAINED_TRIALS,
    UNKNOWN_TRIALS,
    UNKNOWN_SELECTION,
    UNKNOWN_HISTORY,
    SEEN_COPIES,
}
"""Caveats of numbers that are no results: chosen on test, transductive, learned from
what is tested, or possibly so.
"""
TRANSDUCTIVE = "uses all test signals together: a control, no result"
"""In the protocol of scopes whose similarities were corrected; no caveat, since a run's
result never is.
"""
METRIC_TABLE = documents.read(
    Path(__file__).with_name("metric_table.json"), dict[str, Any]
)
METRIC_NAMES: dict[str, str] = METRIC_TABLE["names"]
"""Names of metrics in tables and figures, as in papers."""
TWO_WAY = "two_way_"
"""Beginning of the names of two-way identification in an encoder's embeddings."""
LOWER_IS_BETTER: list[str] = METRIC_TABLE["lower_is_better"]
SHARES: list[str] = METRIC_TABLE["shares"]
"""Metrics that are shares of cases or of pairs."""
AGREEMENT: dict[str, float] = METRIC_TABLE["agreement"]
"""Agreement of metrics with people: Pearson's r with the ratings of 22 people, of 1,000
pairs of a picture of NSD and its reconstruction by MindEye2 (SEED, arXiv 2503.06437).
Metrics are that paper's: distances of EffNet and SwAV, with their sign turned, and
two-way identification by AlexNet, Inception and CLIP, with its pool.
"""
AGREES = "agreement with people"
HEADLINES = ("top1", "top5", "validation_loss")
"""Metrics by which a run is summarised, if it has them; else by two-way identification,
or its first.
"""


@dataclass(frozen=True)
class Metric:
    """A value with its context.

    Attributes:
        name: What was measured.
        value: The measurement.
        n: Items that it was measured on, over all subjects.
        pool: Candidates that each item was compared with; None if there are none.
        chance: Value expected of guessing; None if the metric has none.
        low: Lower end of the 95 % confidence interval; None where there is none, as of
            one item.
        high: Upper end.
        seeds: Seeds of the trainings that were measured.
        protocol: Name of the way it was measured.
        split: Part of the data set that it was measured on.
        interval: How the interval was made, and for whom it holds.
        these_subjects: Of several subjects, the interval over units alone, which holds
            for them only.
        people: Of several subjects, the interval for people in general; None where it
            says nothing. To four subjects the interval is that of these subjects, from
            five that for people.
        seed_sd: Standard deviation of the value over seeds; None where there is one, or
            seeds cannot be distinguished. No interval contains it: they are of models
            trained with these seeds.
        selected: Whether anything, as the epoch of a model, was selected on the test
            split; None if unknown.
        caveats: What a reader must know of the value wherever it is shown; those that
            its protocol names are always among them.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    value: float
    n: int
    pool: int | None
    chance: float | None
    low: float | None
    high: float | None
    seeds: tuple[int, ...]
    protocol: str
    split: str
    interval: str
    # of several subjects; `low` and `high` repeat one of these two intervals
    these_subjects: tuple[float, float] | None = None
    people: tuple[float, float] | None = None
    seed_sd: float | None = None
    selected: bool | None = False
    caveats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Complete the caveats by those of the protocol, so that none is lost whoever
        makes the metric.
        """
        # caveats of the metric, of its protocol, and of its selection
        complete = merge_caveats(
            self.caveats,
            find_caveats(self.protocol),
            [SELECTED_ON_TEST] if self.selected else [],
        )
        object.__setattr__(self, "caveats", tuple(complete))  # the dataclass is frozen

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, for JSON."""
        # JSON has lists and no tuples
        plain = asdict(self)
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in plain.items()
        }

    def interval_text(self, digits: int = 3) -> str:
        """Write the interval for a table: a dash where there is none."""
        return interval_text(self.low, self.high, digits)

    def beside_text(self, digits: int = 3) -> str:
        """Write the second interval: for people in general where the first is of these
        subjects.
        """
        # `low` and `high` are of the other reach
        low, high = (self.these_subjects if self.is_of_people else self.people) or (
            None,
            None,
        )
        return interval_text(low, high, digits)

    @property
    def is_of_people(self) -> bool:
        """Whether the interval is for people in general."""
        return self.people is not None and self.people == (self.low, self.high)


def interval_text(low: float | None, high: float | None, digits: int = 3) -> str:
    """Write an interval for a table: a dash where there is none."""
    if low is None or high is None:
        return "–"
    to = " to " if low < 0 else "–"  # a dash before a minus sign reads as another one
    return f"{low:.{digits}f}{to}{high:.{digits}f}"


def beside_heading(metrics: Iterable[Metric]) -> str:
    """Name the second interval of some metrics, for the head of a column; empty where
    none has one.
    """
    # a heading is needed where a metric is of several subjects
    several = [metric for metric in metrics if metric.these_subjects or metric.people]
    if not several:
        return ""
    if any(metric.is_of_people for metric in several):
        return "these subjects"
    return "people in general"


@dataclass(frozen=True)
class Measurements:
    """All that a run measured: `{schema, scopes, missing, facts, items}` in JSON.

    Attributes:
        scopes: Metrics by scope and name. A scope says what they are of: `all`,
            `subject 1`, the name of a cell, `brain · subject 1` (see `scope`).
        missing: What could not be measured, and how to get it.
        facts: All else that a reader of the numbers must know: caveats, set-up,
            comparisons with other runs.
        items: Raw values, from which runs are compared item by item: by scope,
            `image_ids` [N] and lists [N] by name.
    """

    scopes: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    items: Mapping[str, Mapping[str, list[Any]]] = field(default_factory=dict)

    @property
    def overall(self) -> Mapping[str, Metric]:
        """The metrics of everything taken together; none if there is no such scope."""
        return self.scopes.get(ALL, {})

    @property
    def caveats(self) -> list[str]:
        """Caveats that are shown with the numbers everywhere."""
        return self.facts.caveats

    def facts_of(self, model: type[F]) -> F:
        """Give the facts as those of a command.

        Raises:
            BrainhiveError: if they are of another command.
        """
        if not isinstance(self.facts, model):
            raise BrainhiveError(
                f"these are no {model.__name__}", documents.DAMAGED_HINT
            )
        return self.facts

    def rows(self) -> list[dict[str, Any]]:
        """Give each metric of each scope as one flat row of its context, as tables of
        data frames want it.
        """
        rows = []
        for scope_name, metrics in self.scopes.items():
            for metric in metrics.values():
                # intervals become two columns each
                row = {"scope": scope_name, "metric": metric.name, **asdict(metric)}
                row["agreement"] = AGREEMENT.get(metric.name)
                for reach in ("these_subjects", "people"):
                    row[f"{reach}_low"], row[f"{reach}_high"] = row.pop(reach) or (
                        None,
                        None,
                    )
                rows.append({key: row[key] for key in row if key != "name"})
        return rows

    def __or__(self, other: Self) -> Self:
        """Put two together; where both have a key, it is the second one's. Facts are
        the first one's.
        """
        scopes = {**self.scopes, **other.scopes}
        missing = {**self.missing, **other.missing}
        return type(self)(scopes, missing, self.facts, {**self.items, **other.items})

    def stating(self, **facts: Any) -> Self:
        """Add to the facts."""
        return replace(self, facts=self.facts.model_copy(update=facts))

    def of_variant(self, variant: str) -> Self:
        """Give what a sweep measured of one variant; caveats and warnings are of
        all.
        """
        # scopes of the variant, without its label
        # as retrieval and training name scopes
        prefixes = (f"{variant} · ", f"{variant}/")

        def choose(named: Mapping[str, Any]) -> dict[str, Any]:
            return {
                name.removeprefix(prefix): value
                for name, value in named.items()
                for prefix in prefixes
                if name.startswith(prefix)
            }

        # facts of the sweep as a whole are left out
        of_all: dict[str, Any] = {
            "variants": {},
            "comparisons": [],
            "not_compared": [],
            "published": {},
        }
        facts = self.facts.model_copy(
            update={**of_all, "cells": choose(self.facts.cells)}
        )
        return type(self)(choose(self.scopes), self.missing, facts, choose(self.items))

    def as_dict(self) -> dict[str, Any]:
        """Give the document as plain values, for JSON."""
        scopes = {
            scope: {name: metric.as_dict() for name, metric in metrics.items()}
            for scope, metrics in self.scopes.items()
        }
        facts = self.facts.model_dump()
        rest = {
            "missing": dict(self.missing),
            "facts": facts,
            "items": dict(self.items),
        }
        return {"schema": SCHEMA, "scopes": scopes, **rest}

    @classmethod
    def read(cls, document: Mapping[str, Any], path: object) -> Self:
        """Read what `as_dict` gave.

        Args:
            document: Plain values.
            path: Where they come from, for the message.

        Raises:
            BrainhiveError: if they are of another schema, or damaged.
        """
        documents.require_schema(document, SCHEMA, f"{path} holds metrics")

        # the facts of its command first: their errors name the key in them
        about = documents.check(document.get("facts"), f"{path}: facts", dict[str, Any])
        model = FACTS.get(str(about.get("command")), Facts)
        facts = documents.check(about, f"{path}: facts", model)

        # then all fields, with the facts as the model of their command
        plain = {field.name: document.get(field.name) for field in fields(cls)}
        measurements = documents.check({**plain, "facts": facts}, str(path), cls)

        # each source of pictures must have metrics
        if absent := [
            name for name in facts.sources if name not in measurements.scopes
        ]:
            raise BrainhiveError(
                f"{path}: facts.sources names {documents.show_value(absent[0])}, "
                "which is no scope of it",
                documents.DAMAGED_HINT,
            )
        return measurements


def scope(*parts: str) -> str:
    """Name what metrics are of, as `brain · subject 1`; parts that are empty are left
    out.
    """
    return " · ".join(filter(None, parts))


def by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """Give metrics by their names."""
    return {metric.name: metric for metric in metrics}


def merge_caveats(*lists: Iterable[str]) -> list[str]:
    """List the caveats of several things, each once and in their order."""
    # some caveats say what others say, and more
    present = {caveat for caveats in lists for caveat in caveats}
    if SIMULATED in present:
        present.discard(TRAINED_ON_SIMULATED)  # nothing was recorded at all
    if UNKNOWN_HISTORY in present:
        present -= {UNKNOWN_PICTURES, UNKNOWN_SELECTION}
    return [caveat for caveat in CAVEATS if caveat in present]


def find_caveats(text: str) -> list[str]:
    """List the caveats that a title or a protocol contains, as whole words."""
    contained = set()

    # each is cut out of the text, so that no part of it is taken for another
    # some contain the words of another
    for caveat in sorted(CAVEATS, key=len, reverse=True):
        if caveat in text:
            text, count = re.subn(rf"(?<![\w-]){re.escape(caveat)}(?![\w-])", "", text)
            contained |= {caveat} if count else set()
    return [caveat for caveat in CAVEATS if caveat in contained]


def extend_protocol(protocol: str, caveats: Iterable[str]) -> str:
    """Add to a protocol the caveats that it does not contain."""
    return ", ".join([protocol, *_find_lacking(protocol, caveats)])


def extend_title(title: str, caveats: Iterable[str]) -> str:
    """Add to a title, in brackets, the caveats that it does not contain."""
    lacking = _find_lacking(title, caveats)
    return f"{title} ({', '.join(lacking)})" if lacking else title


def _find_lacking(text: str, caveats: Iterable[str]) -> list[str]:
    """List the caveats that a text does not contain."""
    contained = find_caveats(text)
    return [caveat for caveat in merge_caveats(caveats) if caveat not in contained]


def mark(text: str, caveats: Iterable[str]) -> str:
    """Add the footnote signs of its caveats to a number or its name."""
    return text + "".join(CAVEATS[caveat] for caveat in merge_caveats(caveats))


def list_footnotes(caveats: Iterable[str]) -> str:
    """List caveats behind their footnote signs, in short; empty without any."""
    return "; ".join(f"{CAVEATS[caveat]} {caveat}" for caveat in merge_caveats(caveats))


def add_footnotes(note: str, caveats: Iterable[str]) -> str:
    """Add to a note, behind their footnote signs, the caveats that it does not explain
    yet.
    """
    listed = merge_caveats(caveats)
    lacking = [each for each in listed if f"{CAVEATS[each]} {each}" not in note]
    return f"{note} {list_footnotes(lacking)}".strip()


def caveats_of(metrics: Iterable[Metric | None]) -> list[str]:
    """List the caveats of metrics; None has none."""
    return merge_caveats(*(metric.caveats for metric in metrics if metric is not None))


def name_rows(metrics: Mapping[str, Iterable[Metric | None]]) -> dict[str, str]:
    """Add to the labels of rows of metrics, in brackets, the caveats that not all rows
    have.
    """
    caveats = {label: caveats_of(row_metrics) for label, row_metrics in metrics.items()}
    # a caveat of every row does not tell rows apart
    shared = set.intersection(*map(set, caveats.values())) if caveats else set()
    return {
        label: extend_title(label, set(listed) - shared)
        for label, listed in caveats.items()
    }


def shown(name: str) -> str:
    """Name a metric for people, as in papers."""
    # two-way identification carries the name of its encoder
    if name.startswith(TWO_WAY):
        return f"two-way ({name.removeprefix(TWO_WAY)})"
    return METRIC_NAMES.get(name, name.replace("_", " "))


def with_arrow(name: str) -> str:
    """Name a metric for the head of a table; ↓ where less is better."""
    return f"{shown(name)} ↓" if lower_is_better(name) else shown(name)


def sort_by_agreement(names: Iterable[str]) -> list[str]:
    """Sort metrics by agreement with people; those of unknown agreement come last."""
    return sorted(names, key=lambda name: -AGREEMENT.get(name, 0))


def lower_is_better(name: str) -> bool:
    """Whether less is better."""
    return name in LOWER_IS_BETTER


def is_share(name: str) -> bool:
    """Whether people read a metric in percent: a share of cases or pairs."""
    return name in SHARES or name.startswith(TWO_WAY)


def headlines(names: list[str]) -> list[str]:
    """Choose one or two metrics by which a run is summarised; SSIM, which smooth
    pictures win, is last.
    """
    # at most two: headlines, else two-way identification, else the first
    chosen = [name for name in HEADLINES if name in names]
    two_way = [
        name
        for name in names
        if name.startswith((TWO_WAY, "video_50way")) or name == "clip"
    ]
    two_way += ["ssim"] if "ssim" in names else []
    return (chosen or two_way or names)[:2]
