"""Facts of a run: every result of a command that is not a number with an interval."""

import importlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, computed_field
from pydantic.dataclasses import dataclass

from brainhive_cli.core.files import documents

PACKAGE = Path(__file__).parents[2]
ROOMS = documents.read(PACKAGE / "commands" / "rooms.yaml", dict[str, str])
"""Folder of each command in the package, in the order of the help."""
SIGNIFICANCE_LEVEL = 0.05
"""Largest p of a significant difference."""
Side = Literal[
    "above chance", "at chance", "below chance", "conditional", "not testable"
]
SetUp = Mapping[str, Any]
"""Settings behind the numbers of a run, by dotted key. Keys of a recipe are written as
in the recipe, such as `train.lr`. The keys in `SIGNAL_KEYS` describe the signals.
Unknown settings are left out.
"""
SIGNAL_KEYS = (
    "channels",
    "channel_mapping",
    "window_ms",
    "rate_hz",
    "repetitions",
    "unit",
    "preparation",
)
"""Keys of a set-up that describe the tested signals. If two runs differ in these keys,
a comparison of the runs is not a comparison of their models alone.
"""
CITES = "cites"
"""Section of a set-up that lists papers, as keys in reports/references.bib. The papers
describe the data set, the signals, the model, the encoders and the generator.
"""
CALLED = "called"
"""Section of a set-up with the words of parts for a methods paragraph. Templates know
no kinds of parts.
"""
DESCRIPTIONS = (CITES, CALLED)
"""Sections of a set-up that describe its other keys. Runs are not compared by them."""
SHORT_NAMES = {"train.epochs": "epochs", "train.selection": "selection"}
"""Keys of set-ups that replace dotted keys of recipes."""
MAX_LISTED_VALUES = 6
"""Length of the longest list that is written with all its values. For a longer list,
only the length, the first value and the last value are written.
"""
NO_VALUE = "none"
"""Text for a setting without a value."""


class FrozenModel(BaseModel):
    """Base class of facts: fields with plain values, which cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CellFacts(FrozenModel):
    """Facts of a cell: a model that was trained or tested.

    Attributes:
        cell: Name of the cell, or "" if it is the name of the scope.
        subject: Subject whose signals were used, or None for several subjects.
        seed: Seed of the training.
        source: Origin of the reconstructed pictures, such as `brain`.
        title: Name of the cell in tables.
        epoch: Epoch whose weights were kept.
        selected_on: Data on which this epoch was selected.
        caveats: Phrases that limit the numbers of the cell.
        took: Seconds, peak memory in bytes and parameters, by name.
    """

    cell: str = ""
    subject: int | str | None = None
    seed: int | None = None
    source: str = ""
    title: str = ""
    epoch: int | None = None
    selected_on: str = ""
    caveats: list[str] = []
    took: dict[str, float | None] = {}

    @property
    def subject_name(self) -> str:
        """Name of the subject, such as "sub-01", or "" if it is not known."""
        if isinstance(self.subject, int):
            return f"sub-{self.subject:02d}"
        return self.subject or ""


@dataclass(frozen=True)
class Answer:
    """Permutation test: do the shown stimuli (or concepts) rank better than the others?

    Attributes:
        question: The question, about the seen stimulus or its concept.
        better: One-sided p for ranks better than chance, or None without a test.
        worse: One-sided p for ranks worse than chance, or None without a test.
        least_p: Smallest two-sided p that the test can give.
        n: Number of tested items over all subjects.
        pool: Number of candidates among which each item is ranked.
        test: Method of the test, or the reason why there is no test.
        scope: Stimuli that the answer holds for, such as "these 2 concepts", or "".
        wider: Sentence on a wider claim that the design does not allow, or "".
        condition: Assumption that the data cannot confirm, or "".
        design: What the design of the study tells about labels, such as "time in the
            run", or "". Labels were then exchanged with the odds of the design.
    """

    question: str
    better: float | None
    worse: float | None
    least_p: float
    n: int
    pool: int
    test: str
    scope: str = ""
    wider: str = ""
    condition: str = ""
    design: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p(self) -> float | None:
        """Two-sided p, or None without a test."""
        if self.better is None or self.worse is None:
            return None
        return min(1.0, 2 * min(self.better, self.worse))

    @property
    def outcome(self) -> Side:
        """Result of the two-sided test, at `SIGNIFICANCE_LEVEL`, under `condition`."""
        if (
            self.better is None
            or self.worse is None
            or self.least_p > SIGNIFICANCE_LEVEL
        ):
            return "not testable"
        if 2 * self.better <= SIGNIFICANCE_LEVEL:
            return "above chance"
        if 2 * self.worse <= SIGNIFICANCE_LEVEL:
            return "below chance"
        return "at chance"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def side(self) -> Side:
        """Claim: the `outcome`, or "conditional" if it differs from chance only
        under the `condition`.
        """
        differs = self.outcome in ("above chance", "below chance")
        return "conditional" if differs and self.condition else self.outcome

    @computed_field  # type: ignore[prop-decorator]
    @property
    def words(self) -> str:
        """Result with its scope and condition, or the reason why there is no test."""
        if self.p is None:
            return f"{self.outcome}: {self.test}"
        scope = f" for {self.scope}" if self.scope else ""
        design = f", beyond what {self.design} tells" if self.design else ""
        condition = f", if {self.condition}" if self.condition else ""
        return f"{self.outcome}{scope}{design}{condition}"

    @property
    def is_settled(self) -> bool:
        """Return True if the answer is significantly above or below chance."""
        return self.outcome in ("above chance", "below chance")

    def agrees(self, p_above: float, p_below: float) -> bool:
        """Return True if another test is significant on the same side."""
        p = p_above if self.outcome == "above chance" else p_below
        return 2 * p <= SIGNIFICANCE_LEVEL

    @property
    def sentence(self) -> str:
        """Question, result, test and limit of the claim, in a sentence."""
        if self.p is None:
            subject = self.question.removeprefix("which ")
            return f"the {subject} could not be tested, because {self.test}"
        sentence = (
            f"{self.question}: {self.words} (p {self.p:.2g}, {self.test}, "
            f"{self.n} stimuli among {self.pool})"
        )
        return f"{sentence}; {self.wider}" if self.wider else sentence


class Difference(FrozenModel):
    """Difference of a metric, on the same items, between two runs or sources.

    Attributes:
        first: Name of the first run or source.
        second: Name of the second run or source.
        metric: Name of the metric.
        difference: First value minus second value, averaged over subjects.
        low: Lower end of the 95 % interval, or None with too few items.
        high: Upper end, or None.
        interval: Method, subjects and items of the interval.
        n: Number of compared items over all subjects.
        subjects: Number of subjects.
        p_value: Two-sided p, or None with too few items.
        p_adjusted: p adjusted for the number of tests, or None.
        test: Method, subjects and items of the test.
        least_p: Smallest p that the test can give.
        cohens_dz: Mean of the subjects' differences, by their standard deviation.
        lower_is_better: True if smaller values are better.
        scope: Subjects or stimuli of the claim, such as "these films", or "".
        limits: Sentences that limit the claim.
        differs: Settings in which the two runs differ, as text.
        caveats: Phrases that limit the first or the second value.
        tests: Number of tests that p is adjusted for, or 0.
        tests_of: Description of these tests.
    """

    first: str = ""
    second: str = ""
    metric: str = ""

    # effect
    difference: float
    low: float | None
    high: float | None
    interval: str

    # test
    n: int
    subjects: int
    p_value: float | None
    p_adjusted: float | None = None
    test: str
    least_p: float
    cohens_dz: float | None
    lower_is_better: bool = False
    scope: str = ""

    # limits
    limits: list[str] = []
    differs: list[str] = []
    caveats: list[str] = []

    tests: int = 0
    tests_of: str = ""

    @property
    def p(self) -> float | None:
        """The adjusted p if there are several tests, else `p_value`."""
        return self.p_adjusted if self.tests else self.p_value

    @property
    def is_significant(self) -> bool:
        """True if `p` is at most `SIGNIFICANCE_LEVEL`."""
        return self.p is not None and self.p <= SIGNIFICANCE_LEVEL

    @property
    def is_better(self) -> bool:
        """True if the first value is better, even if not significantly."""
        return (self.difference > 0) != self.lower_is_better


class SeenPictures(FrozenModel):
    """Test pictures that were left out, because a model was trained on them.

    Attributes:
        count: Number of these pictures.
        of: Number of all test pictures.
        names: Names of the first few of these pictures.
    """

    count: int = 0
    of: int = 0
    names: list[str] = []


class Facts(FrozenModel):
    """Facts that a run of any command may have.

    Attributes:
        command: Command of the run.
        caveats: Phrases that limit all numbers.
        warnings: Sentences above the numbers on the HTML page.
        dataset: Data set of the test.
        modality: EEG, MEG or fMRI, or "".
        stimulus: Kind of the stimuli: `picture`, `clip` or `category`.
        mode: `intra` (one subject), `inter` (new subjects), `joint` (all together) or
            `finetune` (fitted to a new subject).
        protocol: Description of the measurement in one line.
        run: Tested training run.
        runs: All tested training runs.
        units: Noun for the groups that tests count, such as `pictures`.
        unit_count: Number of these groups.
        stimuli: Number of different stimuli, or 0 if unknown.
        scope: Subjects or stimuli of the claims, such as "these films", or "".
        inflation: Factor by which folds with shared training data raise the variance.
        set_up: Settings by dotted key (see `flatten`).
        seen_in_training: Pictures left out, as a model was trained on them.
        published: Values of a paper (`source`), whose methods may differ (`differs`).
        cells: Facts of the models, by scope of the metrics, such as `all`.
        compared: Values on the validation pictures of each run that a workflow
            compares, by the name of the step.
        sources: Origins of pictures. The first is tested, the others are controls.
        titles: Title in tables, by origin of the pictures.
        comparisons: Differences between origins or compared runs.
        against: Differences from other runs.
        not_compared: Reasons why other runs were not compared.
        validation: Values on the validation pictures, by name.
        answers: Tests against chance, of which the first is the main test.
    """

    command: str = ""
    caveats: list[str] = []
    warnings: list[str] = []

    # tested data and protocol
    dataset: str = ""
    modality: str = ""
    stimulus: str = "picture"
    mode: str = ""
    protocol: str = ""
    run: str = ""
    runs: list[str] = []

    # units of intervals and tests
    units: str = ""
    unit_count: int = 0
    stimuli: int = 0
    scope: str = ""
    inflation: float = 1.0

    # set-up and published values
    set_up: dict[str, Any] = {}
    seen_in_training: SeenPictures = SeenPictures()
    published: dict[str, Any] = {}

    # groups of metrics
    cells: dict[str, CellFacts] = {}
    compared: dict[str, dict[str, Any]] = {}
    sources: list[str] = []
    titles: dict[str, str] = {}

    # differences and tests
    comparisons: list[Difference] = []
    against: list[Difference] = []
    not_compared: list[str] = []
    validation: dict[str, Any] = {}
    answers: list[Answer] = []

    @property
    def verdict(self) -> str:
        """Result of the main test against chance. Empty without a test."""
        return self.answers[0].words if self.answers else ""

    # What readers of any run ask. The facts of a command answer for themselves.

    @property
    def hit_metric(self) -> str:
        """Metric that counts how often the seen stimulus came first, or ""."""
        return ""

    @property
    def shared_gallery(self) -> object:
        """Candidates of a retrieval, equal in comparable runs, or None."""
        return None

    @property
    def is_control(self) -> bool:
        """True if signals were shuffled or labels permuted."""
        return False

    @property
    def paired_stimulus(self) -> str:
        """Kind of the stimuli that a page shows next to the seen stimuli."""
        return self.stimulus

    @property
    def has_bars(self) -> bool:
        """True if bars of people or sources stand next to the finding."""
        return False

    @property
    def has_model_scopes(self) -> bool:
        """True if the scopes of metrics are models, not positions such as sensors."""
        return True

    @property
    def has_marked_tables(self) -> bool:
        """True if the tables of the result already have their caveats."""
        return False

    @property
    def tested_runs(self) -> Mapping[str, str]:
        """Path of each eval-retrieval of a workflow, below the runs."""
        return {}

    @property
    def step_findings(self) -> Mapping[str, str]:
        """Finding of each step, if they are the whole result of the run."""
        return {}


def find_model(command: str) -> type[Facts]:
    """Find the class of a command's facts, which is in the file facts.py of its room.

    Args:
        command: Name of the command.

    Returns:
        The class, or `Facts` for a command without facts of its own.
    """
    room = ROOMS.get(command)
    if room is None or not (PACKAGE / room / "facts.py").is_file():
        return Facts
    name = f"{PACKAGE.name}.{room.replace('/', '.')}.facts"
    importlib.import_module(name)
    (model,) = (item for item in Facts.__subclasses__() if item.__module__ == name)
    return model


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into a dict with dotted keys.

    Args:
        fields: Nested mappings, such as `{"train": {"lr": 0.1}}`.
        prefix: Prefix of all keys, or "".

    Returns:
        Values by dotted key, such as `{"train.lr": 0.1}`. An inner empty mapping stays.
    """
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, name)
        else:
            flat[name] = value
    return flat


def cite(**papers: Sequence[str]) -> dict[str, list[str]]:
    """Make the part of a set-up that lists papers.

    Args:
        papers: Keys in reports/references.bib, by topic such as `model`.

    Returns:
        Distinct keys by `cites.TOPIC`. Topics without papers are left out.
    """
    return {
        f"{CITES}.{topic}": list(dict.fromkeys(keys))
        for topic, keys in papers.items()
        if keys
    }


def call(**words: str) -> dict[str, str]:
    """Make the part of a set-up with the words of parts for a methods paragraph.

    Args:
        words: Words of a part such as `NICE`, by topic such as `model`.

    Returns:
        Words by `called.TOPIC`. Parts without words are left out.
    """
    return {f"{CALLED}.{topic}": phrase for topic, phrase in words.items() if phrase}


def merge_set_ups(set_ups: Sequence[SetUp]) -> dict[str, Any]:
    """Merge the settings of several subjects or runs.

    - A setting that some mappings lack is left out.
    - Different values become a text such as `100 Hz or 250 Hz`.
    - Lists of papers (keys that begin with `cites`) are joined without duplicates.

    Args:
        set_ups: Settings of each subject or run, by dotted key such as `train.lr`.

    Returns:
        Merged settings.
    """
    # a dict keeps the order of the keys, a set does not
    keys: dict[str, None] = {}
    for set_up in set_ups:
        keys |= dict.fromkeys(set_up)

    merged: dict[str, Any] = {}
    for key in keys:
        values = [set_up[key] for set_up in set_ups if key in set_up]
        if key.startswith(CITES):
            papers: dict[str, None] = {}
            for value in values:
                papers |= dict.fromkeys(value)
            merged[key] = list(papers)
        elif len(values) < len(set_ups):
            continue
        elif all(value == values[0] for value in values):
            merged[key] = values[0]
        else:
            texts = [format_setting(key, value) for value in values]
            merged[key] = " or ".join(dict.fromkeys(texts))
    return merged


def keep_independent_keys(differing_keys: Sequence[str]) -> list[str]:
    """Leave out the settings of components whose kinds differ, but keep the kinds.

    Args:
        differing_keys: Dotted keys in which runs differ, such as `backbone.kind`.
    """
    changed_components = []
    for key in differing_keys:
        if key.endswith(".kind"):
            changed_components.append(key.removesuffix("kind"))

    keys = []
    for key in differing_keys:
        if key.endswith(".kind") or not key.startswith(tuple(changed_components)):
            keys.append(key)
    return keys


def list_differences(
    first: SetUp, second: SetUp, sections: Collection[str] | None = None
) -> list[str]:
    """List the settings in which two runs differ.

    The list leaves out:

    - Sections (first parts of keys) that only one run has.
    - Papers and words (the sections `cites` and `called`).
    - Settings of components whose kinds differ. Only the kinds are listed.
    - Settings of `train` that only one run has, with different kinds of backbones.

    Args:
        first: Settings of the first run by dotted key, such as `train.lr`.
        second: Settings of the second run.
        sections: Sections that are compared, such as `train`, or None for all.

    Returns:
        Texts such as `train.lr 1, not 0.0005`, with the first run's value first.
    """
    first_sections = {_section(key) for key in first}
    second_sections = {_section(key) for key in second}
    shared_sections = (first_sections & second_sections) - {*DESCRIPTIONS}

    differing_keys = []
    for key in {**first, **second}:
        if _section(key) in shared_sections and first.get(key) != second.get(key):
            differing_keys.append(key)

    texts = []
    for key in keep_independent_keys(differing_keys):
        if sections is not None and _section(key) not in sections:
            continue

        # skip settings of the training that follow from different backbones
        if "backbone.kind" in differing_keys and not key.endswith(".kind"):
            is_in_both = key in first and key in second
            if key.startswith("train.") and not is_in_both:
                continue

        # different values have equal texts if these are cut, or for None and []
        name = {"window_ms": "window", "rate_hz": "rate"}.get(key, key)
        name = name.removesuffix(".kind")
        first_text = format_setting(key, first.get(key))
        second_text = format_setting(key, second.get(key))
        if first_text != second_text:
            texts.append(f"{name} {first_text}, not {second_text}")
        elif first_text != NO_VALUE:
            texts.append(f"{name} of other values")
    return texts


def _section(key: str) -> str:
    """Return the section of a dotted key, such as `train` of `train.lr`."""
    return key.split(".")[0]


def describe_signals(set_up: SetUp) -> list[str]:
    """Describe the tested signals in phrases.

    Args:
        set_up: Settings of the run, by dotted key.

    Returns:
        Phrases such as `100 Hz`, without a phrase for an unknown setting.
    """
    phrases = []

    channels = set_up.get("channels")
    if isinstance(channels, list) and len(channels) > MAX_LISTED_VALUES:
        phrases.append(f"{len(channels)} channels")
    elif channels is not None:
        phrases.append(format_setting("channels", channels))
    mapping = set_up.get("channel_mapping", NO_VALUE)
    if mapping != NO_VALUE:
        phrases.append(mapping)

    for key in ("window_ms", "rate_hz"):
        value = set_up.get(key)
        if value is not None:
            phrases.append(format_setting(key, value))

    repetitions = set_up.get("repetitions")
    if repetitions is not None:
        count = format_setting("repetitions", repetitions)
        noun = "repetition" if count == "1" else "repetitions"
        phrases.append(f"{count} {noun} averaged")
    unit = set_up.get("unit")
    if unit:
        phrases.append(str(unit))
    preparation = set_up.get("preparation.kind")
    if preparation:
        phrases.append(f"prepared by {preparation}")

    # the normalisation is a name, or a component with settings
    normalisation = set_up.get("signal.normalise.kind")
    if not normalisation:
        normalisation = set_up.get("signal.normalise", NO_VALUE)
    if normalisation != NO_VALUE:
        phrases.append(f"normalised by {normalisation}")
    return phrases


def format_setting(key: str, value: Any) -> str:
    """Write the value of a setting as text for tables and pages.

    Args:
        key: Dotted key. Only `window_ms` (start, end), `rate_hz` and `repetitions`
            (smallest, largest) have a format of their own.
        value: Value of the setting, or None.

    Returns:
        A text unchanged, `NO_VALUE` for None, [] and {}, and any other value as text,
        cut after 80 characters.
    """
    if isinstance(value, str):
        return value
    if value is None or value in ([], {}):
        return NO_VALUE

    if key == "window_ms":
        return f"{value[0]:g} to {value[1]:g} ms"
    if key == "rate_hz":
        return f"{value:g} Hz"
    if key == "repetitions":
        low, high = value
        return f"{high}" if low == high else f"{low} to {high}"

    # write only the length, the first and the last value of a long list
    if isinstance(value, list):
        texts = [format_setting("", item) for item in value]
        if len(texts) <= MAX_LISTED_VALUES:
            text = ", ".join(texts)
        else:
            text = f"{len(texts)}: {texts[0]} … {texts[-1]}"
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    # Longest text of the value of a setting. Longer texts are cut.
    max_text_letters = 80
    if len(text) <= max_text_letters:
        return text
    return f"{text[: max_text_letters - 1]}…"
