"""Training data of the cells of an align run: targets, signals, and the fuser of a
prior.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Bool
from brainhive_cli.core.device_memory import count_free_bytes
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.files import make_portable
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import SIMULATED, WHITENED_BY_TESTED
from brainhive_cli.data.signals.normalisations import (
    Statistics,
    pool_statistics,
    require_equal_widths,
)
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.learned import (
    LearnedPictures,
    PixelComparison,
    TrainingHistory,
)
from brainhive_cli.data.stores.recordings import list_recording_caveats
from brainhive_cli.data.stores.target_store import (
    TargetStore,
    get_stimuli_and_pixels,
    has_unknown_pictures,
)
from brainhive_cli.data.targets.encoder_groups import EncoderGroup, group_encoders
from brainhive_cli.data.targets.encoder_keys import match_keys
from brainhive_cli.data.targets.encoder_stores import (
    digest_of,
    open_alternatives,
    open_stores,
)
from brainhive_cli.data.targets.model_input import (
    choose_input,
    match_split,
    measure_new_subject,
    read_training,
    spec_of,
)
from brainhive_cli.data.targets.targets import (
    OnlineTargets,
    Targets,
    make_online_targets,
)
from brainhive_cli.measurement.units import StimulusGrouping
from brainhive_cli.models import priors
from brainhive_cli.models.blocks import find_linear_shapes
from brainhive_cli.models.heads import FUSED_TARGET, TOKEN_HEAD, Head
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.layout import Layout, tokens_of
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.stages import Finetune
from brainhive_cli.training.alignment.training.batches import CellData, choose_held_out
from brainhive_cli.training.alignment.training.job import Job

DIM = 1024
"""D of a token that neither recipe, fuser nor prior decides: BrainHiVE's."""
SHARE_SEED = 0
"""Seed of the pictures that a share of a new subject's data holds."""
INPUTS: Any = {
    **dict.fromkeys(("encoders", "heads", "targets", "prior", "signal"), True),
    "train": {"embedding_alternatives", "lora", "augment"},
}
"""Keys of a recipe that decide which targets and signals are loaded, and how."""


class TrainingData:
    """Targets and signals of all cells that learn from the same ones.

    Args:
        job: The run.
        recipe: The recipe of one of these cells.
        stores: The target stores of the run, by the encoder's name; all have the same
            rows.
        subjects: Those that some cell of the run is trained on.
        launch: On whose device the targets are.
        reads: Whether targets are copied to the device and signals measured. Where
            shapes are all that is looked at, files are opened and nothing is read.

    Attributes:
        signals: Which part of the subjects' recordings is read.
        stores: The target stores of these cells.
        stimuli: One of them: which stimulus each row is.
        pixels: Digests of the stimuli's pixels, [M]; None where no store has them.
        has_foreign_targets: Whether nothing says of what some targets were made.
        prior: The prior whose frozen fuser makes the target.
        keys: The fuser's key of each encoder, by the encoder's store name.
        targets: Targets of the stimuli, by the fuser's key, and by the names of those
            that terms alone read.
    """

    def __init__(
        self,
        job: Job,
        recipe: Recipe,
        stores: Mapping[str, TargetStore],
        subjects: Sequence[int],
        launch: Launch,
        reads: bool = True,
    ) -> None:
        self.job = job
        self.recipe = recipe
        self.launch = launch
        self.reads = reads
        self.signals = job.signals(recipe)
        self.stores = {
            config.name: stores[config.name] for config in recipe.stored_encoders
        }
        self.stimuli, self.pixels = get_stimuli_and_pixels(self.stores)
        self.prior = priors.load(recipe.prior) if recipe.prior else None
        self.keys = {config.name: config.name for config in recipe.encoders}
        if self.prior:
            self.keys |= match_keys(
                recipe.fused_encoders, self.prior.dims, f"the prior {recipe.prior}"
            )

        # targets are opened before signals, which are mapped or not by the memory that
        # is left
        further = open_alternatives(
            recipe.train.embedding_alternatives, self.stores, recipe.paths
        )
        stored = Targets.from_stores(self.stores, launch, self.keys, reads, further)
        self.has_foreign_targets = has_unknown_pictures(
            [*self.stores.values(), *chain(*further.values())]
        )

        # the network that learns with the model, whose outputs are computed together
        self.adapted: EncoderGroup | None = None
        if names := recipe.train.lora.encoders:
            configs = [config for config in recipe.encoders if config.name in names]
            groups = group_encoders(configs, recipe.train.precision, launch)
            if len(groups) != 1 or any(
                config.content != "pixels" for config in configs
            ):
                raise RecipeError(
                    "train.lora.encoders are to be outputs of one network of pictures, "
                    f"and {', '.join(names)} are of {len(groups)}",
                    "a training for each",
                )
            self.adapted = replace(
                groups[0], network=replace(groups[0].network, learns=True)
            )

        # join stored, computed and further targets
        sources = {
            key: source
            for key, source in stored.sources.items()
            if key in self.keys.values()
        }
        sources |= self._compute_adapted("train", self.stimuli)
        for name, target in recipe.targets.items():
            sources[name] = stored.sources[self.keys.get(target.name, target.name)]
        self.targets = Targets(sources)

        # mixed repetitions of a single trial contradict each other
        signal, mixed = recipe.signal, recipe.train.augment.repetitions
        if signal.repetitions == "single" and mixed:
            raise RecipeError(
                "single trials cannot be mixed over repetitions",
                "signal.repetitions=average, or random",
            )

        # normalisation undoes a scale before it
        if getattr(signal.normalise, "removes_scale", False) and signal.scale != 1:
            kind = signal.normalise.kind
            console.warn(
                f"signal.scale={signal.scale:g} has no effect with "
                f"signal.normalise={kind}"
            )

        # signals that need more than half of the free memory stay on disk
        needed, is_varied = 0, mixed > 0 or signal.repetitions != "average"
        for subject in subjects:
            recording = self.signals.open_recording(subject, "train")
            where = f"{job.dataset.name} subject {subject} train"
            count, most, *rest = self.signals.select(recording, where).signal.shape
            needed += 4 * count * (1 + most * is_varied) * prod(rest)
        is_large = launch.processes * needed > count_free_bytes(launch.device) / 2
        if is_large:
            console.say(f"the signals need {needed / 1e9:.1f} GB, so they stay on disk")
        self.is_mapped = is_large or not reads
        self._pictures: dict[bytes, LearnedPictures] = {}

        @cache  # once for all cells of a fold
        def read(subject: int, fold: int) -> tuple[Trials, Statistics | None]:
            return read_training(
                replace(self.signals, fold=fold), subject, self.stimuli, reads
            )

        # pictures that validate, and their copies, by the share of concepts
        dataset, ids = job.dataset, self.stimuli.image_ids
        confirm = PixelComparison(ids, dataset, "train", [dataset])
        # of tens of thousands of pictures copies are not found at once
        known = (dataset.pictured_as, ids, self.pixels, confirm) if reads else None
        self.read = read
        self.hold_out = cache(
            partial(choose_held_out, self.stimuli.concepts, pictures=known)
        )

    def is_compatible(self, recipe: Recipe) -> bool:
        """Check that another recipe learns from the same targets and signals."""
        return bool(
            self.recipe.model_dump(include=INPUTS) == recipe.model_dump(include=INPUTS)
        )

    def _compute_adapted(
        self, split: str, store: TargetStore
    ) -> dict[str, OnlineTargets]:
        """Compute what the network that learns gives for the pictures of a split's
        store, by key.

        Raises:
            BrainhiveError: if the pictures are not those of the store.
        """
        if self.adapted is None:
            return {}
        return make_online_targets(
            self.adapted, self.job.dataset.images(split), store, self.keys
        )

    def select_cell(self, cell: Cell) -> tuple[Layout, CellData]:
        """Return the architecture of a cell's model, and its training data."""
        recipe, dataset = self.job.variants[cell.variant], self.job.dataset
        train = recipe.train

        # concepts [M] that validate; none where the question is which of seen stimuli
        # was shown
        share = 0.0 if dataset.holdout.has_seen_pictures else train.validation
        held_out = self.hold_out(share=share, by=train.validation_by)

        # signals of the subjects, and what normalises them
        opened = [self.read(subject, cell.fold) for subject in cell.trained_on]
        subjects = [trials for trials, _ in opened]
        statistics = [each for _, each in opened if each]
        if recipe.mode == "finetune":
            subjects = [
                take_share(trials, held_out, recipe.finetune) for trials in subjects
            ]

        # record and architecture, before labels are shuffled
        learned = self._describe_learned(recipe, subjects, statistics)
        layout = self._plan_layout(recipe, subjects)
        # each signal gets the stimulus of another, drawn once
        if train.shuffled_labels:
            for index, each in enumerate(subjects):
                random = np.random.default_rng((cell.seed, each.subject))
                subjects[index] = each.change(
                    stimulus=random.permutation(each.stimulus)
                )

        # sessions that select the epoch, whose trials are not learned from
        tested, tested_targets = list[Trials](), Targets({})
        if train.validation_recordings:
            tested_targets = self.targets
            subjects, tested = hold_out_recordings(
                subjects, train.validation_recordings
            )

        # test signals, where they select the epoch
        if train.selection == "test":
            # targets of the test, and which of its stimuli were learned
            ours, spec = self.recipe, layout.spec
            stores = open_stores(
                dataset, ours.dataset, "test", ours.encoders, ours.paths
            )
            stimuli, pixels = get_stimuli_and_pixels(stores)
            name, ids = dataset.pictured_as, stimuli.image_ids

            # a picture that looks like a learned one, and cannot be compared with it,
            # counts as learned
            confirm = PixelComparison(ids, dataset, "test", [dataset])
            seen = learned.pictures.find_members(name, ids, pixels, confirm)

            # unseen test signals, normalised as those of the training
            for subject in cell.tested_on:
                trials = match_split(self.signals, subject, "test", stimuli)
                normaliser = learned.normaliser_of(subject)
                if normaliser is None and self.reads:
                    normaliser = measure_new_subject(
                        spec, self.signals, subject, stimuli
                    )
                unseen = trials.take(~seen[trials.stimulus])
                where = f"{dataset.name} subject {subject} test"
                tested.append(
                    choose_input(spec, unseen, where, dataset.channels).normalise(
                        normaliser
                    )
                )
            stored = Targets.from_stores(
                stores, self.launch, self.keys, self.reads
            ).sources
            tested_targets = Targets(
                {**stored, **self._compute_adapted("test", stimuli)}
            )
        data = CellData(
            subjects,
            self.targets,
            held_out,
            fuser=self.prior.fuser if self.prior else None,
            start_files=self.job.find_starts(cell),
            test_trials=tested,
            test_targets=tested_targets,
            history=learned,
            repetitions=recipe.signal.repetitions,
            random_k=recipe.signal.random_k,
            grouping=StimulusGrouping(
                dataset.alike_by, dict(enumerate(self.stimuli.concepts))
            ),
            adapted=self.adapted,
            validation_by=train.validation_by,
            epoch_trials=train.epoch_trials
            and train.epoch_trials * (recipe.finetune.sessions or 1),
            seed=cell.seed,
            is_mapped=self.is_mapped,
        )
        return layout, data

    def _describe_learned(
        self,
        recipe: Recipe,
        subjects: Sequence[Trials],
        statistics: Sequence[Statistics],
    ) -> TrainingHistory:
        """Describe what a cell's model learns from; what selects the epoch is added
        later.
        """
        # names, pixels and concepts of the learned stimuli
        rows = np.unique(np.concatenate([trials.stimulus for trials in subjects]))
        pixels = None if self.pixels is None else self.pixels[rows]
        normaliser, dataset = None, self.job.dataset
        # which cells of a sweep share
        if (key := rows.tobytes()) not in self._pictures:
            shown = self.stimuli.image_ids[rows], pixels, self.stimuli.concepts[rows]
            self._pictures[key] = LearnedPictures.from_image_ids(
                dataset.pictured_as, *shown
            )
        # without pixels
        is_of_names = getattr(self.recipe.dataset, "target", "exemplars") != "exemplars"
        are_known = (is_of_names or pixels is not None) and not self.has_foreign_targets

        # provenance of the signals: caveats and whitening of each subject
        numbers = tuple(trials.subject for trials in subjects)
        recordings = {
            number: self.signals.open_store(number)["train"] for number in numbers
        }
        caveats = list_recording_caveats(dataset, recordings.values())
        whiteners = {
            subject: recording.whiteners.astype(np.float32)
            for subject, recording in recordings.items()
            if recording.whiteners is not None
        }
        space = recordings[numbers[0]].space
        # statistics for new subjects: the mean of the training subjects'
        normalisation = recipe.signal.normalise
        if (
            normalisation is not None
            and recipe.signal.normalise_by == "training_subjects"
        ):
            require_equal_widths({trials.width for trials in subjects})
            if statistics:
                normaliser = normalisation.build(pool_statistics(statistics))
        return TrainingHistory(
            dataset=dataset.pictured_as,
            recordings=dataset.people,
            people={dataset.people: numbers},
            has_all_subjects=True,
            signals=self.signals.collect_identities(numbers),
            recorded_channels=tuple(space.names)
            if whiteners and isinstance(space, Sensors)
            else (),
            is_simulated=SIMULATED in caveats,
            is_whitened_by_tested=WHITENED_BY_TESTED in caveats,
            stimulus_kinds=(self.recipe.dataset.kind.replace("_", "-"),),
            recording_kinds=tuple(
                sorted({kind for one in recordings.values() for kind in one.made_by})
            ),
            pictures=replace(self._pictures[key], has_all_pixels=are_known),
            trials=np.unique(
                np.concatenate([trials.digests.ravel() for trials in subjects])
            ),
            normalisers={
                trials.subject: trials.normaliser
                for trials in subjects
                if trials.normaliser
            },
            normaliser=normaliser,
            whiteners=whiteners,
        )

    def _plan_layout(self, recipe: Recipe, subjects: Sequence[Trials]) -> Layout:
        """Plan the architecture of a cell's model."""
        # width of the fused token: of the fuser, or of the prior
        shapes = self.targets.shapes
        fused = {self.keys[config.name] for config in recipe.fused_encoders}
        dims = {key: shapes[key][-1] for key in shapes if key in fused}
        fuser = recipe.fuser.model_dump(mode="json") if fused else {}
        dim = recipe.fuser.token_dim(dims, recipe.dim or DIM) if fused else None
        prior_digest = ""
        if self.prior and recipe.prior:
            described = priors.describe(recipe.prior)
            fuser = {
                "kind": "fusion_encoder",
                "intermediate_size": described.fuser["intermediate_size"],
                "dropout": recipe.train.prior_dropout,
            }
            dim, prior_digest = self.prior.dim, described.digest
        if recipe.dim not in (None, dim):
            problem = f"dim is {recipe.dim}, but this fuser's tokens have {dim}"
            if dim is None:
                problem = f"dim is {recipe.dim}, but no head of this recipe is fused"
            raise RecipeError(problem, "leave dim out")

        # shape of each head, and the digest of the encoder that made its targets
        heads = {}
        for name, target in recipe.head_targets.items():
            if target == FUSED_TARGET:
                heads[name] = Head(
                    (*tokens_of({key: shapes[key] for key in dims}), dim or 0),
                    FUSED_TARGET,
                )
                continue
            heads[name] = Head(
                shapes[target.name], target.name, digest_of(self.stores[target.name])
            )
        # the network that learns with the model, and its changes
        adapter, lora = dict[str, Any](), self.recipe.train.lora
        if self.adapted is not None:
            adapter = {
                "encoders": list(self.adapted.names),
                "digest": self.adapted.digest,
                "maps": find_linear_shapes(self.adapted.network.module, lora.modules),
                "rank": lora.rank,
                "alpha": lora.alpha,
            }

        # heads that retrieval compares: the recipe's, all encoders, or the only one of
        # vectors or tokens
        compared: tuple[str, ...] = ()
        if recipe.head is not None:
            compared = (recipe.head,)
        elif not recipe.heads and not recipe.is_fused:
            compared = tuple(heads)
        elif recipe.heads and TOKEN_HEAD not in heads:
            comparable = tuple(
                name for name, head in heads.items() if len(head.shape) <= 2
            )
            compared = comparable if len(comparable) == 1 else ()

        # the section `signal`, with the channels of the data set where it names none
        section = recipe.signal.model_dump(mode="json")
        channels = self.job.dataset.channels
        if (
            section["channels"] is None
            and not section["region_split"]
            and channels is not None
        ):
            section["channels"] = [*channels]
        return Layout(
            spec=spec_of(subjects, section),
            heads=heads,
            backbone=recipe.backbone.model_dump(mode="json"),
            fuser=fuser,
            dims=dims,
            encoders=self.keys,
            retrieval_heads=compared,
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
        recordings: Sessions, from 1, by the subject's number.

    Returns:
        The trials that are learned from, and those that were taken out.

    Raises:
        RecipeError: if there is no such session, or no other.
    """
    learned, tested = [], []
    for trials in subjects:
        if chosen := recordings.get(trials.subject):
            sessions = -1 if trials.sessions is None else trials.sessions
            is_tested = trials.is_there & np.isin(sessions, np.array(chosen) - 1)
            if is_tested.sum() in (0, trials.is_there.sum()):
                raise RecipeError(
                    f"sessions {[*chosen]} of subject {trials.subject} hold none or "
                    "all of its trials",
                    "other train.validation_recordings",
                )
            tested.append(trials.choose(is_tested))
            trials = trials.choose(trials.is_there & ~is_tested)
        learned.append(trials)
    return learned, tested


def take_share(trials: Trials, held_out: Bool, finetune: Finetune) -> Trials:
    """Take the trials of the first sessions, and of a share of their stimuli.

    It is an equal share of the stimuli that are held out ([M]) and the others.
    """
    # an equal share of learned and held-out pictures
    if finetune.sessions is not None:
        assert trials.sessions is not None
        trials = trials.choose(
            (trials.sessions >= 0) & (trials.sessions < finetune.sessions)
        )
    random = np.random.default_rng(SHARE_SEED)
    shares = []
    for is_held_out in (False, True):
        pictures = np.unique(trials.stimulus[held_out[trials.stimulus] == is_held_out])
        count = max(1, round(finetune.share * len(pictures)))
        shares.append(random.permutation(pictures)[:count])
    return trials.take(np.isin(trials.stimulus, np.concatenate(shares)))
