"""Measurements of a run: metrics with context and caveats, in the one document that every command writes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from pydantic import ConfigDict
from typing_extensions import TypedDict

from brainhive_cli.core import documents
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.tables import Table

SCHEMA = 3
"""The number of the document's format; documents of another one are refused."""
ALL = "all"
"""The scope of everything that was measured, taken together."""
LEVEL = 0.05
"""p up to which a difference is called one."""

# What a reader must know of a number wherever it is shown:
SIMULATED = "simulated"
"""The signals that were tested on come from a program."""
TRAINED_ON_SIMULATED = "trained on simulated signals"
"""Only the signals that were trained on do."""
CALIBRATED = "calibrated on the left-out subject's unlabelled training recordings"
"""A subject who was not trained on gave recordings of training pictures for the normalisation."""
WHITENED_BY_TESTED = "transductive whitening by test trials"
"""The noise by which signals were whitened was also measured in (unlabelled) trials of the test."""
UNKNOWN_PICTURES = "pictures unknown"
"""Pixels of the pictures that were trained on or tested are not known, so copies are not noticed."""
UNKNOWN_SELECTION = "nothing says how its epoch was selected"
UNKNOWN_HISTORY = "history unknown (selection, subjects, pictures)"
"""Training began from weights that nothing says anything of; it stands for the two before, too."""
SEEN_COPIES = "copies of training pictures are tested"
"""As copies=allow asks."""
SEEN_CONCEPTS = "concepts of the test seen in earlier training"
"""A model learned from other pictures of a tested concept, in another data set or before this training."""
SEEN_PICTURES = "seen pictures"
"""Other trials of the tested pictures or categories were trained on, as `dataset.holdout` asks."""
NOT_INTERLEAVED = "signal or time"
"""Labels were not interleaved in time, so that drift alone says something of them."""
TRAINED_TRIALS = "tested on trials of its training"
"""Trials that a model learned from were shown to it again: what it says of them is no result."""
UNKNOWN_TRIALS = "trials unknown"
"""The tested pictures were trained on, and nothing says whether these trials of them were, too."""
NORMALISED_BY_TESTED = "normalised by held-out trials"
"""Held-out runs or sessions were z-scored by their own (unlabelled) trials."""
CHANNELS_MAPPED = "channels mapped"
"""Channels that a model was trained on were not recorded; the protocol says how they were mapped."""
TRIALS_TOGETHER = "transductive: tokens of test trials depend on each other"
"""The model gives a test trial another token alone than together with others."""
SELECTED_ON_TEST = "selected on test"
"""The epoch that was kept was chosen on the test set, here or in a model that training began from."""
PRIOR_OF_OTHERS = "prior trained on other pictures"
"""The prior that draws has learned from another data set than it draws."""
MIXED_WITH_BLURRY = "mixed with the blurry picture: a low-level gain by construction"
"""The scored picture is the mean of a generated one and one that a latent was regressed to."""
SHORT = {
    SIMULATED: "sim",
    TRAINED_ON_SIMULATED: "sim-train",
    CALIBRATED: "calib",
    WHITENED_BY_TESTED: "white-test",
    NORMALISED_BY_TESTED: "norm-test",
    TRAINED_TRIALS: "trained",
    UNKNOWN_TRIALS: "trials?",
    SEEN_PICTURES: "seen-pics",
    NOT_INTERLEAVED: "time?",
    UNKNOWN_PICTURES: "pics?",
    UNKNOWN_SELECTION: "sel?",
    UNKNOWN_HISTORY: "hist?",
    SEEN_COPIES: "seen",
    SEEN_CONCEPTS: "seen",
    PRIOR_OF_OTHERS: "prior",
    MIXED_WITH_BLURRY: "mixed",
    CHANNELS_MAPPED: "mapped",
    TRIALS_TOGETHER: "transductive",
    SELECTED_ON_TEST: "test-sel",
}
"""Short names of caveats, for labels."""
CAVEATS = tuple(SHORT)
"""All caveats, in the order in which they are listed."""
TRANSDUCTIVE = "uses all test signals together: a control, no result"
"""In the protocol of scopes whose similarities were corrected; no caveat, since a run's result never is."""


@dataclass(frozen=True)
class Metric:
    """A value with its context.

    Attributes:
        name: What was measured.
        value: The measurement.
        n: Items that it was measured on, over all subjects.
        pool: Candidates that each item was compared with; None if there are none.
        chance: Value expected of guessing; None if the metric has none.
        low: Lower end of the 95 % confidence interval; None where there is none, as of one item.
        high: Upper end.
        seeds: Seeds of the trainings that were measured.
        protocol: Name of the way it was measured.
        split: Part of the data set that it was measured on.
        interval: How the interval was made, and for whom it holds.
        these_subjects: Of several subjects, the interval over units alone, which holds for them only.
        people: Of several subjects, the interval for people in general; None where it says nothing. To four
            subjects the interval is that of these subjects, from five that for people.
        seed_sd: Standard deviation of the value over seeds; None where there is one, or seeds cannot be
            distinguished. No interval contains it: they are of models trained with these seeds.
        selected: Whether anything, as the epoch of a model, was selected on the test split; None if unknown.
        caveats: What a reader must know of the value wherever it is shown; those that its protocol names are
            always among them.
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
        """Complete the caveats by those of the protocol, so that none is lost whoever makes the metric."""
        # caveats of the metric, of its protocol, and of its selection
        complete = merge_caveats(
            self.caveats, find_caveats(self.protocol), [SELECTED_ON_TEST] if self.selected else []
        )
        object.__setattr__(self, "caveats", tuple(complete))

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, for JSON."""
        # JSON has lists and no tuples
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    def interval_text(self, digits: int = 3) -> str:
        """Write the interval for a table: a dash where there is none."""
        return interval_text(self.low, self.high, digits)

    def beside_text(self, digits: int = 3) -> str:
        """Write the second interval: for people in general where the first is of these subjects."""
        low, high = (self.these_subjects if self.is_of_people else self.people) or (None, None)
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
    """Name the second interval of some metrics, for the head of a column; empty where none has one."""
    # a heading is needed where a metric is of several subjects
    several = [metric for metric in metrics if metric.these_subjects or metric.people]
    if not several:
        return ""
    return "these subjects" if any(metric.is_of_people for metric in several) else "people in general"


def is_difference(p: float | None, level: float = LEVEL) -> bool:
    """Whether a difference may be called one: its interval, the inversion of the test, then excludes 0."""
    return p is not None and p <= level


class Answer(TypedDict):
    """Answer that notes give to a question that was tested."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    question: str
    sentence: str
    test: str
    scope: str
    wider: str
    p: float | None


class Notes(TypedDict, total=False):
    """Notes that all readers rely on; commands add more."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    caveats: list[str]
    warnings: list[str]
    dataset: str
    mode: str
    protocol: str
    scope: str
    run: str
    runs: list[str]
    sources: list[str]
    titles: dict[str, str]
    cells: dict[str, dict[str, Any]]
    curves: dict[str, dict[str, Any]]
    gallery: dict[str, Any]
    above_chance: Answer
    questions: list[Answer]
    profiles: list[dict[str, Any]]
    units: str
    unit_count: int
    verdict: str
    not_compared: list[str]
    comparisons: list[dict[str, Any]]
    against: list[dict[str, Any]]


@dataclass(frozen=True)
class Measurements:
    """All that a run measured: `{schema, scopes, missing, notes, items}` in JSON.

    Attributes:
        scopes: Metrics by scope and name. A scope says what they are of: `all`, `subject 1`, the name of a
            cell, `brain · subject 1` (see `scope`).
        missing: What could not be measured, and how to get it.
        notes: All else that a reader of the numbers must know, as plain values: `caveats`, `mode`,
            comparisons with other runs.
        items: Raw values, from which runs are compared item by item: by scope, `image_ids` [N] and lists [N]
            by name.
    """

    scopes: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    items: Mapping[str, Mapping[str, list[Any]]] = field(default_factory=dict)

    @property
    def overall(self) -> Mapping[str, Metric]:
        """The metrics of everything taken together; none if there is no such scope."""
        return self.scopes.get(ALL, {})

    @property
    def caveats(self) -> list[str]:
        """Caveats that are shown with the numbers everywhere."""
        return list(self.notes.get("caveats", []))

    def rows(self) -> list[dict[str, Any]]:
        """Give each metric of each scope as one flat row of its context, as tables of data frames want it."""
        rows = []
        for scope_name, metrics in self.scopes.items():
            for metric in metrics.values():
                # intervals become two columns each
                row = {"scope": scope_name, "metric": metric.name, **asdict(metric)}
                for reach in ("these_subjects", "people"):
                    row[f"{reach}_low"], row[f"{reach}_high"] = row.pop(reach) or (None, None)
                rows.append({key: row[key] for key in row if key != "name"})
        return rows

    def __or__(self, other: Self) -> Self:
        """Put two together; where both have a key, it is the second one's."""
        return type(self)(*({**getattr(self, f.name), **getattr(other, f.name)} for f in fields(self)))

    def of_variant(self, variant: str) -> Self:
        """Give what a sweep measured of one variant; caveats and warnings are of all."""
        # scopes of the variant, without its label
        prefixes = (f"{variant} · ", f"{variant}/")  # as retrieval and training name scopes

        def choose(named: Mapping[str, Any]) -> dict[str, Any]:
            return {
                name.removeprefix(prefix): value
                for name, value in named.items()
                for prefix in prefixes
                if name.startswith(prefix)
            }

        # notes of the sweep as a whole are left out
        shared = ("variants", "comparisons", "not_compared", "published")
        notes = {name: value for name, value in self.notes.items() if name not in shared}
        notes["cells"] = choose(self.notes.get("cells", {}))
        return type(self)(choose(self.scopes), self.missing, notes, choose(self.items))

    def as_dict(self) -> dict[str, Any]:
        """Give the document as plain values, for JSON."""
        scopes = {
            scope: {name: metric.as_dict() for name, metric in metrics.items()}
            for scope, metrics in self.scopes.items()
        }
        rest = {name: dict(getattr(self, name)) for name in ("missing", "notes", "items")}
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
        if (schema := document.get("schema")) != SCHEMA:
            raise BrainhiveError(
                f"{path} holds metrics of schema {documents.show_value(schema)}, this version reads {SCHEMA}",
                "run its command again with --again",
            )

        # notes first: their errors name the key in them
        notes = documents.check(document.get("notes"), f"{path}: notes", Notes)
        measurements = documents.check(
            {field.name: document.get(field.name) for field in fields(cls)}, str(path), cls
        )
        if absent := [name for name in notes.get("sources", []) if name not in measurements.scopes]:
            raise BrainhiveError(
                f"{path}: notes.sources names {documents.show_value(absent[0])}, which is no scope of it",
                documents.AGAIN,
            )
        return measurements


def scope(*parts: str) -> str:
    """Name what metrics are of, as `brain · subject 1`; parts that are empty are left out."""
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
    for caveat in sorted(CAVEATS, key=len, reverse=True):  # some contain the words of another
        if caveat in text:
            text, count = re.subn(rf"(?<![\w-]){re.escape(caveat)}(?![\w-])", "", text)
            contained |= {caveat} if count else set()
    return [caveat for caveat in CAVEATS if caveat in contained]


def extend_protocol(protocol: str, caveats: Iterable[str]) -> str:
    """Add to a protocol the caveats that it does not contain."""
    contained = find_caveats(protocol)
    return ", ".join([protocol, *(caveat for caveat in merge_caveats(caveats) if caveat not in contained)])


def extend_title(title: str, caveats: Iterable[str]) -> str:
    """Add to a title, in brackets, the caveats that it does not contain."""
    contained = find_caveats(title)
    lacking = [caveat for caveat in merge_caveats(caveats) if caveat not in contained]
    return f"{title} ({', '.join(lacking)})" if lacking else title


def stamp(label: str, *caveats: Iterable[str]) -> str:
    """Add caveats to a label in short, as `top-1 [sim, test-sel]`; `explain_stamps` says what they mean."""
    short = ", ".join(dict.fromkeys(SHORT[caveat] for caveat in merge_caveats(*caveats)))
    return f"{label} [{short}]".lstrip() if short else label


def caveats_of(metrics: Iterable[Metric | None]) -> list[str]:
    """List the caveats of metrics; None has none."""
    return merge_caveats(*(metric.caveats for metric in metrics if metric is not None))


def stamp_rows(metrics: Mapping[str, Iterable[Metric | None]]) -> dict[str, str]:
    """Stamp the labels of rows of metrics by caveats that not all rows have; a title names the others."""
    # caveats that all rows share are left to the title
    caveats = {label: caveats_of(row_metrics) for label, row_metrics in metrics.items()}
    shared = set.intersection(*map(set, caveats.values())) if caveats else set()
    return {label: stamp(label, set(row_caveats) - shared) for label, row_caveats in caveats.items()}


def explain_stamps(*caveats: Iterable[str]) -> str:
    """Say what short stamps mean, as `sim: simulated; test-sel: selected on test`; empty without any."""
    return "; ".join(f"{SHORT[caveat]}: {caveat}" for caveat in merge_caveats(*caveats))


def extend_tables(tables: Iterable[Table], caveats: Sequence[str]) -> tuple[Table, ...]:
    """Add caveats to the titles of tables."""
    return tuple(replace(table, title=extend_title(table.title, caveats)) for table in tables)
