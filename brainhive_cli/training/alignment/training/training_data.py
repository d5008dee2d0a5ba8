"""Signals, targets and architectures of the trainings of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from brainhive_cli.core.base import Bool, RecipeError, console, count_free_bytes
from brainhive_cli.core.files import make_portable
from brainhive_cli.core.results import SIMULATED, WHITENED_BY_TESTED
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.datasets import HasTarget
from brainhive_cli.data.signals import (
    SCALED_UNITS,
    Statistics,
    Trials,
    measure_scale,
    pool_statistics,
    require_equal_widths,
)
from brainhive_cli.data.stores import (
    LearnedPictures,
    PixelComparison,
    TargetStore,
    TrainingHistory,
    get_stimuli_and_pixels,
    has_unknown_pictures,
    list_recording_caveats,
)
from brainhive_cli.data.targets import (
    EncoderGroup,
    OnlineTargets,
    Targets,
    choose_input,
    digest_of,
    group_encoders,
    make_online_targets,
    match_keys,
    match_split,
    measure_new_subject,
    open_alternatives,
    open_stores,
    read_training,
    spec_of,
)
from brainhive_cli.measurement import StimulusGrouping
from brainhive_cli.models import (
    FUSED_TARGET,
    TOKEN_HEAD,
    Head,
    convert_unit,
    find_linear_shapes,
    priors,
)
from brainhive_cli.training.alignment import (
    DEFAULT_DIM,
    Cell,
    Finetune,
    Layout,
    Recipe,
    find_token_axes,
)
from brainhive_cli.training.alignment.training.batches import CellData, choose_held_out
from brainhive_cli.training.alignment.training.initialisation import (
    list_pretrained_weights,
)
from brainhive_cli.training.alignment.training.job import Job


class TrainingData:
    """Targets and signals of all cells with the same inputs.

    Args:
        job: The run, or the first of several runs with the same inputs.
        subjects: Subjects that some cell of the run is trained on.
        launch: Processes of the run, with the device of the targets.
        reads: If False, files are opened for their shapes, but not read.

    Attributes:
        signals: Recordings of the data set.
        stores: Target stores of these cells.
        stimuli: First of these stores, with the stimulus of each row.
        pixels: Digests [M, 25] of the stimuli's pixels, or None if no store has them.
        has_foreign_targets: True if the stimuli of some targets are unknown.
        prior: Prior whose frozen fuser makes the target, or None.
        keys: The fuser's key of each encoder, by the encoder's store name.
        adapted: Encoders that learn with the model, or None.
        targets: Targets of the stimuli, by the fuser's key or the target's name.
        is_mapped: True if signals are read from their files batch by batch.
    """

    def __init__(
        self,
        job: Job,
        subjects: Sequence[int],
        launch: Launch,
        reads: bool = True,
    ) -> None:
        self.job = job
        self.recipe = recipe = job.recipe
        self.launch = launch
        self.reads = reads
        self.subjects = list(subjects)
        self.signals = job.signals
        self.stores = {
            config.name: job.stores[config.name] for config in recipe.stored_encoders
        }
        self.stimuli, self.pixels = get_stimuli_and_pixels(self.stores)
        self.prior = priors.load(recipe.prior) if recipe.prior else None
        self.keys = {config.name: config.name for config in recipe.encoders}
        if self.prior:
            self.keys |= match_keys(
                recipe.fused_encoders, self.prior.dims, f"the prior {recipe.prior}"
            )

        # open the targets first, because signals are mapped if little memory is left
        alternatives = open_alternatives(
            recipe.train.embedding_alternatives, self.stores, recipe.paths
        )
        stored = Targets.from_stores(
            self.stores, launch, self.keys, reads, alternatives
        )
        all_stores = list(self.stores.values())
        all_stores += chain.from_iterable(alternatives.values())
        self.has_foreign_targets = has_unknown_pictures(all_stores)
        self.adapted = self._group_adapted_encoders()
        sources = {}
        for key, source in stored.sources.items():
            if key in self.keys.values():
                sources[key] = source
        sources |= self._compute_adapted("train", self.stimuli)
        for name, target in recipe.targets.items():
            sources[name] = stored.sources[self.keys.get(target.name, target.name)]
        self.targets = Targets(sources)

        # check the keys of the signals
        signal = recipe.signal
        if signal.repetitions == "single" and recipe.train.augment.repetitions:
            raise RecipeError(
                "single trials cannot be mixed over repetitions",
                "set signal.repetitions=average, or random",
            )
        removes_scale = getattr(signal.normalise, "removes_scale", False)
        if removes_scale and signal.scale is not None:
            console.warn(
                f"signal.scale={signal.scale:g} has no effect with "
                f"signal.normalise={signal.normalise.kind}"
            )

        # signals that need more than half of the free memory stay on disk
        n_bytes = self._count_signal_bytes(subjects)
        is_large = launch.processes * n_bytes > count_free_bytes(launch.device) / 2
        if is_large:
            console.say(
                f"the signals need {n_bytes / 1e9:.1f} GB, so they stay on disk"
            )
        self.is_mapped = is_large or not reads

        # values that several cells share
        self._pictures: dict[bytes, LearnedPictures] = {}
        self._read_subject = cache(self._read_training)
        compared_pictures = None
        if reads:  # comparing tens of thousands of pictures takes time
            dataset = job.dataset
            image_ids = self.stimuli.image_ids
            compare = PixelComparison(image_ids, dataset, "train", [dataset])
            compared_pictures = dataset.pictured_as, image_ids, self.pixels, compare
        self._choose_held_out = cache(
            partial(choose_held_out, self.stimuli.concepts, pictures=compared_pictures)
        )

    def is_compatible(self, job: Job, subjects: Sequence[int]) -> bool:
        """Return True if another run has the same targets, signals and subjects."""
        # Keys of a recipe on which the loaded targets and signals depend.
        input_keys: Any = {
            **dict.fromkeys(
                ("dataset", "paths", "encoders", "heads", "targets", "prior", "signal"),
                True,
            ),
            "train": {"embedding_alternatives", "lora", "augment"},
        }
        inputs = job.recipe.model_dump(include=input_keys)
        has_same_inputs = self.recipe.model_dump(include=input_keys) == inputs
        return has_same_inputs and list(subjects) == self.subjects

    def _group_adapted_encoders(self) -> EncoderGroup | None:
        """Return the group of encoders that learn with the model, or None.

        Raises:
            RecipeError: if they are not outputs of one network of pictures.
        """
        recipe = self.recipe
        names = recipe.train.lora.encoders
        if not names:
            return None
        configs = [config for config in recipe.encoders if config.name in names]
        groups = group_encoders(configs, recipe.train.precision, self.launch)
        reads_pictures = all(config.content == "pixels" for config in configs)
        if len(groups) != 1 or not reads_pictures:
            raise RecipeError(
                "train.lora.encoders must be outputs of one network of pictures, and "
                f"{', '.join(names)} are of {len(groups)}",
                "train each network in a training of its own",
            )
        return replace(groups[0], network=replace(groups[0].network, learns=True))

    def _compute_adapted(
        self, split: str, store: TargetStore
    ) -> dict[str, OnlineTargets]:
        """Make the targets that learning encoders compute at each step, by key.

        Raises:
            BrainhiveError: if the store has embeddings of other pictures.
        """
        if self.adapted is None:
            return {}
        images = self.job.dataset.images(split)
        return make_online_targets(self.adapted, images, store, self.keys)

    def _count_signal_bytes(self, subjects: Sequence[int]) -> int:
        """Count the bytes of averages, and of single trials if batches need them."""
        signal = self.recipe.signal
        needs_singles = (
            signal.repetitions != "average" or self.recipe.train.augment.repetitions > 0
        )
        n_values = 0
        for subject in subjects:
            recording = self.signals.open_recording(subject, "train")
            where = f"{self.job.dataset.name} subject {subject} train"
            shape = self.signals.select(recording, where).signal.shape
            n_rows = len(recording.counts)
            if needs_singles:
                n_rows += shape[0]
            n_values += n_rows * prod(shape[1:])
        return 4 * n_values

    def _read_training(
        self, subject: int, fold: int
    ) -> tuple[Trials, Statistics | None]:
        """Read the normalised training trials of a subject, and their statistics."""
        signals = replace(self.signals, fold=fold)
        return read_training(signals, subject, self.stimuli, self.reads)

    def select_cell(self, cell: Cell, job: Job) -> tuple[Layout, CellData]:
        """Return the architecture of a cell's model, and its training data.

        1. Choose the pictures that validate, and read the signals.
        2. Describe the training data, and plan the architecture.
        3. Shuffle the labels, if the recipe says so.
        4. Take out the signals that select the epoch, or read test signals.

        Args:
            cell: Cell of the run.
            job: The run, which has the same inputs.
        """
        recipe = job.recipe
        dataset = self.job.dataset
        train = recipe.train

        # trials of seen pictures are held out already
        share = 0.0 if dataset.holdout.has_seen_pictures else train.validation
        held_out = self._choose_held_out(share=share, by=train.validation_by)

        # read the signals, and take the share for fine-tuning
        subjects = []
        statistics = []
        for subject in cell.trained_on:
            trials, subject_statistics = self._read_subject(subject, cell.fold)
            if recipe.mode == "finetune":
                trials = take_share(trials, held_out, recipe.finetune)
            subjects.append(trials)
            if subject_statistics:
                statistics.append(subject_statistics)

        # describe them before labels are shuffled
        history = self._describe_history(recipe, subjects, statistics)
        layout = self._plan_layout(recipe, subjects)
        if train.shuffled_labels:
            for index, trials in enumerate(subjects):
                rng = np.random.default_rng((cell.seed, trials.subject))
                stimulus = rng.permutation(trials.stimulus)
                subjects[index] = trials.change(stimulus=stimulus)

        # choose the signals that select the epoch
        test_trials: list[Trials] = []
        test_targets = Targets({})
        if train.validation_recordings:
            subjects, test_trials = hold_out_recordings(
                subjects, train.validation_recordings
            )
            test_targets = self.targets
        if train.selection == "test":
            test_trials, test_targets = self._open_test(cell, layout, history)

        epoch_trials = train.epoch_trials
        if epoch_trials is not None:
            epoch_trials *= recipe.finetune.sessions or 1
        data = CellData(
            subjects,
            self.targets,
            held_out,
            fuser=self.prior.fuser if self.prior else None,
            start_files=job.find_starts(cell),
            test_trials=test_trials,
            test_targets=test_targets,
            history=history,
            repetitions=recipe.signal.repetitions,
            random_k=recipe.signal.random_k,
            grouping=StimulusGrouping(
                dataset.alike_by, dict(enumerate(self.stimuli.concepts))
            ),
            adapted=self.adapted,
            validation_by=train.validation_by,
            epoch_trials=epoch_trials,
            seed=cell.seed,
            is_mapped=self.is_mapped,
        )
        return layout, data

    @cached_property
    def _test_pictures(self) -> tuple[dict[str, TargetStore], PixelComparison]:
        """Target stores of the test, and the comparison of its pictures."""
        dataset = self.job.dataset
        recipe = self.recipe
        stores = open_stores(
            dataset, recipe.dataset, "test", recipe.encoders, recipe.paths
        )
        stimuli = next(iter(stores.values()))
        return stores, PixelComparison(stimuli.image_ids, dataset, "test", [dataset])

    def _open_test(
        self, cell: Cell, layout: Layout, history: TrainingHistory
    ) -> tuple[list[Trials], Targets]:
        """Open the test signals of a cell, without seen pictures, and their targets."""
        dataset = self.job.dataset
        stores, compare = self._test_pictures
        stimuli, pixels = get_stimuli_and_pixels(stores)

        # a similar picture that cannot be compared counts as seen
        is_seen = history.pictures.find_members(
            dataset.pictured_as, stimuli.image_ids, pixels, compare
        )

        # normalise the signals as in the training
        test_trials = []
        for subject in cell.tested_on:
            trials = match_split(self.signals, subject, "test", stimuli)
            normaliser = history.normaliser_of(subject)
            if normaliser is None and self.reads:
                normaliser = measure_new_subject(
                    layout.spec, self.signals, subject, stimuli
                )
            unseen_trials = trials.take(~is_seen[trials.stimulus])
            where = f"{dataset.name} subject {subject} test"
            selected = choose_input(layout.spec, unseen_trials, where, dataset.channels)
            test_trials.append(selected.normalise(normaliser))
        stored = Targets.from_stores(stores, self.launch, self.keys, self.reads)
        sources = dict(stored.sources)
        sources |= self._compute_adapted("test", stimuli)
        return test_trials, Targets(sources)

    def _describe_history(
        self,
        recipe: Recipe,
        subjects: Sequence[Trials],
        statistics: Sequence[Statistics],
    ) -> TrainingHistory:
        """Describe the training data of a cell, before an epoch is selected."""
        # training pictures, which cells share
        dataset = self.job.dataset
        rows = np.unique(np.concatenate([trials.stimulus for trials in subjects]))
        pixels = None if self.pixels is None else self.pixels[rows]
        key = rows.tobytes()
        if key not in self._pictures:
            self._pictures[key] = LearnedPictures.from_image_ids(
                dataset.pictured_as,
                self.stimuli.image_ids[rows],
                pixels,
                self.stimuli.concepts[rows],
            )

        # labels and names have no pixels
        config = self.recipe.dataset
        has_no_pictures = isinstance(config, HasTarget) and config.target != "exemplars"
        has_all_pixels = has_no_pictures or pixels is not None

        # recordings, their caveats and whiteners
        numbers = tuple(trials.subject for trials in subjects)
        recordings = {
            number: self.signals.open_store(number)["train"] for number in numbers
        }
        caveats = list_recording_caveats(dataset, recordings.values())
        whiteners = {}
        recording_kinds = set[str]()
        for subject, recording in recordings.items():
            recording_kinds.update(recording.made_by)
            if recording.whiteners is not None:
                whiteners[subject] = recording.whiteners.astype(np.float32)
        space = recordings[numbers[0]].space
        recorded_channels = tuple(space.names) if whiteners else ()

        # new subjects may be normalised by the mean statistics of the training subjects
        normaliser = None
        normalisation = recipe.signal.normalise
        if (
            normalisation is not None
            and recipe.signal.normalise_by == "training_subjects"
        ):
            require_equal_widths({trials.width for trials in subjects})
            if statistics:
                normaliser = normalisation.build(pool_statistics(statistics))
        normalisers = {}
        for trials in subjects:
            if trials.normaliser:
                normalisers[trials.subject] = trials.normaliser
        return TrainingHistory(
            dataset=dataset.pictured_as,
            recordings=dataset.people,
            people={dataset.people: numbers},
            has_all_subjects=True,
            signals=self.signals.collect_identities(numbers),
            recorded_channels=recorded_channels,
            is_simulated=SIMULATED in caveats,
            is_whitened_by_tested=WHITENED_BY_TESTED in caveats,
            stimulus_kinds=(config.kind.replace("_", "-"),),
            recording_kinds=tuple(sorted(recording_kinds)),
            pretrained_weights=tuple(list_pretrained_weights(recipe.backbone)),
            pictures=replace(
                self._pictures[key],
                has_all_pixels=has_all_pixels and not self.has_foreign_targets,
            ),
            trials=np.unique(np.concatenate([trials.digests for trials in subjects])),
            normalisers=normalisers,
            normaliser=normaliser,
            whiteners=whiteners,
        )

    def _find_scale(
        self, recipe: Recipe, subjects: Sequence[Trials]
    ) -> tuple[float, ...]:
        """Find the factors by which a model multiplies its signals.

        Raises:
            BrainhiveError: if signals are constant, or far from 0.
        """
        signal = recipe.signal
        unit = subjects[0].unit
        has_scale = getattr(signal.normalise, "removes_scale", False)
        has_scale |= signal.normalise_trials or unit in SCALED_UNITS
        if signal.scale is not None or has_scale or not self.reads:
            return ()
        input_unit = recipe.backbone.input_unit
        if not input_unit:
            return measure_scale(subjects, signal.repetitions != "average")
        try:
            return (convert_unit(unit, input_unit),)
        except KeyError:
            console.warn(
                f"the signals have the unit {unit!r}, and {recipe.backbone.kind} takes "
                f"{input_unit}; set the factor: signal.scale"
            )
            return ()

    def _plan_layout(self, recipe: Recipe, subjects: Sequence[Trials]) -> Layout:
        """Plan the architecture of a cell's model.

        Raises:
            RecipeError: if `dim` is not the width of the fused tokens.
        """
        # the fuser or the prior sets the width of the fused token
        shapes = self.targets.shapes
        fused_keys = {self.keys[config.name] for config in recipe.fused_encoders}
        dims = {key: shapes[key][-1] for key in shapes if key in fused_keys}
        fuser: dict[str, Any] = {}
        dim: int | None = None
        if fused_keys:
            fuser = recipe.fuser.model_dump(mode="json")
            dim = recipe.fuser.token_dim(dims, recipe.dim or DEFAULT_DIM)
        prior_digest = ""
        if self.prior and recipe.prior:
            description = priors.describe(recipe.prior)
            fuser = {
                "kind": "fusion_encoder",
                "intermediate_size": description.fuser["intermediate_size"],
                "dropout": recipe.train.prior_dropout,
            }
            dim = self.prior.dim
            prior_digest = description.digest
        if recipe.dim not in (None, dim):
            problem = f"dim is {recipe.dim}, but the tokens of this fuser have {dim}"
            if dim is None:
                problem = f"dim is {recipe.dim}, but no head of this recipe is fused"
            raise RecipeError(problem, "leave dim out")

        # shape of each head, and digest of the encoder of its targets
        heads = {}
        for name, target in recipe.head_targets.items():
            if target == FUSED_TARGET:
                tokens_shape = find_token_axes({key: shapes[key] for key in dims})
                heads[name] = Head(tokens_shape + (dim or 0,), FUSED_TARGET)
            else:
                digest = digest_of(self.stores[target.name])
                heads[name] = Head(shapes[target.name], target.name, digest)

        # network that learns with the model, and the size of its changes
        adapter: dict[str, Any] = {}
        if self.adapted is not None:
            lora = self.recipe.train.lora
            adapter = {
                "encoders": list(self.adapted.names),
                "digest": self.adapted.digest,
                "maps": find_linear_shapes(self.adapted.network.module, lora.modules),
                "rank": lora.rank,
                "alpha": lora.alpha,
            }

        # retrieval compares the recipe's head, all encoders, or the only head of
        # vectors or tokens
        retrieval_heads: tuple[str, ...] = ()
        if recipe.head is not None:
            retrieval_heads = (recipe.head,)
        elif not recipe.heads and not recipe.is_fused:
            retrieval_heads = tuple(heads)
        elif recipe.heads and TOKEN_HEAD not in heads:
            comparable_heads = [
                name for name, head in heads.items() if len(head.shape) <= 2
            ]
            if len(comparable_heads) == 1:
                retrieval_heads = tuple(comparable_heads)

        # without channels in the recipe, the data set chooses them
        section = recipe.signal.model_dump(mode="json")
        channels = self.job.dataset.channels
        names_channels = section["channels"] is not None or section["region_split"]
        if not names_channels and channels is not None:
            section["channels"] = list(channels)
        spec = spec_of(subjects, section)
        return Layout(
            spec=replace(spec, scale=self._find_scale(recipe, subjects)),
            heads=heads,
            backbone=recipe.backbone.model_dump(mode="json"),
            fuser=fuser,
            dims=dims,
            encoders=self.keys,
            retrieval_heads=retrieval_heads,
            prior=make_portable(recipe.prior or ""),
            prior_digest=prior_digest,
            subject_layer=recipe.subject_layer,
            similarity=recipe.similarity,
            adapter=adapter,
        )


def hold_out_recordings(
    subjects: Sequence[Trials], recordings: Mapping[int, Sequence[int]]
) -> tuple[list[Trials], list[Trials]]:
    """Take sessions out of the training trials.

    Args:
        subjects: Trials of each subject.
        recordings: Numbers of the sessions, from 1, by subject.

    Returns:
        The remaining training trials of each subject, and the trials of the sessions.

    Raises:
        RecipeError: if the sessions hold no trials, or all trials of a subject.
    """
    training_trials = []
    test_trials = []
    for trials in subjects:
        numbers = recordings.get(trials.subject)
        if not numbers:
            training_trials.append(trials)
            continue
        is_tested = np.zeros(len(trials.signal), bool)
        if trials.sessions is not None:
            is_tested = np.isin(trials.sessions, np.array(numbers) - 1)
        if is_tested.sum() in (0, len(is_tested)):
            raise RecipeError(
                f"sessions {list(numbers)} of subject {trials.subject} hold none or "
                "all of its trials",
                "set other train.validation_recordings",
            )
        test_trials.append(trials.choose(is_tested))
        training_trials.append(trials.choose(~is_tested))
    return training_trials, test_trials


def take_share(trials: Trials, held_out: Bool, finetune: Finetune) -> Trials:
    """Select the trials of a new subject that fine-tuning uses.

    They belong to the first sessions, and to equal shares of the held-out and of the
    other pictures.

    Args:
        trials: Training trials of the subject.
        held_out: True [M] for held-out pictures.
        finetune: Number of sessions, and share of the pictures.
    """
    if finetune.sessions is not None:
        assert trials.sessions is not None
        trials = trials.choose(trials.sessions < finetune.sessions)
    # Seed of the pictures that a share of a new subject's data holds.
    rng = np.random.default_rng(0)
    shares = []
    for is_held_out in (False, True):
        pictures = np.unique(trials.stimulus[held_out[trials.stimulus] == is_held_out])
        n_pictures = max(1, round(finetune.share * len(pictures)))
        shares.append(rng.permutation(pictures)[:n_pictures])
    return trials.take(np.isin(trials.stimulus, np.concatenate(shares)))
