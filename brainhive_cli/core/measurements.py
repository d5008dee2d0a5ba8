"""Measurements of a run: metrics with their context, caveats and facts.

Every command writes its measurements into a file of the same format, `metrics.json`.
Some words recur:

- A run is the folder with the results of a command. A sweep is a run that tries several
  variants of its settings.
- A caveat is a fixed phrase that limits the meaning of a number, such as `simulated`.
- A scope is a group of metrics, named after the subjects, models or conditions that
  were measured, such as `all` or `subject 1`.
- A cell is a model that was trained for a subject (or for all) with a seed.
- Facts are all results of a command that are not numbers with an interval.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import ConfigDict

from brainhive_cli.core import documents
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import FACTS, Facts

F = TypeVar("F", bound=Facts)
SCHEMA = 4
"""Version of the format of `metrics.json`. Files of other versions are rejected."""
ALL = "all"
"""Name of the scope that holds the metrics of all measured items together."""
BACKWARD = "backward"
"""End of the names of scopes for backward retrieval, which ranks signals by their
similarity to a picture.
"""

# The caveats follow. The text below each caveat explains the phrase
SIMULATED = "simulated"
"""The tested signals come from a program."""
TRAINED_ON_SIMULATED = "trained on simulated signals"
"""The training signals come from a program, but the tested signals do not."""
CALIBRATED = "calibrated on the left-out subject's unlabelled training recordings"
"""The subject was left out of the training, but recordings of this subject (of training
pictures) were used for normalisation.
"""
SAME_PERSON = "the same person in another study was trained on"
"""A subject of the training and a tested subject are the same person, as the publisher
of the data says. Scanner, task and pictures differ between the studies, and betas were
normalised separately in each study.
"""
WHITENED_BY_TESTED = "transductive whitening by test trials"
"""The noise for whitening was also measured in the (unlabelled) test trials."""
UNKNOWN_STEPS = "earlier steps unknown"
"""Trials were imported as arrays or epochs. Nobody has declared whether the trials were
whitened or averaged before, so test trials may have affected other trials.
"""
UNKNOWN_PICTURES = "pictures unknown"
"""The pixels of the training or test pictures are not available, so copies are not
detected.
"""
UNKNOWN_NETWORK = "embeddings of an unknown network"
"""Embeddings were imported without the name of their network. This network may have
been trained on the tested pictures.
"""
UNKNOWN_SELECTION = "nothing says how its epoch was selected"
"""The model does not record how its epoch was selected."""
UNKNOWN_HISTORY = "history unknown (selection, subjects, pictures)"
"""Training continued from weights without any record of their own training. This caveat
includes `UNKNOWN_PICTURES` and `UNKNOWN_SELECTION`.
"""
SEEN_COPIES = "copies of training pictures are tested"
"""Copies of training pictures are tested, which the recipe allows by copies=allow."""
SEEN_CONCEPTS = "concepts of the test seen in earlier training"
"""A model was trained on other pictures of a tested concept. This happened in another
data set, or in an earlier training from which this training continued.
"""
SEEN_PICTURES = "seen pictures"
"""The model was trained on other trials of the tested pictures or categories, as the
recipe key `dataset.holdout` says.
"""
NOT_INTERLEAVED = "signal or time"
"""The labels of trials came in blocks, so a slow drift of the signal is enough to
predict the labels.
"""
ORDER_UNKNOWN = "order of trials unknown"
"""The order of the trials is unknown, so their labels may have come in blocks."""
TRAINED_TRIALS = "tested on trials of its training"
"""The model is tested on trials that it was trained on."""
UNKNOWN_TRIALS = "trials unknown"
"""The model was trained on the tested pictures. Perhaps it was trained on the tested
trials too.
"""
NORMALISED_BY_TESTED = "normalised by held-out trials"
"""Held-out runs or sessions were z-scored with their own (unlabelled) trials."""
CHANNELS_MAPPED = "channels mapped"
"""Some channels that the model needs were not recorded. The protocol says how they were
replaced.
"""
TRIALS_TOGETHER = "transductive: tokens of test trials depend on each other"
"""The token (output vector of the model) of a test trial depends on the other trials in
its batch.
"""
SELECTED_ON_TEST = "selected on test"
"""The epoch of this model was selected on the test set, or the epoch of the model from
which the training continued.
"""
TWINS = "duplicates among the candidates"
"""Some candidates have equal embeddings, so no signal can tell them apart."""
PRIOR_OF_OTHERS = "prior trained on other pictures"
"""The prior was trained on another data set than the reconstructed one."""
MIXED_WITH_BLURRY = "mixed with the blurry picture: a low-level gain by construction"
"""The scored picture is the mean of a generated picture and of a blurry picture, which
was predicted by regression. Mixing raises low-level scores by itself.
"""
ONE_COLOUR = "pictures of one colour"
"""Some reconstructions are a single colour, for example because a generator overflowed.
"""
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
"""Footnote sign of each caveat. The order is the order in which caveats are listed. A
sign has the same meaning on all pages.
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
"""Caveats of numbers that do not count as results. The model was selected on the test
set, was trained on the tested data or used all test trials together, or it is unknown
whether it did.
"""
TRANSDUCTIVE = "uses all test signals together: a control, no result"
"""Phrase in the protocol of metrics from similarities that were corrected by all test
signals. It is not a caveat of a run, because the main result of a run never uses such
similarities.
"""
METRIC_TABLE = documents.read(
    Path(__file__).with_name("metric_table.json"), dict[str, Any]
)
METRIC_NAMES: dict[str, str] = METRIC_TABLE["names"]
"""Title of each metric in tables and figures, as in papers."""
TWO_WAY = "two_way_"
"""Beginning of the names of metrics for two-way identification. The name of the encoder
follows.
"""
LOWER_IS_BETTER: list[str] = METRIC_TABLE["lower_is_better"]
"""Names of metrics of which smaller values are better."""
SHARES: list[str] = METRIC_TABLE["shares"]
"""Names of metrics that are shares of items or pairs, from 0 to 1."""
AGREEMENT: dict[str, float] = METRIC_TABLE["agreement"]
"""Agreement of metrics with people. It is Pearson's r with the ratings of 22 people for
1,000 pairs of an NSD picture and its reconstruction by MindEye2 (SEED, arXiv
2503.06437). The metrics are defined as in this paper: distances of EffNet and SwAV with
reversed sign, and two-way identification by AlexNet, Inception and CLIP with the
paper's pool.
"""
AGREEMENT_HEADING = "agreement with people"
"""Heading of the column or row with the agreements in `AGREEMENT`."""
HEADLINES = ("top1", "top5", "validation_loss")
"""Names of metrics that summarise a run, if the run has them."""


@dataclass(frozen=True)
class Metric:
    """Measured value with its context.

    With several subjects there are two intervals. `these_subjects` holds for these
    subjects only, and `people` for people in general. The interval from `low` to `high`
    repeats `these_subjects` for up to four subjects, and `people` from five subjects
    on.

    Attributes:
        name: Name of the metric.
        value: Measured value.
        n: Number of measured items over all subjects.
        pool: Number of candidates of each item, or None without candidates.
        chance: Expected value of guessing, or None if the metric has no such value.
        low: Lower end of the 95 % confidence interval. It is None if there is no
            interval, for example with a single item.
        high: Upper end of the interval.
        seeds: Seeds of the measured trainings.
        protocol: Description of how the value was measured, in one line.
        split: Part of the data set that was measured, such as `test`.
        interval: Method of the interval, and the subjects and items it holds for.
        these_subjects: Ends of the interval that holds for these subjects only, or None
            for a single subject.
        people: Ends of the interval that holds for people in general, or None if there
            are too few subjects.
        seed_sd: Standard deviation of the value over seeds. It is None for a single
            seed, or if seeds cannot be distinguished. Intervals do not include it,
            because they hold for models trained with these seeds.
        selected: True if something was selected on the test split, such as the epoch of
            a model. None if this is unknown.
        caveats: Phrases in `CAVEATS` that limit the value. Phrases that the protocol
            contains are added.
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
    these_subjects: tuple[float, float] | None = None
    people: tuple[float, float] | None = None
    seed_sd: float | None = None
    selected: bool | None = False
    caveats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Add the caveats of the protocol and of the selection."""
        caveats = merge_caveats(self.caveats, find_caveats(self.protocol))
        if self.selected:
            caveats = merge_caveats(caveats, [SELECTED_ON_TEST])
        object.__setattr__(self, "caveats", tuple(caveats))  # the dataclass is frozen

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON. Tuples become lists."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    def interval_text(self, digits: int = 3) -> str:
        """Write the interval from `low` to `high` for a table, or a dash without it."""
        return interval_text(self.low, self.high, digits)

    def second_interval_text(self, digits: int = 3) -> str:
        """Write the second interval for a table, or a dash without it.

        `low` and `high` repeat either `these_subjects` or `people`. The second interval
        is the other of these two.
        """
        interval = self.these_subjects if self.is_of_people else self.people
        low, high = interval or (None, None)
        return interval_text(low, high, digits)

    @property
    def is_of_people(self) -> bool:
        """True if `low` and `high` are the interval for people in general."""
        return self.people is not None and self.people == (self.low, self.high)


def interval_text(low: float | None, high: float | None, digits: int = 3) -> str:
    """Write an interval for a table, such as `0.213–0.402`.

    Args:
        low: Lower end, or None if there is no interval. The text is then a dash.
        high: Upper end, or None if there is no interval.
        digits: Number of decimals.
    """
    if low is None or high is None:
        return "–"
    # a dash before a minus sign would look like a second dash
    separator = " to " if low < 0 else "–"
    return f"{low:.{digits}f}{separator}{high:.{digits}f}"


def second_interval_heading(metrics: Iterable[Metric]) -> str:
    """Return the heading of a column with the second intervals of metrics.

    A metric may have two confidence intervals: an interval for the measured subjects
    only, and an interval for people in general. Tables print the main interval of a
    metric first. The column of second intervals prints the other interval.

    Args:
        metrics: Metrics of the rows.

    Returns:
        - "these subjects", if the main interval of any metric is for people in general.
        - Otherwise "people in general", if any metric has one of the two intervals.
        - Otherwise an empty text.
    """
    has_second_interval = False
    for metric in metrics:
        if metric.is_of_people:
            return "these subjects"
        if metric.these_subjects or metric.people:
            has_second_interval = True
    return "people in general" if has_second_interval else ""


@dataclass(frozen=True)
class Measurements:
    """Measurements of a run.

    The JSON document has the keys `schema`, `scopes`, `missing`, `facts` and `items`.

    Attributes:
        scopes: Metrics by name of the scope and name of the metric. A scope is `all`, a
            subject such as `subject 1`, a cell (trained model), or a combination such
            as `brain · subject 1` (see `scope`).
        missing: Reason why a measurement is missing and what a user can do about it, by
            name of the measurement.
        facts: Other results, such as caveats, set-up and comparisons with other runs.
        items: Values of the N single items, by which runs are compared. The keys are
            the name of the scope and the name of a list [N], such as `image_ids`.
    """

    scopes: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    items: Mapping[str, Mapping[str, list[Any]]] = field(default_factory=dict)

    @property
    def overall(self) -> Mapping[str, Metric]:
        """Metrics of the scope `all`. Empty without this scope."""
        return self.scopes.get(ALL, {})

    @property
    def caveats(self) -> list[str]:
        """Caveats of all numbers."""
        return self.facts.caveats

    def require_facts(self, model: type[F]) -> F:
        """Return the facts, after a check that they belong to the expected command.

        Args:
            model: Class of the expected command's facts, such as `RetrievalFacts`.

        Raises:
            BrainhiveError: if the facts belong to another command.
        """
        if not isinstance(self.facts, model):
            raise BrainhiveError(
                f"these are no {model.__name__}", documents.DAMAGED_HINT
            )
        return self.facts

    def rows(self) -> list[dict[str, Any]]:
        """Return a flat row for each metric of each scope, for a data frame.

        A scope is the subject or trained model that a metric is computed for, or `all`.

        Returns:
            Rows, each a dict with these keys:

            - `scope` and `metric`: the two names.
            - The fields of the metric, such as its value. Its two intervals become the
              keys `these_subjects_low`, `these_subjects_high`, `people_low` and
              `people_high`.
            - `agreement`: the correlation of the metric with ratings of pictures by
              people, or None if this is not known.
        """
        rows = []
        for scope_name, metrics in self.scopes.items():
            for metric in metrics.values():
                row = {"scope": scope_name, "metric": metric.name, **asdict(metric)}
                del row["name"]
                row["agreement"] = AGREEMENT.get(metric.name)

                # an interval becomes two columns
                for field_name in ("these_subjects", "people"):
                    low, high = row.pop(field_name) or (None, None)
                    row[f"{field_name}_low"] = low
                    row[f"{field_name}_high"] = high
                rows.append(row)
        return rows

    def __or__(self, second: Self) -> Self:
        """Merge these measurements with others.

        If both have a scope of the same name, the second one is kept. The facts are
        taken from the first measurements.
        """
        return type(self)(
            scopes={**self.scopes, **second.scopes},
            missing={**self.missing, **second.missing},
            facts=self.facts,
            items={**self.items, **second.items},
        )

    def with_facts(self, **facts: Any) -> Self:
        """Return a copy in which some fields of the facts are replaced."""
        return replace(self, facts=self.facts.model_copy(update=facts))

    def select_variant(self, variant: str) -> Self:
        """Return the measurements of a variant of a sweep.

        A sweep is a run that tries several variants of its settings. The caveats and
        warnings of the whole sweep are kept.

        Args:
            variant: Name of the variant.

        Returns:
            Measurements whose keys no longer contain the name of the variant, such as
            `subject 1` instead of `VARIANT · subject 1`.
        """
        # facts are results other than metrics, such as warnings
        facts: dict[str, Any] = {
            "cells": _select_variant(self.facts.cells, variant),
            # empty the fields that describe the sweep as a whole
            "variants": {},
            "comparisons": [],
            "not_compared": [],
            "published": {},
        }
        return type(self)(
            scopes=_select_variant(self.scopes, variant),
            missing=self.missing,
            facts=self.facts.model_copy(update=facts),
            items=_select_variant(self.items, variant),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `metrics.json` as plain values."""
        scopes = {}
        for scope_name, metrics in self.scopes.items():
            scopes[scope_name] = {
                name: metric.as_dict() for name, metric in metrics.items()
            }
        return {
            "schema": SCHEMA,
            "scopes": scopes,
            "missing": dict(self.missing),
            "facts": self.facts.model_dump(),
            "items": dict(self.items),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any], path: object) -> Self:
        """Check the content of a `metrics.json`, and make measurements from it.

        Args:
            document: Plain values, as `as_dict` returns them.
            path: Path of the file, for error messages.

        Raises:
            BrainhiveError: if the file is damaged, or has another version of the format
                (`schema`).
        """
        documents.require_schema(document, SCHEMA, f"{path} holds metrics")

        # Check the facts (results other than metrics) first. Their class depends on the
        # command that made the run.
        plain_facts = documents.check(
            document.get("facts"), f"{path}: facts", dict[str, Any]
        )
        model = FACTS.get(str(plain_facts.get("command")), Facts)
        facts = documents.check(plain_facts, f"{path}: facts", model)

        # check the whole document, with the facts as an instance of their class
        values = {field.name: document.get(field.name) for field in fields(cls)}
        values["facts"] = facts
        measurements = documents.check(values, str(path), cls)

        # A source is the origin of reconstructed pictures, such as `brain`. Check that
        # each source has metrics.
        for source in facts.sources:
            if source not in measurements.scopes:
                raise BrainhiveError(
                    f"{path}: facts.sources names {documents.show_value(source)}, but "
                    "there is no such scope",
                    documents.DAMAGED_HINT,
                )
        return measurements


def _select_variant(values: Mapping[str, Any], variant: str) -> dict[str, Any]:
    """Select the values of a variant, and remove the variant from their keys.

    Args:
        values: Values, such as the metrics, keyed by variant and subject or trained
            model, such as `VARIANT · subject 1`.
        variant: Name of a variant (a set of settings that a run tries).

    Returns:
        Values of the variant, keyed by the remaining name, such as `subject 1`.
    """
    selected = {}
    for name, value in values.items():
        # retrieval and training use different separators
        for prefix in (f"{variant} · ", f"{variant}/"):
            if name.startswith(prefix):
                selected[name.removeprefix(prefix)] = value
    return selected


def scope(*parts: str) -> str:
    """Make the name of a scope (a group of metrics), such as `brain · subject 1`.

    Args:
        parts: Parts of the name, such as `brain` and `subject 1`. Empty parts are left
            out.
    """
    return " · ".join(filter(None, parts))


def index_by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """Return a dict of metrics by name."""
    return {metric.name: metric for metric in metrics}


def merge_caveats(*lists: Iterable[str]) -> list[str]:
    """Merge lists of caveats, which are fixed phrases that limit a number.

    Args:
        lists: Lists of phrases in `CAVEATS`.

    Returns:
        Each phrase once, in the order of `CAVEATS`. A caveat is left out if another
        caveat of the result includes it.
    """
    caveats = set(chain.from_iterable(lists))
    if SIMULATED in caveats:
        caveats.discard(TRAINED_ON_SIMULATED)
    if UNKNOWN_HISTORY in caveats:
        caveats -= {UNKNOWN_PICTURES, UNKNOWN_SELECTION}
    return [caveat for caveat in CAVEATS if caveat in caveats]


def find_caveats(text: str) -> list[str]:
    """List the caveats whose phrase occurs in a title or protocol, as whole words."""
    caveats = set()

    # a phrase may contain a shorter phrase, such as `trained on simulated signals` and
    # `simulated`. So search for long phrases first, and remove them from the text
    for caveat in sorted(CAVEATS, key=len, reverse=True):
        if caveat in text:
            pattern = rf"(?<![\w-]){re.escape(caveat)}(?![\w-])"
            text, count = re.subn(pattern, "", text)
            if count:
                caveats.add(caveat)
    return [caveat for caveat in CAVEATS if caveat in caveats]


def extend_protocol(protocol: str, caveats: Iterable[str]) -> str:
    """Append the phrases of caveats that a protocol does not contain yet."""
    return ", ".join([protocol, *_list_new_caveats(protocol, caveats)])


def extend_title(title: str, caveats: Iterable[str]) -> str:
    """Append the phrases of caveats that a title does not contain yet, in brackets."""
    new_caveats = _list_new_caveats(title, caveats)
    return f"{title} ({', '.join(new_caveats)})" if new_caveats else title


def _list_new_caveats(text: str, caveats: Iterable[str]) -> list[str]:
    """List the caveats whose phrase does not occur in a text yet."""
    text_caveats = find_caveats(text)
    return [caveat for caveat in merge_caveats(caveats) if caveat not in text_caveats]


def mark(text: str, caveats: Iterable[str]) -> str:
    """Append the footnote signs of caveats to a number or name."""
    return text + "".join(CAVEATS[caveat] for caveat in merge_caveats(caveats))


def list_footnotes(caveats: Iterable[str]) -> str:
    """Write caveats with their footnote signs. Without caveats the text is empty."""
    return "; ".join(f"{CAVEATS[caveat]} {caveat}" for caveat in merge_caveats(caveats))


def add_footnotes(note: str, caveats: Iterable[str]) -> str:
    """Append the footnotes of caveats that a note does not explain yet."""
    new_caveats = [
        caveat
        for caveat in merge_caveats(caveats)
        if f"{CAVEATS[caveat]} {caveat}" not in note
    ]
    return f"{note} {list_footnotes(new_caveats)}".strip()


def list_metric_caveats(metrics: Iterable[Metric | None]) -> list[str]:
    """List the caveats that some of the metrics have, and skip None."""
    return merge_caveats(*(metric.caveats for metric in metrics if metric is not None))


def name_rows(metrics: Mapping[str, Iterable[Metric | None]]) -> dict[str, str]:
    """Name the rows of a table by their labels, followed by their caveats in brackets.

    Caveats are fixed phrases that limit a number. Caveats that all rows have are left
    out, because they do not distinguish rows.

    Args:
        metrics: Metrics of each row, keyed by the label of the row. Items of None are
            skipped.

    Returns:
        Names of the rows, such as `ridge (seen pictures)`, keyed by the label.
    """
    caveats = {
        label: list_metric_caveats(row_metrics)
        for label, row_metrics in metrics.items()
    }
    shared_caveats = set(CAVEATS)
    for row_caveats in caveats.values():
        shared_caveats &= set(row_caveats)
    return {
        label: extend_title(label, set(row_caveats) - shared_caveats)
        for label, row_caveats in caveats.items()
    }


def metric_title(name: str) -> str:
    """Return the title of a metric in tables, as in papers."""
    # the name of two-way identification ends with the encoder
    if name.startswith(TWO_WAY):
        return f"two-way ({name.removeprefix(TWO_WAY)})"
    return METRIC_NAMES.get(name, name.replace("_", " "))


def with_arrow(name: str) -> str:
    """Return the title of a metric, followed by ↓ if smaller values are better."""
    return f"{metric_title(name)} ↓" if lower_is_better(name) else metric_title(name)


def sort_by_agreement(names: Iterable[str]) -> list[str]:
    """Sort names of metrics by their agreement with ratings of people (`AGREEMENT`).

    The highest agreement comes first. Metrics of unknown agreement count as 0.
    """
    return sorted(names, key=lambda name: -AGREEMENT.get(name, 0))


def lower_is_better(name: str) -> bool:
    """Return True if smaller values of a metric are better."""
    return name in LOWER_IS_BETTER


def is_share(name: str) -> bool:
    """Return True if a metric is a share of items or pairs, written in percent."""
    return name in SHARES or name.startswith(TWO_WAY)


def choose_headlines(names: list[str]) -> list[str]:
    """Choose up to two metrics that summarise a run.

    Args:
        names: Names of the metrics that the run has.

    Returns:
        Up to two names, from the first of these lists that is not empty:

        - The names in `HEADLINES` that the run has.
        - Metrics that measure how well reconstructed pictures or videos identify the
          original pictures or videos, and SSIM (structural similarity).
        - All names of the run.
    """
    headline_names = [name for name in HEADLINES if name in names]
    if headline_names:
        return headline_names[:2]
    identification_names = [
        name
        for name in names
        if name.startswith((TWO_WAY, "video_50way")) or name == "clip"
    ]
    # SSIM comes last, because smooth pictures score high in it
    if "ssim" in names:
        identification_names.append("ssim")
    return (identification_names or names)[:2]
