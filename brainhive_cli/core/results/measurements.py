"""Measurements of a run: metrics with their context, caveats and facts.

- A run is the folder with the results of a command, such as `metrics.json`.
- A caveat is a fixed phrase that limits the meaning of a number, such as `simulated`.
- A scope is a named group of metrics, such as `all` or `subject 1`.
- A cell is a model that was trained for a subject (or for all) with a seed.
- Facts are the results of a command other than metrics.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import ConfigDict

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.core.files import documents
from brainhive_cli.core.results.facts import CellFacts, Facts, find_model

F = TypeVar("F", bound=Facts)
SCHEMA = 4
"""Version of the format of `metrics.json`. Files of other versions are rejected."""
ALL = "all"
"""Name of the scope that holds the metrics of all measured items together."""
MODEL_HEADING = "model (person, seed)"
"""Heading of the names of cells in tables."""
BACKWARD = "backward"
"""End of the names of scopes for backward retrieval (of signals by pictures)."""
CORRECTIONS = "corrections"
"""First part of the names of scopes of similarities corrected by all test signals."""
DESIGN_ALONE = "plain · design alone"
"""Scope of the baseline that knows the design of the study, but no signals."""

SIMULATED = "simulated"
"""The tested signals come from a program."""
TRAINED_ON_SIMULATED = "trained on simulated signals"
"""The training signals come from a program, but the tested signals do not."""
CALIBRATED = "calibrated on the left-out subject's unlabelled training recordings"
"""Unlabelled recordings of the left-out subject were used for normalisation."""
SAME_PERSON = "the same person in another study was trained on"
"""A subject of the training and a tested subject are the same person, as the publisher
of the data says. The studies differ.
"""
WHITENED_BY_TESTED = "transductive whitening by test trials"
"""The noise for whitening was also measured in the (unlabelled) test trials."""
UNKNOWN_STEPS = "earlier steps unknown"
"""Trials were imported, and nobody has declared whether they were whitened or averaged
before, so test trials may have affected other trials.
"""
ACCEPTED = "losses accepted"
"""Something in the recordings did not add up, and `preparation.accept` accepted it."""
UNKNOWN_PICTURES = "pictures unknown"
"""Pixels of training or test pictures are not available, so copies are not detected. Or
training started from published weights whose training data are not fully known.
"""
UNKNOWN_NETWORK = "embeddings of an unknown network"
"""Embeddings were imported without the name of their network, which may have been
trained on the tested pictures.
"""
UNKNOWN_SELECTION = "nothing says how its epoch was selected"
"""The model does not record how its epoch was selected."""
UNKNOWN_HISTORY = "history unknown (selection, subjects, pictures)"
"""Training continued from weights without a record of their training. This includes
`UNKNOWN_PICTURES` and `UNKNOWN_SELECTION`.
"""
SEEN_COPIES = "copies of training pictures are tested"
"""Copies of training pictures are tested, which the recipe allows by copies=allow."""
SEEN_CONCEPTS = "concepts of the test seen in earlier training"
"""A model was trained on other pictures of a tested concept, in another data set or in
an earlier training.
"""
SEEN_PICTURES = "same stimuli in training"
"""The model was trained on other trials of the tested pictures or categories, as the
recipe key `dataset.holdout` says.
"""
NOT_INTERLEAVED = "signal or time"
"""The design of the study, such as the times of trials, tells labels without signals.
"""
ORDER_UNKNOWN = "order of trials unknown"
"""The order of the trials is unknown, so their labels may have come in blocks."""
TRAINED_TRIALS = "tested on trials of its training"
"""The model is tested on trials that it was trained on."""
UNKNOWN_TRIALS = "trials unknown"
"""The model or published weights that it started from were trained on recordings of the
tested pictures, perhaps on the tested trials too.
"""
NORMALISED_BY_TESTED = "normalised by held-out trials"
"""Tested trials were normalised by statistics of tested trials (without labels)."""
CHANNELS_MAPPED = "channels mapped"
"""Some channels that the model needs were not recorded. The protocol says how
they were replaced.
"""
TRIALS_TOGETHER = "transductive: tokens of test trials depend on each other"
"""The token (output vector) of a test trial depends on other trials in its batch."""
SELECTED_ON_TEST = "selected on test"
"""The epoch of this model, or of the model from which training continued, was selected
on the test set.
"""
TWINS = "duplicates among the candidates"
"""Some candidates have equal embeddings, so no signal can tell them apart."""
PRIOR_OF_OTHERS = "prior trained on other pictures"
"""The prior was trained on another data set than the reconstructed one."""
MIXED_WITH_BLURRY = "mixed with the blurry picture: a low-level gain by construction"
"""The scored picture is the mean of a generated picture and of a blurry picture that
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
    ACCEPTED: "ᵛ",
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
"""Footnote sign of each caveat, in the order in which caveats are listed."""
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
signals. It is not a caveat, because it applies to no main result.
"""
METRIC_TABLE = documents.read(
    Path(__file__).with_name("metric_table.json"), dict[str, Any]
)
N_WAY = re.compile(r"(?P<medium>video|frame)_(?P<ways>\d{1,3})way(?P<strict>_strict)?")
"""Name of a metric of n-way classification, as `video_40way`."""
METRIC_NAMES: dict[str, str] = METRIC_TABLE["names"]
"""Title of each metric in tables and figures, as in papers."""
BASELINE_CLASSIFIERS: dict[str, str] = METRIC_TABLE["classifiers"]
"""Title of each classifier that is a baseline of models of categories."""
TWO_WAY = "two_way_"
"""Beginning of the names of metrics for two-way identification by an encoder."""
LOWER_IS_BETTER: list[str] = METRIC_TABLE["lower_is_better"]
"""Names of metrics of which smaller values are better."""
AGREEMENT: dict[str, float] = METRIC_TABLE["agreement"]
"""Agreement of metrics with people: Pearson's r with the ratings of 22 people for 1,000
pairs of an NSD picture and its reconstruction by MindEye2. The metrics are defined as
in the paper (SEED, arXiv 2503.06437), with distances of reversed sign.
"""
AGREEMENT_HEADING = "agreement with people"
"""Heading of the column or row with the agreements in `AGREEMENT`."""
CATEGORY_METRICS = ("accuracy", "balanced_accuracy", "auc")
"""Metrics of models that were tested on categories."""


@dataclass(frozen=True)
class Metric:
    """Measured value with its context.

    `low` and `high` repeat `people` from five subjects on, and otherwise
    `these_subjects`, unless they are None.

    Attributes:
        name: Name of the metric.
        value: Measured value.
        n: Number of measured items over all subjects.
        pool: Number of candidates of each item, or None without candidates.
        chance: Expected value of guessing, or None if the metric has no such value.
        low: Lower end of the 95 % confidence interval, or None without an interval.
        high: Upper end of the interval.
        seeds: Seeds of the measured trainings.
        protocol: Description of how the value was measured, in one line.
        split: Part of the data set that was measured, such as `test`.
        interval: Method of the interval, and the subjects and items it holds for.
        these_subjects: Ends of the interval for these subjects only, or None.
        people: Ends of the interval for people in general, or None.
        seed_sd: Standard deviation over seeds, which intervals do not include, or None.
        selected: True if something was selected on the test split, such as the epoch of
            a model. None if this is unknown.
        caveats: Phrases in `CAVEATS` that limit the value.
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
        """Sort the caveats, and add the caveat of a selection."""
        caveats = merge_caveats(
            self.caveats, [SELECTED_ON_TEST] if self.selected else []
        )
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
        """Write the interval that `low` and `high` do not repeat, or a dash."""
        interval = self.these_subjects if self.is_of_people else self.people
        low, high = interval or (None, None)
        return interval_text(low, high, digits)

    def limit_to_people(self) -> Self:
        """Return the metric with its interval for these people, if it has one."""
        if self.these_subjects is None:
            return self
        low, high = self.these_subjects
        interval = self.interval.replace("people in general", "these people")
        return replace(self, low=low, high=high, interval=interval)

    @property
    def is_of_people(self) -> bool:
        """True if `low` and `high` are the interval for people in general."""
        return self.people is not None and self.people == (self.low, self.high)


def interval_text(low: float | None, high: float | None, digits: int = 3) -> str:
    """Write an interval for a table, such as `0.213–0.402`, or a dash for None."""
    if low is None or high is None:
        return "–"
    # a dash before a minus sign would look like a second dash
    separator = " to " if low < 0 else "–"
    return f"{low:.{digits}f}{separator}{high:.{digits}f}"


def second_interval_heading(metrics: Iterable[Metric]) -> str:
    """Return the heading of a column of second intervals (`second_interval_text`).

    Returns:
        - "these subjects", if the main interval of any metric is for people in general.
        - Otherwise "people in general", if any metric has `these_subjects` or `people`.
        - Otherwise "".
    """
    has_second_interval = False
    for metric in metrics:
        if metric.is_of_people:
            return "these subjects"
        if metric.these_subjects or metric.people:
            has_second_interval = True
    return "people in general" if has_second_interval else ""


Scopes = dict[str, dict[str, Metric]]
"""Metrics by scope and name."""


@dataclass(frozen=True)
class Measurements:
    """Measurements of a run, the content of `metrics.json`.

    Attributes:
        scopes: Metrics by scope and name. A scope is `all`, a subject, a cell (trained
            model), or a combination such as `brain · subject 1`.
        missing: Reason why a measurement is missing and what a user can do,
            by its name.
        facts: Other results, such as caveats, set-up and comparisons with other runs.
        items: Values [N] of the single items, by scope and name, such as `image_ids`.
    """

    scopes: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    items: Mapping[str, Mapping[str, list[Any]]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return the numbers of metrics and scopes, without the values."""
        n_metrics = sum(len(metrics) for metrics in self.scopes.values())
        return f"<Measurements: {n_metrics} metrics in {len(self.scopes)} scopes>"

    @property
    def overall(self) -> Mapping[str, Metric]:
        """Metrics of the scope `all`, or an empty mapping."""
        return self.scopes.get(ALL, {})

    @property
    def caveats(self) -> list[str]:
        """Caveats of all numbers."""
        return self.facts.caveats

    def require_facts(self, model: type[F]) -> F:
        """Return the facts, after a check that they belong to the expected command.

        Args:
            model: Class of the command's facts, such as `RetrievalFacts`.

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

        Returns:
            Dicts with the keys `scope`, `subject` and `seed` (or ""), `metric`,
            `agreement` (with ratings of people, or None), and the fields of the metric.
            The intervals `these_subjects` and `people` become keys with the endings
            `_low` and `_high`.
        """
        rows = []
        for scope_name, metrics in self.scopes.items():
            cell = self.find_cell(scope_name)
            for metric in metrics.values():
                row = {"scope": scope_name, "metric": metric.name, **asdict(metric)}
                row["subject"] = cell.subject_name
                row["seed"] = name_seed(cell, metric)
                del row["name"]
                row["agreement"] = AGREEMENT.get(metric.name)

                # an interval becomes two columns
                for field_name in ("these_subjects", "people"):
                    low, high = row.pop(field_name) or (None, None)
                    row[f"{field_name}_low"] = low
                    row[f"{field_name}_high"] = high
                rows.append(row)
        return rows

    def find_cell(self, scope_name: str) -> CellFacts:
        """Find the cell of a scope such as `sub-01 · backward`, or an unknown cell."""
        for name, cell in self.facts.cells.items():
            if scope_name == name or scope_name.startswith(f"{name} · "):
                return cell
        return CellFacts()

    def __or__(self, second: Self) -> Self:
        """Merge two measurements, with the facts of the first.

        The second measurements win for scopes and items of the same name.
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
            BrainhiveError: if the file is damaged, or has another schema.
        """
        documents.require_schema(document, SCHEMA, f"{path} holds metrics")

        # the class of the facts depends on the command
        plain_facts = documents.check(
            document.get("facts"), f"{path}: facts", dict[str, Any]
        )
        model = find_model(str(plain_facts.get("command")))
        facts = documents.check(plain_facts, f"{path}: facts", model)

        values = {field.name: document.get(field.name) for field in fields(cls)}
        values["facts"] = facts
        measurements = documents.check(values, str(path), cls)

        # each source of reconstructed pictures, such as `brain`, must have metrics
        for source in facts.sources:
            if source not in measurements.scopes:
                raise BrainhiveError(
                    f"{path}: facts.sources names {documents.show_value(source)}, but "
                    "there is no such scope",
                    documents.DAMAGED_HINT,
                )
        return measurements


def name_seed(cell: CellFacts, metric: Metric) -> str:
    """Return the seed of a cell, or else the only seed of its metric, or ""."""
    if cell.seed is not None:
        return str(cell.seed)
    return str(metric.seeds[0]) if len(metric.seeds) == 1 else ""


def scope(*parts: str) -> str:
    """Make the name of a scope, such as `brain · subject 1`. Parts may be ""."""
    return " · ".join(filter(None, parts))


def index_by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """Return a dict of metrics by name."""
    return {metric.name: metric for metric in metrics}


def merge_caveats(*lists: Iterable[str]) -> list[str]:
    """Merge lists of phrases in `CAVEATS`, which limit the meaning of a number.

    Returns:
        Each phrase once, in the order of `CAVEATS`, without phrases
        that another includes.
    """
    caveats = set(chain.from_iterable(lists))
    if SIMULATED in caveats:
        caveats.discard(TRAINED_ON_SIMULATED)
    if UNKNOWN_HISTORY in caveats:
        caveats -= {UNKNOWN_PICTURES, UNKNOWN_SELECTION}
    return [caveat for caveat in CAVEATS if caveat in caveats]


def extend_protocol(protocol: str, caveats: Iterable[str]) -> str:
    """Append the phrases of caveats to the description of a measurement."""
    return ", ".join([protocol, *merge_caveats(caveats)])


def extend_title(title: str, caveats: Iterable[str]) -> str:
    """Append the phrases of caveats to a title, in brackets."""
    phrases = ", ".join(merge_caveats(caveats))
    return f"{title} ({phrases})" if phrases else title


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
    """Name the rows of a table by their labels, and by caveats that not all rows share.

    Args:
        metrics: Metrics of each row, or None for empty cells, keyed by label.

    Returns:
        Names of the rows, such as `ridge (simulated)`, keyed by the label.
    """
    caveats = {
        label: list_metric_caveats(row_metrics)
        for label, row_metrics in metrics.items()
    }
    shared_caveats = set(CAVEATS).intersection(*caveats.values())
    return {
        label: extend_title(label, set(row_caveats) - shared_caveats)
        for label, row_caveats in caveats.items()
    }


def metric_title(name: str) -> str:
    """Return the title of a metric in tables, as in papers."""
    if name.startswith(TWO_WAY):
        return f"two-way ({name.removeprefix(TWO_WAY)})"
    match = N_WAY.fullmatch(name)
    if match is not None:
        strict = " strict" if match["strict"] else ""
        return f"{match['ways']}-way{strict} ({match['medium']})"
    return METRIC_NAMES.get(name, name.replace("_", " "))


def with_arrow(name: str) -> str:
    """Return the title of a metric, followed by ↓ if smaller values are better."""
    return f"{metric_title(name)} ↓" if lower_is_better(name) else metric_title(name)


def sort_by_agreement(names: Iterable[str]) -> list[str]:
    """Sort names of metrics by their agreement with ratings of people, highest first.

    Unknown agreement counts as 0.
    """
    return sorted(names, key=lambda name: -AGREEMENT.get(name, 0))


def lower_is_better(name: str) -> bool:
    """Return True if smaller values of a metric are better."""
    return name in LOWER_IS_BETTER


def is_share(name: str) -> bool:
    """Return True if a metric is a share of items or pairs, written in percent."""
    is_n_way = N_WAY.fullmatch(name) is not None
    # Names of metrics that are shares of items or pairs, from 0 to 1.
    shares: list[str] = METRIC_TABLE["shares"]
    return is_n_way or name in shares or name.startswith(TWO_WAY)


def choose_headlines(names: list[str]) -> list[str]:
    """Choose up to two metrics that summarise a run.

    They come from the first of these lists that is not empty:

    - the names in `headlines` that the run has;
    - scores of how well reconstructions identify the originals, then SSIM;
    - all names of the run.

    Args:
        names: Names of the metrics that the run has.
    """
    # Names of metrics that summarise a run, if the run has them.
    headlines = (
        "top1",
        "top5",
        "accuracy",
        "balanced_accuracy",
        "auc",
        "validation_loss",
    )
    headline_names = [name for name in headlines if name in names]
    if headline_names:
        return headline_names[:2]
    identification_names = [
        name
        for name in names
        # Name of such a metric of clips with more than two ways.
        if name.startswith(TWO_WAY)
        or name == "clip"
        or re.fullmatch(r"video_(?!2way)\d{1,3}way(_strict)?", name)
    ]
    # smooth pictures score high in SSIM
    if "ssim" in names:
        identification_names.append("ssim")
    return (identification_names or names)[:2]
