"""Scores of reconstructions, and of decoded captions, masks and concepts."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, compress
from operator import attrgetter, call
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from brainhive_cli.core.base import (
    Bool,
    BrainhiveError,
    Float64,
    Int64,
    console,
    write_csv,
)
from brainhive_cli.core.results import Metric, extend_protocol, lower_is_better
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.media import Clip, StimulusSet, media_files
from brainhive_cli.evaluation.reconstruction.metric_parts import get_scale
from brainhive_cli.measurement import StimulusGrouping, measure
from brainhive_cli.measurement.metrics import MetricPart, tasks
from brainhive_cli.measurement.metrics.image import prepare
from brainhive_cli.measurement.metrics.video import FRAME_PX
from brainhive_cli.models import Decoded
from brainhive_cli.training.alignment import FOLD_PATTERN

N_READERS = 4
"""Number of threads that decode media while the previous batch is compared."""
OpenMedia = Callable[[], Any]
"""Function that opens a picture or a clip."""
FeatureFunction = Callable[..., Tensor]
TRUTH = "truth"
"""Source of values that describe the stimuli themselves."""
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
"""Titles of the sources of pictures."""
CAPTION, MASK, CONCEPTS = "caption", "mask", "concepts"
"""Names of heads with texts, probabilities [F, 1, H, W] and probabilities [K]."""
MAX_RMS_DIFFERENCE, MAX_RELATIVE_DIFFERENCE = 1.5, 0.05
"""Largest root mean square difference between the thumbnails of a stimulus and its
copy, in levels of 255 and relative to the standard deviation of the stimulus. JPEG of
quality 75 differs by up to 1.3 levels, and another size by less.
"""
MAX_CONCEPTS = 4
"""Largest number of concepts that are named."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """Annotation of a picture or clip.

    Attributes:
        caption: Caption, or "".
        concepts: Names of the concepts that it shows.
        masks: Masks of its key object, bool [F, H, W], or None if unknown.
    """

    caption: str = ""
    concepts: tuple[str, ...] = ()
    masks: Bool | None = None


def describe_annotation(annotation: Annotation) -> list[str]:
    """List the caption and the concepts as lines, without empty lines."""
    lines = (annotation.caption, ", ".join(annotation.concepts))
    return list(filter(None, lines))


def collect_stimulus_annotation(images: StimulusSet, row: int) -> Annotation:
    """Collect the annotation of a stimulus, as far as the data set has any."""
    captions = images.captions(row) if images.captions else []
    concepts = []
    if images.labels:
        is_shown = images.labels(row)
        concepts = list(compress(images.label_names, is_shown))
    masks = images.masks(row).astype(bool) if images.masks else None
    caption = captions[0] if len(captions) else ""
    return Annotation(caption, tuple(concepts[:MAX_CONCEPTS]), masks)


def collect_decoded_annotations(
    decoded: Decoded, image_ids: Sequence[str], names: Sequence[str]
) -> dict[str, Annotation]:
    """Collect decoded captions, concepts and masks.

    Args:
        decoded: Heads of N rows.
        image_ids: Image ids [N].
        names: Names of the K concepts.

    Returns:
        Annotations by image id, with the most likely concepts, at least the first.
        Empty if there is no head of a caption, concepts or masks.
    """
    # heads of these names with other shapes are something else
    captions = decoded.texts.get(CAPTION)
    masks = decoded.tensors.get(MASK)
    concepts = decoded.tensors.get(CONCEPTS)
    if masks is not None and masks.ndim != 5:
        masks = None
    if concepts is not None and concepts.shape[1:] != (len(names),):
        concepts = None
    if not captions and masks is None and concepts is None:
        return {}

    annotations = {}
    # Probability above which a pixel belongs to the key object, and a concept is named.
    min_probability = 0.5
    for row, image_id in enumerate(image_ids):
        likely_names = []
        if concepts is not None:
            probability = concepts[row].cpu().numpy()  # [K]
            order = np.argsort(-probability, kind="stable")[:MAX_CONCEPTS]
            for k in order:
                if k == order[0] or probability[k] > min_probability:
                    likely_names.append(names[k])
        mask = None
        if masks is not None:
            mask = (masks[row, :, 0] > min_probability).cpu().numpy()
        caption = captions[row] if captions else ""
        annotations[image_id] = Annotation(caption, tuple(likely_names), mask)
    return annotations


@dataclass(frozen=True, eq=False)
class TaskScores:
    """Scores of decoded masks, concepts and captions.

    Attributes:
        values: Values [N] by metric. NaN for a stimulus without an object, a named
            concept or a caption. Metrics with NaN for all stimuli are left out.
        recall: For each concept, 1 if it was recalled, else 0 [N]. NaN for stimuli that
            do not show it.
        chance: Expected value [N] of guessing, by metric, for metrics that have it.
        missing: Advice by the name of each score whose library is not installed.
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
        row_of = {image_id: row for row, image_id in enumerate(images.image_ids)}
        rows = [row_of[image_id] for image_id in image_ids]
        masks = decoded.tensors.get(MASK)
        concepts = decoded.tensors.get(CONCEPTS)
        texts = decoded.texts.get(CAPTION)
        values = dict[str, Float64]()
        recall = dict[str, Float64]()
        chance = dict[str, Float64]()
        missing = {}

        # overlap of masks, which are resized as for training
        n_frames = images.frames or 1
        if (
            images.masks is not None
            and masks is not None
            and masks.shape[1:2] == (n_frames,)
        ):
            size = (masks.shape[-2], masks.shape[-1])
            true_masks = []
            for row in rows:
                mask = torch.from_numpy(images.masks(row))[:, None].gt(0).byte()
                true_masks.append(interpolate(mask, size, mode="nearest"))
            values[tasks.DICE] = tasks.dice(masks.cpu(), torch.stack(true_masks))

        # recall of concepts
        names = images.label_names
        if (
            images.labels is not None
            and concepts is not None
            and concepts.shape[1:] == (len(names),)
        ):
            labels = np.stack(list(map(images.labels, rows)))
            is_shown = labels.astype(bool)  # [N, K]
            probabilities = concepts.float().cpu().numpy()
            hits = tasks.recall_concepts(probabilities, is_shown)  # [N, K]
            recall = dict(zip(names, hits.T, strict=True))
            chance[tasks.RECALL] = is_shown.mean(1)
            values[tasks.RECALL] = torch.from_numpy(hits).nanmean(1).numpy()

        # captions of stimuli that have any
        captioned = []
        decoded_captions = []
        true_captions = []
        if images.captions and texts:
            for index, row in enumerate(rows):
                captions = images.captions(row)
                if len(captions):
                    captioned.append(index)
                    decoded_captions.append(texts[index])
                    true_captions.append(captions)
        if captioned:
            scores = tasks.score_captions(decoded_captions, true_captions)
            for name, score in scores.items():
                values[name] = np.full(len(rows), np.nan)
                values[name][captioned] = score
            for name in tasks.LIBRARIES:
                if error := tasks.find_missing_library(name):
                    missing[name] = error.in_one_line

        # objects that captions name
        if images.objects is not None and texts:
            objects = [images.objects[row] for row in rows]
            values[tasks.OBJECT] = tasks.find_named_objects(texts, objects)
            chance[tasks.OBJECT] = np.full(len(rows), 1 / len(images.object_names))
        return cls(_drop_nan(values), _drop_nan(recall), chance, missing)

    @classmethod
    def join(cls, scores: Sequence[Self]) -> Self:
        """Concatenate the scores of different items. Keep names that all scores have.

        Missing libraries are taken from the first.
        """
        joined = {}
        for kind in ("values", "recall", "chance"):
            joined[kind] = _join_columns(list(map(attrgetter(kind), scores)))
        return cls(**joined, missing=scores[0].missing)


def _join_columns(tables: Sequence[Mapping[str, Float64]]) -> dict[str, Float64]:
    """Concatenate the columns that all tables have, in the order of the first table."""
    columns_of_name = defaultdict[str, list[Float64]](list)
    for table in tables:
        for name, column in table.items():
            columns_of_name[name].append(column)
    joined = {}
    for name, columns in columns_of_name.items():
        if len(columns) == len(tables):
            joined[name] = np.concatenate(columns)
    return joined


def _drop_nan(columns: Mapping[str, Float64]) -> dict[str, Float64]:
    """Leave out columns that have only NaN."""
    return {
        name: column for name, column in columns.items() if not np.isnan(column).all()
    }


def get_source_titles(medium: str) -> dict[str, str]:
    """Return the titles of the sources, for pictures or clips."""
    return {
        source: title.replace("picture", medium)
        for source, title in SOURCE_TITLES.items()
    }


@dataclass(frozen=True)
class Stimuli:
    """Stimuli by image id.

    Attributes:
        open: Opens a picture or clip.
        get_label: Returns a short name of its content.
        get_annotation: Returns its annotation in the data set.
        grouping: Groups of similar stimuli, for statistics.
    """

    open: Callable[[str], Any]
    get_label: Callable[[str], str]
    get_annotation: Callable[[str], Annotation] = lambda image_id: Annotation()
    grouping: StimulusGrouping = field(default_factory=StimulusGrouping)


@dataclass(frozen=True)
class GeneratedSet:
    """Reconstructions of a cell (trained model) and subject, from a single source.

    Attributes:
        source: Source of the media, such as `brain`.
        name: Name of the cell and subject, such as `CELL/sub-01`. Other sources than
            `brain` come first, as in `nearest/CELL/sub-01`.
        seeds: Seeds of the training.
        files: Files of the repeats, by image id.
        subject: Subject of the signals, or None without signals.
        description: Description of their generation, which is part of the protocol.
        caveats: Phrases in `CAVEATS` that limit the scores.
        open: Opens a file.
        annotations: Decoded captions, concepts and masks, by image id.
        task_scores: Scores of the annotations.
        values: Values of each metric, in the order of `media`. Empty before scoring.
    """

    source: str
    name: str
    seeds: tuple[int, ...]
    files: Mapping[str, Sequence[Path]]
    subject: int | None = None
    description: str = ""
    caveats: Sequence[str] = ()
    open: Callable[[Path], Any] = media_files.read
    annotations: Mapping[str, Annotation] = field(default_factory=dict)
    task_scores: TaskScores = field(default_factory=TaskScores)
    values: Mapping[str, Float64] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Cell and subject without the source, or "".

        The subject is left out if the name of the cell begins with it.
        """
        if self.name == self.source:
            return ""
        name = self.name.removeprefix(f"{self.source}/")
        cell, _, subject = name.rpartition("/")
        return cell if cell and cell.rpartition("/")[2].startswith(subject) else name

    @property
    def protocol(self) -> str:
        """Description of the generation, with the caveats."""
        return extend_protocol(self.description, self.caveats)

    @property
    def media(self) -> list[tuple[str, Path]]:
        """Image id and path of every file."""
        media = []
        for image_id, files in self.files.items():
            for file in files:
                media.append((image_id, file))
        return media

    @cached_property
    def means(self) -> dict[str, Float64]:
        """Means [N] of each metric over the repeats of an item, and task scores [N].

        Task scores are NaN for items without a value.
        """
        ends = np.cumsum(list(map(len, self.files.values())))[:-1]
        means = {}
        for name, values in self.values.items():
            repeats_of_items = np.split(values, ends)
            means[name] = np.array([repeats.mean() for repeats in repeats_of_items])
        return means | dict(self.task_scores.values)

    def get_first_file(self, image_id: str) -> tuple[Path, dict[str, float]]:
        """Return the first file of an item, and its values by metric."""
        file = self.files[image_id][0]
        row = self.media.index((image_id, file))
        return file, {name: float(values[row]) for name, values in self.values.items()}


def pool_folds(sets: Sequence[GeneratedSet]) -> list[GeneratedSet]:
    """Pool the sets of all folds, so that pictures are compared across folds.

    Each stimulus was held out in a single fold, whose model made its media.
    """
    # sets that differ only in their fold
    sets_of_name = defaultdict[tuple[str, str], list[GeneratedSet]](list)
    for generated in sets:
        name = FOLD_PATTERN.sub("", generated.name)
        sets_of_name[generated.source, name].append(generated)

    pooled = []
    for (_, name), fold_sets in sets_of_name.items():
        files: dict[str, Sequence[Path]] = {}
        annotations: dict[str, Annotation] = {}
        task_scores = []
        for fold_set in fold_sets:
            files |= fold_set.files
            annotations |= fold_set.annotations
            task_scores.append(fold_set.task_scores)
        pooled_set = replace(
            fold_sets[0],
            name=name,
            files=files,
            annotations=annotations,
            task_scores=TaskScores.join(task_scores),
        )
        pooled.append(pooled_set)
    return pooled


@dataclass(frozen=True)
class Scorer:
    """Comparison of reconstructions with stimuli.

    Attributes:
        metrics: Metrics by name.
        protocol: Protocol that sets the size of media.
        batch_size: Number of media compared at once.
        device: Device on which media are resized and compared.
        open_stimuli: Functions [N] that open the stimuli.
        n_frames: Number of frames of each stimulus, or None for pictures.
    """

    metrics: Mapping[str, MetricPart]
    protocol: str
    batch_size: int
    device: torch.device
    open_stimuli: Sequence[OpenMedia]
    n_frames: int | None = None

    @cached_property
    def stimulus_features(self) -> dict[FeatureFunction, Tensor]:
        """Features [N, …] of the stimuli by the function that computes them."""
        n_stimuli = len(self.open_stimuli)
        stimulus_features: dict[FeatureFunction, Tensor] = {}
        start = 0
        with console.progress("computing features of the stimuli", n_stimuli) as bar:
            for batch in self._iterate_features(self.open_stimuli):
                if not stimulus_features:
                    torch.cuda.empty_cache()  # memory of the generator
                stop = min(start + self.batch_size, n_stimuli)
                for function, features in batch.items():
                    if function not in stimulus_features:
                        shape = (n_stimuli, *features.shape[1:])
                        stimulus_features[function] = features.new_empty(shape)
                    stimulus_features[function][start:stop] = features
                bar.advance(stop - start)
                start = stop
        return stimulus_features

    def score(
        self,
        reconstructions: Sequence[OpenMedia],
        stimulus_rows: Int64,
        candidate_rows: Int64,
        bar: console.Bar,
    ) -> dict[str, Float64]:
        """Compare reconstructions with their stimuli.

        Args:
            reconstructions: Functions [B] that open the reconstructions.
            stimulus_rows: Row [B] of each reconstruction's stimulus.
            candidate_rows: Rows [M] of the stimuli from which two-way identification
                chooses, ascending. They contain `stimulus_rows`.
            bar: Progress, which advances with each batch.

        Returns:
            Values [B] of each metric. Identification is left out if M is 1.
        """
        # identification finds the stimuli by their positions among the candidates
        rows = torch.from_numpy(stimulus_rows)
        rows_among_candidates = torch.from_numpy(
            np.searchsorted(candidate_rows, stimulus_rows)
        )
        # features of the candidates, unless all stimuli are candidates
        metrics: dict[str, MetricPart] = {}
        candidate_features: dict[FeatureFunction, Tensor] = {}
        for name, metric in self.metrics.items():
            if not metric.is_identification:
                metrics[name] = metric
            elif len(candidate_rows) > 1:
                metrics[name] = metric
                features = self.stimulus_features[metric.features]
                if len(candidate_rows) < len(features):
                    candidate_features[metric.features] = features[candidate_rows]

        values = defaultdict[str, list[Tensor]](list)
        start = 0
        for batch in self._iterate_features(reconstructions):
            batch_rows = slice(start, start + self.batch_size)
            start += self.batch_size
            for name, metric in metrics.items():
                true_features = self.stimulus_features[metric.features]
                true_rows = rows[batch_rows]
                if metric.is_identification:
                    true_features = candidate_features.get(
                        metric.features, true_features
                    )
                    true_rows = rows_among_candidates[batch_rows]
                batch_values = metric.compare(
                    true_features, batch[metric.features], true_rows
                )
                values[name].append(batch_values)
            bar.advance(len(rows[batch_rows]))
        return {
            name: torch.cat(batches).cpu().numpy() for name, batches in values.items()
        }

    def describe_stimuli(self) -> dict[str, Float64]:
        """Compute the metrics [N] of the stimuli that need no reconstruction."""
        rows = torch.arange(len(self.open_stimuli))
        values = {}
        for name, metric in self.metrics.items():
            if metric.is_reference_free:
                features = self.stimulus_features[metric.features]
                values[name] = metric.compare(features, features, rows).cpu().numpy()
        return values

    def _iterate_features(
        self, media: Sequence[OpenMedia]
    ) -> Iterator[dict[FeatureFunction, Tensor]]:
        """Decode media, and yield the features of each batch by their function."""
        size = self.batch_size
        with ThreadPoolExecutor(N_READERS) as readers:
            # threads open the next batch while this one is computed
            pending = readers.map(call, media[:size])
            for stop in range(size, len(media) + size, size):
                originals = list(pending)
                pending = readers.map(call, media[stop : stop + size])
                resized = self._resize(originals)
                features: dict[FeatureFunction, Tensor] = {}
                for metric in self.metrics.values():
                    function = metric.features
                    # metrics can share a function
                    if function not in features:
                        media_batch = originals if metric.takes_originals else resized
                        features[function] = function(media_batch)
                yield features

    def _resize(self, originals: Sequence[Any]) -> Tensor:
        """Resize media to the size of the protocol, with values in 0..1.

        A picture among clips becomes a clip that repeats it.

        Returns:
            Pictures [B, 3, P, P] or clips [B, F, 3, P, P] on the device.

        Raises:
            BrainhiveError: if a clip has another number of frames than the stimuli.
        """
        resized = []
        for original in originals:
            # [3, H, W] or [F, 3, H, W]
            media = media_files.to_media(original).to(self.device)
            if media.ndim == 3 and self.n_frames is not None:
                media = media.expand(self.n_frames, -1, -1, -1)
            if media.ndim == 3:
                resized.append(prepare(media[None], self.protocol)[0])
                continue
            require_n_frames(len(media), self.n_frames)
            resized.append(prepare(media, self.protocol, FRAME_PX))
        return torch.stack(resized)


def require_n_frames(n_frames: int, stimulus_frames: int | None) -> None:
    """Raise an error if a clip has another number of frames than the stimuli.

    Args:
        n_frames: Number of frames of the clip.
        stimulus_frames: Number of frames of the stimuli, or None for pictures.
    """
    if n_frames != stimulus_frames:
        stimuli = (
            f"clips of {stimulus_frames} frames" if stimulus_frames else "pictures"
        )
        raise BrainhiveError(
            f"a clip of {n_frames} frames cannot be compared with {stimuli}",
            "bring all clips to the same number of frames",
        )


def require_stimulus_frames(stimulus: Any, reconstruction: Any) -> None:
    """Raise an error if a clip does not have as many frames as its stimulus."""
    if isinstance(reconstruction, Clip):
        n_frames = len(stimulus.frames) if isinstance(stimulus, Clip) else None
        require_n_frames(len(reconstruction.frames), n_frames)


def score_set(
    generated: GeneratedSet, scorer: Scorer, rows: Mapping[str, int], launch: Launch
) -> GeneratedSet:
    """Compare reconstructions with their stimuli, and return them with the values.

    The processes share the files, and each returns all values.

    Args:
        generated: Reconstructions.
        scorer: Metrics and stimuli.
        rows: Row of each stimulus in the scorer, by image id.
        launch: Processes.
    """
    # score the files of this process
    candidate_rows = np.array(sorted(rows[image_id] for image_id in generated.files))
    stimulus_rows = []
    open_media = []
    for image_id, file in launch.shard(generated.media):
        stimulus_rows.append(rows[image_id])
        open_media.append(partial(generated.open, file))
    with console.progress(f"measuring {generated.name}", len(open_media)) as bar:
        values = scorer.score(
            open_media, np.array(stimulus_rows, np.int64), candidate_rows, bar
        )
        gathered = launch.gather(values)

    # join the values of all processes that had a file, in the order of the files
    return replace(generated, values=_join_columns(list(filter(None, gathered))))


def find_originals_and_blanks(
    generated: GeneratedSet, stimuli: Stimuli
) -> tuple[list[Path], list[Path]]:
    """Find copies of stimuli among reconstructions, and pictures of one colour.

    Copies may differ from stimuli by JPEG compression and by size. A picture of one
    colour counts only if its stimulus has more colours. Clips are compared by their
    first and last frame.

    Returns:
        Files of copies, and files of one colour.
    """
    compare = partial(_compare_thumbnails, generated, stimuli)
    with (
        console.progress(f"looking at {generated.name}"),
        ThreadPoolExecutor(N_READERS) as readers,
    ):
        results = list(readers.map(compare, generated.media))
    originals = []
    blanks = []
    for (_, file), (is_original, is_blank) in zip(
        generated.media, results, strict=True
    ):
        if is_original:
            originals.append(file)
        if is_blank:
            blanks.append(file)
    return originals, blanks


def _compare_thumbnails(
    generated: GeneratedSet, stimuli: Stimuli, item: tuple[str, Path]
) -> tuple[bool, bool]:
    """Return if a file is a copy of its stimulus, and if it has only one colour."""
    image_id, file = item
    true_pixels = _make_thumbnails(stimuli.open(image_id))
    pixels = _make_thumbnails(generated.open(file))
    difference = np.sqrt(np.square(pixels - true_pixels).mean())
    limit = min(MAX_RMS_DIFFERENCE, MAX_RELATIVE_DIFFERENCE * true_pixels.std())
    pixel_range = np.ptp(pixels, (1, 2)).max()
    true_range = np.ptp(true_pixels, (1, 2)).max()
    # Largest range of a picture of one colour, in levels of 255. JPEG changes
    # it a little.
    is_blank = pixel_range <= 2 < true_range
    return bool(difference < limit), bool(is_blank)


def _make_thumbnails(media: Any) -> Float64:
    """Make thumbnails [2, H, W, 3] of the first and the last frame."""
    pictures = media_files.to_clip(media).to_pictures()
    thumbnails = []
    # Side of the thumbnails by which copies of stimuli are found.
    thumbnail_px = 64
    for picture in (pictures[0], pictures[-1]):
        square = media_files.crop_square(picture, thumbnail_px)
        thumbnails.append(np.asarray(square, float))
    return np.array(thumbnails)


def rank_items(scored: Sequence[GeneratedSet]) -> list[tuple[GeneratedSet, str]]:
    """Sort items from the best to the worst, by their mean rank over metrics.

    Metrics that are not made for sorting items are used only if there are no others.

    Returns:
        Pairs of a set and the image id of its item.
    """
    from scipy.stats import rankdata

    names = list(scored[0].values)
    sorting_names = [name for name in names if get_scale(name).sorts_items]
    ranks = []
    for name in sorting_names or names:
        values = np.concatenate([cell_set.means[name] for cell_set in scored])
        ranks.append(rankdata(values if lower_is_better(name) else -values))

    items = []
    for cell_set in scored:
        for image_id in cell_set.files:
            items.append((cell_set, image_id))
    return [items[row] for row in np.argsort(np.mean(ranks, 0), kind="stable")]


def measure_sets(
    scored: Sequence[GeneratedSet],
    protocol: str,
    split: str,
    grouping: StimulusGrouping,
    per_concept: bool = False,
) -> dict[str, Metric]:
    """Average metrics over items and subjects, with confidence intervals.

    Seeds of a subject are first averaged per item.

    Args:
        scored: Reconstructions with values, from a single source.
        protocol: Description of the measurement.
        split: Split of the stimuli.
        grouping: Groups of similar items, for the intervals.
        per_concept: If True, compute the recall of each concept instead, over the items
            that show it.

    Returns:
        Metrics by name, or recall by concept. Items without a value do not count.
    """
    # sets of each subject: image ids [N], and values [S, N] of S models by name
    seeds: set[int] = set()
    sets_of_subject = defaultdict[int | None, list[GeneratedSet]](list)
    for cell_set in scored:
        seeds.update(cell_set.seeds)
        sets_of_subject[cell_set.subject].append(cell_set)
    ids = []
    stacks = []
    chances = []
    for subject_sets in sets_of_subject.values():
        ids.append(list(subject_sets[0].files))
        # chance depends only on the items, so the first model is enough
        chances.append(subject_sets[0].task_scores.chance)
        columns = []
        for cell_set in subject_sets:
            recall = cell_set.task_scores.recall
            columns.append(recall if per_concept else cell_set.means)
        stack = {}
        for name in columns[0]:
            stack[name] = np.stack([column[name] for column in columns])
        stacks.append(stack)

    # every metric, over the items of each subject that have a value
    items = grouping.make_items(ids)
    metrics = {}
    for name in dict.fromkeys(chain.from_iterable(stacks)):
        metric = tasks.RECALL if per_concept else name
        scale = get_scale(metric)
        has_chance_per_item = all(metric in chance_of for chance_of in chances)
        has_value: list[Any] = []
        measured_values = []
        measured_chances = []
        for stack, subject_ids, chance_of in zip(stacks, ids, chances, strict=True):
            values = stack.get(name, np.full((1, len(subject_ids)), np.nan))  # [S, N]
            # NaN is allowed only in task scores: `measure` raises an error for others
            is_measured = ~np.isnan(values).any(0) | (metric not in tasks.SCALES)
            has_value.append(is_measured)
            if not is_measured.any():
                continue
            measured_values.append(values[:, is_measured])
            if has_chance_per_item:
                measured_chances.append(chance_of[metric][is_measured].mean())

        # chance is averaged over subjects, as the value is
        chance = scale.chance
        if has_chance_per_item:
            chance = float(np.mean(measured_chances))
        is_unit_scale = (scale.low, scale.high) == (0.0, 1.0)
        metrics[name] = measure(
            metric,
            measured_values,
            protocol=protocol,
            caveats=scored[0].caveats,
            split=split,
            items=items.select(has_value),
            pool=scale.pool or (None if scale.chance is None else len(ids[0])),
            chance=chance,
            limits=(scale.low, scale.high),
            seeds=tuple(sorted(seeds)),
            # other metrics are no shares, even if all their values are 0 or 1
            is_share=has_chance_per_item
            or (scale.chance is not None and is_unit_scale),
        )
    return metrics


def write_values(path: Path, scored: Sequence[GeneratedSet]) -> None:
    """Write the values of every file as CSV.

    Metrics that a set does not have are empty.
    """
    columns = ["source", "cell", "image_id", "file"] + list(scored[0].values)
    rows = []
    for cell_set in scored:
        for row, (image_id, file) in enumerate(cell_set.media):
            cells: dict[str, Any] = {
                "source": cell_set.source,
                "cell": cell_set.name,
                "image_id": image_id,
                "file": file.name,
            }
            for name, values in cell_set.values.items():
                cells[name] = float(values[row])
            rows.append(cells)
    path.write_text(write_csv(columns, rows), encoding="utf-8")
