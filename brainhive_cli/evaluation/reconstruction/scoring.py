"""Reconstructions, and what was decoded in words and masks, compared with their stimuli
item by item.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import compress
from operator import call
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Bool, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Metric, lower_is_better
from brainhive_cli.core.tables import write_csv
from brainhive_cli.data.media import media_files
from brainhive_cli.data.media.stimuli import Clip, StimulusSet
from brainhive_cli.evaluation.reconstruction.metric_parts import get_scale
from brainhive_cli.measurement.metrics import MetricPart, tasks
from brainhive_cli.measurement.metrics.image import prepare
from brainhive_cli.measurement.metrics.video import FRAME_PX
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.measurement.units import StimulusGrouping
from brainhive_cli.models.heads import Decoded
from brainhive_cli.training.alignment.cells import FOLD_PATTERN

N_READERS = 4
"""Threads that decode media while the previous batch is compared."""
OpenMedia = Callable[[], Any]
"""Opens a picture or a clip."""
FeatureFunction = Callable[..., Tensor]
TRUTH = "truth"
"""The source of values that describe the stimuli themselves."""
SOURCE_TITLES = {
    "brain": "brain",
    "images": "images, ceiling",
    "shuffled": "shuffled, floor",
    "zeroed": "zeroed, no brain",
    "mean_embedding": "mean embedding",
    "nearest": "nearest training picture",
    "mean": "mean training picture",
    "still": "still first frame",
    "truth": "stimuli themselves",
    "scored": "scored",
}
"""Titles of the sources of pictures; ↓ after a metric means that less is better."""
CAPTION, MASK, CONCEPTS = "caption", "mask", "concepts"
"""The heads that are shown: texts, probabilities [F, 1, H, W] and [K]."""
MIN_PROBABILITY = 0.5
"""Probability above which a pixel is the key object's, and a concept is named."""
THUMBNAIL_PX = 64
"""Side of the thumbnails by which reconstructions are compared with the stimuli."""
MAX_RMS_DIFFERENCE, MAX_RELATIVE_DIFFERENCE = 1.5, 0.05
"""Root mean square difference of a thumbnail from that of the stimulus, in levels of
255 and as a share of its standard deviation, up to which they show the same: JPEG of
quality 75 differs by up to 1.3 levels, other sizes by less.
"""
MAX_BLANK_RANGE = 2
"""Range in levels of 255 of a picture of one colour, which JPEG changes a little."""
MAX_CONCEPTS = 4
"""Concepts that are named at most."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """Annotation of one picture or clip.

    Attributes:
        caption: In words; "" where there is none.
        concepts: Names of what it shows.
        masks: Where its key object is, bool [F, H, W]; None where nothing says it.
    """

    caption: str = ""
    concepts: tuple[str, ...] = ()
    masks: Bool | None = None


def describe_annotation(annotation: Annotation) -> list[str]:
    """List the caption and the concepts, for people."""
    return [*filter(None, (annotation.caption, ", ".join(annotation.concepts)))]


def collect_stimulus_annotation(images: StimulusSet, row: int) -> Annotation:
    """Collect what a data set says of one of its stimuli."""
    # a data set may have none of these
    captions = images.captions(row) if images.captions else []
    labels = images.labels(row) if images.labels else np.zeros(0, np.uint8)
    names = tuple(
        name for name, has in zip(images.label_names, labels, strict=False) if has
    )
    masks = images.masks(row).astype(bool) if images.masks else None
    return Annotation(captions[0] if len(captions) else "", names[:MAX_CONCEPTS], masks)


def collect_decoded_annotations(
    decoded: Decoded, image_ids: Sequence[str], names: Sequence[str]
) -> dict[str, Annotation]:
    """Collect what was decoded, by image id; empty where no head says anything in words
    or masks.

    Args:
        decoded: Heads of N rows.
        image_ids: [N].
        names: Those of the K concepts.
    """
    # heads of other shapes are no masks or concepts
    captions = decoded.texts.get(CAPTION)
    masks, concepts = (decoded.tensors.get(head) for head in (MASK, CONCEPTS))
    if masks is not None and masks.ndim != 5:
        masks = None
    if concepts is not None and concepts.shape[1:] != (len(names),):
        concepts = None
    if not captions and masks is None and concepts is None:
        return {}

    # caption, mask, and likely concepts, the likeliest first; one at least
    annotations = {}
    for row, image_id in enumerate(image_ids):
        likely_names: tuple[str, ...] = ()
        if concepts is not None:
            likelihood = concepts[row].cpu().numpy()  # [K]
            order = np.argsort(-likelihood, kind="stable")[:MAX_CONCEPTS]
            likely_names = tuple(
                names[k]
                for k in order
                if k == order[0] or likelihood[k] > MIN_PROBABILITY
            )
        mask = (
            None
            if masks is None
            else (masks[row, :, 0] > MIN_PROBABILITY).cpu().numpy()
        )
        annotations[image_id] = Annotation(
            captions[row] if captions else "", likely_names, mask
        )
    return annotations


@dataclass(frozen=True, eq=False)
class TaskScores:
    """The scores of one decoded set, of what it has and the data set has the truth of.

    Attributes:
        values: [N] by metric; NaN of a stimulus without an object, a known concept or a
            caption. None of a metric of which all stimuli are such.
        recall: Whether each concept was recalled, [N] by its name; NaN of stimuli that
            do not show it.
        chance: Chance of each metric that can be guessed, by its name: of recalling one
            of an item's concepts, of naming its object, [N].
        missing: Scores whose library is missing, and how to get it.
    """

    values: Mapping[str, Float64] = field(default_factory=dict)
    recall: Mapping[str, Float64] = field(default_factory=dict)
    chance: Mapping[str, Float64] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_decoded(
        cls, decoded: Decoded, images: StimulusSet, image_ids: Sequence[str]
    ) -> Self:
        """Compare decoded heads of N rows with the stimuli `image_ids` [N]."""
        # rows of the stimuli
        row_of = {image_id: row for row, image_id in enumerate(images.image_ids)}
        rows = [row_of[image_id] for image_id in image_ids]
        masks, likelihood = (decoded.tensors.get(head) for head in (MASK, CONCEPTS))
        texts = decoded.texts.get(CAPTION)
        values = dict[str, Float64]()
        recall = dict[str, Float64]()
        guess = dict[str, Float64]()
        missing = {}

        # overlap of masks
        if (
            images.masks is not None
            and masks is not None
            and masks.shape[1:2] == (images.frames or 1,)
        ):
            objects = [
                torch.from_numpy(images.masks(row))[:, None].gt(0).byte()
                for row in rows
            ]
            # targets of training are resized alike
            size = (masks.shape[-2], masks.shape[-1])
            true = torch.stack(
                [interpolate(mask, size, mode="nearest") for mask in objects]
            )
            values[tasks.DICE] = tasks.dice(masks.cpu(), true)

        # recall of concepts
        names = images.label_names
        if (
            images.labels is not None
            and likelihood is not None
            and likelihood.shape[1:] == (len(names),)
        ):
            # [N, K]
            shown = np.stack([images.labels(row) for row in rows]).astype(bool)
            # [N, K]
            hits = tasks.recall_concepts(likelihood.float().cpu().numpy(), shown)
            recall = dict(zip(names, hits.T, strict=True))
            guess[tasks.RECALL] = shown.mean(1)
            values[tasks.RECALL] = torch.from_numpy(hits).nanmean(1).numpy()

        # captions, of stimuli that have any
        captions = [images.captions(row) if images.captions else [] for row in rows]
        present = [row for row, references in enumerate(captions) if len(references)]
        if present and texts:
            written = (
                [texts[row] for row in present],
                [captions[row] for row in present],
            )
            for name, score in tasks.score_captions(*written).items():
                values[name] = np.full(len(rows), np.nan)
                values[name][present] = score
            for name in tasks.LIBRARIES:
                if error := tasks.find_missing_library(name):
                    missing[name] = error.in_one_line

        # objects that captions name
        if images.objects is not None and texts:
            values[tasks.OBJECT] = tasks.find_named_objects(
                texts, [images.objects[row] for row in rows]
            )
            guess[tasks.OBJECT] = np.full(len(rows), 1 / len(images.object_names))

        # metrics of which all stimuli lack a value are left out
        values, recall = (
            {
                name: scores
                for name, scores in table.items()
                if not np.isnan(scores).all()
            }
            for table in (values, recall)
        )
        return cls(values, recall, guess, missing)

    @classmethod
    def join(cls, scores: Sequence[Self]) -> Self:
        """Put the scores of different items one behind the other; of what all of them
        have.
        """
        # values, recall and chance, each of the names that all scores have
        joined = {}
        for kind in ("values", "recall", "chance"):
            columns = [getattr(part, kind) for part in scores]
            names = [
                name for name in columns[0] if all(name in column for column in columns)
            ]
            joined[kind] = {
                name: np.concatenate([column[name] for column in columns])
                for name in names
            }
        return cls(**joined, missing=scores[0].missing)


def get_source_titles(medium: str) -> dict[str, str]:
    """Name the sources of pictures, or of clips."""
    return {
        source: title.replace("picture", medium)
        for source, title in SOURCE_TITLES.items()
    }


@dataclass(frozen=True)
class Stimuli:
    """Stimuli by image id.

    Attributes:
        open: Opens a picture or a clip.
        get_label: Names what it shows, in a word or two.
        get_annotation: Collects what the data set says of it.
        grouping: Which stimuli are alike.
    """

    open: Callable[[str], Any]
    get_label: Callable[[str], str]
    get_annotation: Callable[[str], Annotation] = lambda image_id: Annotation()
    grouping: StimulusGrouping = field(default_factory=StimulusGrouping)


@dataclass(frozen=True)
class GeneratedSet:
    """The reconstructions of one cell and subject, from one source.

    Attributes:
        source: Where they come from.
        name: Of the cell and subject; that of other sources than `brain` starts with
            the source.
        seeds: Of the training.
        files: Image id to the files of its repeats.
        subject: Whose signals; None if there are none.
        description: How they were made, in words that travel with their metrics.
        open: Opens a file.
        annotations: What was decoded in words and masks, by image id, where anything
            was.
        task_scores: How well these are the stimuli's, item by item.
        values: Each metric's values, in the order of `media`; empty before they are
            scored.
    """

    source: str
    name: str
    seeds: tuple[int, ...]
    files: Mapping[str, Sequence[Path]]
    subject: int | None = None
    description: str = ""
    open: Callable[[Path], Any] = media_files.read
    annotations: Mapping[str, Annotation] = field(default_factory=dict)
    task_scores: TaskScores = field(default_factory=TaskScores)
    values: Mapping[str, Float64] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The cell and subject for people; a cell's name that starts with the subject
        is enough.
        """
        name = (
            ""
            if self.name == self.source
            else self.name.removeprefix(f"{self.source}/")
        )
        cell, _, subject = name.rpartition("/")
        return cell if cell and cell.rpartition("/")[2].startswith(subject) else name

    @property
    def media(self) -> list[tuple[str, Path]]:
        """Every file with its image id."""
        return [
            (image_id, file) for image_id, files in self.files.items() for file in files
        ]

    @cached_property
    def means(self) -> dict[str, Float64]:
        """Mean over an item's repeats of each metric, and its task scores, [N]; NaN
        where it has none.
        """
        # files of one item follow one another in `values`
        ends = np.cumsum([len(files) for files in self.files.values()])[:-1]
        means = {
            name: np.array([repeats.mean() for repeats in np.split(values, ends)])
            for name, values in self.values.items()
        }
        return means | dict(self.task_scores.values)

    def get_first_file(self, image_id: str) -> tuple[Path, dict[str, float]]:
        """Give the first file of an item, with its values."""
        file = self.files[image_id][0]
        row = self.media.index((image_id, file))
        return file, {name: float(values[row]) for name, values in self.values.items()}


def pool_folds(sets: Sequence[GeneratedSet]) -> list[GeneratedSet]:
    """Pool the sets of folds, so that each picture is compared with those of all folds.

    Every stimulus was held out in one fold, and its media are those of that fold's
    model.
    """
    # sets that differ in their fold only
    groups = defaultdict[tuple[str, str], list[GeneratedSet]](list)
    for generated in sets:
        groups[generated.source, FOLD_PATTERN.sub("", generated.name)].append(generated)

    # one set of each group
    pooled = []
    for (_, name), members in groups.items():
        files = {
            image_id: media
            for member in members
            for image_id, media in member.files.items()
        }
        notes = {
            image_id: note
            for member in members
            for image_id, note in member.annotations.items()
        }
        tasks = TaskScores.join([member.task_scores for member in members])
        pooled.append(
            replace(
                members[0], name=name, files=files, annotations=notes, task_scores=tasks
            )
        )
    return pooled


@dataclass(frozen=True)
class Scorer:
    """Stimuli and the metrics by which reconstructions are compared with them.

    Attributes:
        metrics: The metrics, by name.
        protocol: How media are sized.
        batch_size: Media compared at once.
        device: Where media are sized and compared.
        open_stimuli: N pictures or clips.
        n_frames: Frames of the stimuli where they are clips; None of pictures.
    """

    metrics: Mapping[str, MetricPart]
    protocol: str
    batch_size: int
    device: torch.device
    open_stimuli: Sequence[OpenMedia]
    n_frames: int | None = None

    @cached_property
    def stimulus_features(self) -> dict[FeatureFunction, Tensor]:
        """Features [N, …] of the stimuli, once for all that they are compared with."""
        # features are computed batch by batch into one array that is allocated once
        seen: dict[FeatureFunction, Tensor] = {}
        starts = range(0, len(self.open_stimuli), self.batch_size)
        with console.progress(
            "computing features of the stimuli", len(self.open_stimuli)
        ) as bar:
            for start, batch in zip(
                starts, self._iterate_features(self.open_stimuli), strict=True
            ):
                if not seen:
                    torch.cuda.empty_cache()  # of what the generator held
                for function, features in batch.items():
                    if function not in seen:
                        seen[function] = features.new_empty(
                            (len(self.open_stimuli), *features.shape[1:])
                        )
                    seen[function][start : start + len(features)] = features
                bar.advance(min(self.batch_size, len(self.open_stimuli) - start))
        return seen

    def score(
        self,
        reconstructions: Sequence[OpenMedia],
        stimulus_rows: Int64,
        among: Int64,
        bar: console.Bar,
    ) -> dict[str, Float64]:
        """Compare reconstructions with their stimuli.

        Args:
            reconstructions: B pictures or clips.
            stimulus_rows: The stimulus of each, [B].
            among: The stimuli that two-way identification chooses from, sorted,
                `stimulus_rows` among them.
            bar: Advanced by each batch.

        Returns:
            Each metric's values, [B].
        """
        # features of the stimuli that identification chooses from
        rows = torch.from_numpy(stimulus_rows)
        rows_among = torch.from_numpy(np.searchsorted(among, stimulus_rows))
        pools = {
            part.features: self.stimulus_features[part.features][among]
            for part in self.metrics.values()
            if part.is_identification
            and len(among) < len(self.stimulus_features[part.features])
        }
        # one item cannot be distinguished from others
        parts = {
            n: part
            for n, part in self.metrics.items()
            if len(among) > 1 or not part.is_identification
        }

        # compare batch by batch
        values = defaultdict[str, list[Tensor]](list)
        starts = range(0, len(reconstructions), self.batch_size)
        for start, features in zip(
            starts, self._iterate_features(reconstructions), strict=True
        ):
            batch = slice(start, start + self.batch_size)
            for name, part in parts.items():
                seen = self.stimulus_features[part.features]
                seen_rows = rows[batch]
                if part.is_identification:
                    seen = pools.get(part.features, seen)
                    seen_rows = rows_among[batch]
                compared = part.compare(seen, features[part.features], seen_rows)
                values[name].append(compared)
            bar.advance(len(rows[batch]))
        return {
            name: torch.cat(compared).cpu().numpy() for name, compared in values.items()
        }

    def describe_stimuli(self) -> dict[str, Float64]:
        """Compute the values [N] of the stimuli, by the metrics that describe media by
        themselves.
        """
        # a metric that describes media by themselves gets each stimulus twice
        rows = torch.arange(len(self.open_stimuli))
        values = {}
        for name, part in self.metrics.items():
            if part.is_reference_free:
                seen = self.stimulus_features[part.features]
                values[name] = part.compare(seen, seen, rows).cpu().numpy()
        return values

    def _iterate_features(
        self, media: Sequence[OpenMedia]
    ) -> Iterator[dict[FeatureFunction, Tensor]]:
        """Decode media and compute all features, each once, batch by batch."""
        functions = {
            part.features: part.takes_originals for part in self.metrics.values()
        }
        with ThreadPoolExecutor(N_READERS) as readers:
            # the next batch is opened while this one is computed
            size = self.batch_size
            pending = readers.map(call, media[:size])
            for stop in range(size, len(media) + size, size):
                opened = [*pending]
                pending = readers.map(call, media[stop : stop + size])
                sized = self._resize(opened)
                yield {
                    function: function(opened if takes_originals else sized)
                    for function, takes_originals in functions.items()
                }

    def _resize(self, opened: Sequence[Any]) -> Tensor:
        """Bring media to the protocol's size, [B, 3, P, P] or [B, F, 3, P, P] in 0..1,
        on the device.

        Raises:
            BrainhiveError: if a clip has another number of frames than the stimuli.
        """
        # the size of the protocol, and as many frames as the stimuli have
        sized = []
        for picture_or_clip in opened:
            # [3, H, W] or [F, 3, H, W]
            media = media_files.to_media(picture_or_clip).to(self.device)
            if media.ndim == 3 and self.n_frames is not None:
                media = media.expand(
                    self.n_frames, -1, -1, -1
                )  # a keyframe, held still
            if media.ndim == 3:
                sized.append(prepare(media[None], self.protocol)[0])
                continue
            require_n_frames(len(media), self.n_frames)
            sized.append(prepare(media, self.protocol, FRAME_PX))
        return torch.stack(sized)


def require_n_frames(frames: int, needed: int | None) -> None:
    """Refuse a clip of another number of frames than the stimuli; None of pictures."""
    if frames != needed:
        shown = f"clips of {needed} frames" if needed else "pictures"
        raise BrainhiveError(
            f"a clip of {frames} frames cannot be compared with {shown}",
            "bring all clips to one number of frames",
        )


def require_stimulus_frames(stimulus: Any, shown: Any) -> None:
    """Refuse a clip that has not as many frames as the stimulus."""
    if isinstance(shown, Clip):
        frames = len(stimulus.frames) if isinstance(stimulus, Clip) else None
        require_n_frames(len(shown.frames), frames)


def score_set(
    generated: GeneratedSet, scorer: Scorer, rows: Mapping[str, int], launch: Launch
) -> GeneratedSet:
    """Score reconstructions of the scorer's stimuli `rows`; every process returns all
    values.
    """
    # this process's share of the files
    among = np.array(sorted(rows[image_id] for image_id in generated.files))
    share = launch.shard(generated.media)
    stimulus_rows = np.array([rows[image_id] for image_id, _ in share], dtype=np.int64)
    opens = [partial(generated.open, file) for _, file in share]
    with console.progress(f"measuring {generated.name}", len(share)) as bar:
        # processes score contiguous shares, so joined values have the order of the
        # files
        shares = launch.gather(scorer.score(opens, stimulus_rows, among, bar))

    # values of all processes, in the order of the files
    shares = [values for values in shares if values]  # a process may have had no file
    names = shares[0] if shares else {}
    joined = {
        name: np.concatenate([values[name] for values in shares]) for name in names
    }
    return replace(generated, values=joined)


def find_originals_and_blanks(
    generated: GeneratedSet, stimuli: Stimuli
) -> tuple[list[Path], list[Path]]:
    """List the reconstructions that are the stimuli themselves, but for what JPEG or
    another size changes; and those of one colour, of stimuli that are not.
    """

    def make_thumbnails(opened: Any) -> Float64:
        pictures = media_files.to_clip(opened).to_pictures()
        return np.array(
            [
                np.asarray(media_files.crop_square(picture, THUMBNAIL_PX), float)
                for picture in (pictures[0], pictures[-1])
            ]
        )

    def compare(item: tuple[str, Path]) -> tuple[bool, bool]:
        seen = make_thumbnails(stimuli.open(item[0]))
        made = make_thumbnails(generated.open(item[1]))
        difference = np.sqrt(np.square(made - seen).mean())
        limit = min(MAX_RMS_DIFFERENCE, MAX_RELATIVE_DIFFERENCE * seen.std())
        ranges = [np.ptp(pixels, (1, 2)).max() for pixels in (made, seen)]
        return difference < limit, ranges[0] <= MAX_BLANK_RANGE < ranges[1]

    with (
        console.progress(f"looking at {generated.name}"),
        ThreadPoolExecutor(N_READERS) as readers,
    ):
        found = [*readers.map(compare, generated.media)]
    files = [file for _, file in generated.media]
    originals, blank = zip(*found, strict=True)
    return [*compress(files, originals)], [*compress(files, blank)]


def rank_items(scored: Sequence[GeneratedSet]) -> list[tuple[GeneratedSet, str]]:
    """Sort the items of reconstructions by the mean over metrics of their rank among
    all of them.
    """
    from scipy.stats import rankdata

    items = [(cell, image_id) for cell in scored for image_id in cell.files]
    # metrics that items are sorted by; all of them where there is none
    chosen = [name for name in scored[0].values if get_scale(name).sorts_items] or [
        *scored[0].values
    ]
    joined = {
        name: np.concatenate([cell.means[name] for cell in scored]) for name in chosen
    }
    ranks = [
        rankdata(values if lower_is_better(name) else -values)
        for name, values in joined.items()
    ]
    return [items[row] for row in np.argsort(np.mean(ranks, 0), kind="stable")]


def measure_sets(
    scored: Sequence[GeneratedSet],
    protocol: str,
    split: str,
    alike: StimulusGrouping,
    per_concept: bool = False,
) -> dict[str, Metric]:
    """Average each metric over items and subjects, with its interval; seeds are
    averaged item by item.

    Args:
        scored: The reconstructions.
        protocol: Name of the way they were measured.
        split: Part of the data set.
        alike: Which items the interval takes together.
        per_concept: Whether the recall of each concept is measured instead, over the
            items that show it.

    Returns:
        By metric, or by concept; over the items that have a value, and none where no
        item has.
    """
    # the models of each subject, stacked
    seeds = tuple(sorted({seed for cell in scored for seed in cell.seeds}))
    groups = defaultdict[int | None, list[GeneratedSet]](list)
    for cell in scored:
        groups[cell.subject].append(cell)
    # [N] image ids of each subject, and [S, N] of S models by name
    ids, stacks = [], []
    for group in groups.values():
        ids.append(list(group[0].files))
        columns = [
            cell.task_scores.recall if per_concept else cell.means for cell in group
        ]
        stacks.append(
            {
                name: np.stack([column[name] for column in columns])
                for name in columns[0]
            }
        )

    # chance depends on the items alone, so one model of a subject is enough
    guesses = [group[0].task_scores.chance for group in groups.values()]

    # each metric, over the items of each subject that have a value
    items, metrics = alike.make_items(ids), {}
    for name in dict.fromkeys(name for stack in stacks for name in stack):
        metric = tasks.RECALL if per_concept else name
        scale = get_scale(metric)
        values = [
            stack.get(name, np.full((1, len(subject_ids)), np.nan))
            for stack, subject_ids in zip(stacks, ids, strict=True)
        ]  # [S, N] of each subject
        # of media no value may be missing: `measure` refuses it
        has_value: list[Any] = [
            ~np.isnan(stack).any(0) | (metric not in tasks.SCALES) for stack in values
        ]
        measured = [subject for subject, has in enumerate(has_value) if has.any()]

        # chance of guessing is a mean over subjects, as the value
        chance = scale.chance
        is_guessed = all(metric in guess for guess in guesses)
        if is_guessed:
            chances = [
                guesses[subject][metric][has_value[subject]].mean()
                for subject in measured
            ]
            chance = float(np.mean(chances))
        is_of_candidates = scale.chance is not None and (scale.low, scale.high) == (
            0.0,
            1.0,
        )
        metrics[name] = measure(
            metric,
            [values[subject][:, has_value[subject]] for subject in measured],
            protocol=protocol,
            split=split,
            items=items.select(has_value),
            pool=scale.pool or (None if scale.chance is None else len(ids[0])),
            chance=chance,
            limits=(scale.low, scale.high),
            seeds=seeds,
            # others are none, even if all are 0 or 1
            is_share=is_guessed or is_of_candidates,
        )
    return metrics


def write_values(path: Path, scored: Sequence[GeneratedSet]) -> None:
    """Write the values of every file as CSV."""
    # stimuli themselves lack metrics that compare: their fields are empty
    columns = ("source", "cell", "image_id", "file", *scored[0].values)
    rows = list[dict[str, Any]]()
    for cell in scored:
        for row, (image_id, media) in enumerate(cell.media):
            labels = (cell.source, cell.name, image_id, media.name)
            values = {name: float(cell.values[name][row]) for name in cell.values}
            rows.append({**dict(zip(columns, labels, strict=False)), **values})
    path.write_text(write_csv(columns, rows), encoding="utf-8")
