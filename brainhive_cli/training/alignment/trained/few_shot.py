"""Adaptation of a model of other people to a new person with few recordings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.base import BrainhiveError, Float32, derive_seed
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.signals import Normaliser, Trials, pool_statistics
from brainhive_cli.data.stores import TrainingHistory
from brainhive_cli.data.targets import Targets, spec_of
from brainhive_cli.training.alignment import Aligner, Layout, Stage, Term, Train
from brainhive_cli.training.alignment.training import CellData, fit, is_closed_form

ZERO_SHOT = "zero-shot"
SUBJECT_LAYER = "subject-layer"
FINE_TUNING = "fine-tuning"
TRANSFER = "transfer"
SCRATCH = "scratch"
PERMUTED_TRANSFER = "permuted-transfer"
PERMUTED_SCRATCH = "permuted-scratch"
TRAINED_ARMS = (
    SUBJECT_LAYER,
    FINE_TUNING,
    TRANSFER,
    SCRATCH,
    PERMUTED_TRANSFER,
    PERMUTED_SCRATCH,
)
"""Arms that are trained on labelled pictures. Arms of alignments are named by part."""
ARMS = (ZERO_SHOT, *TRAINED_ARMS)
MIN_TRANSFER_PICTURES = 5
"""Smallest number of pictures for transfer. With fewer, transfer is zero-shot."""
MAX_REFERENCE_TOKENS = 2000
"""Largest number of tokens of training subjects to which alignments are fitted."""
SIGNALS_PER_BLOCK = 1024


def choose_pull(n_pictures: int) -> float:
    """Choose the strength of transfer from the number of a person's pictures alone.

    The strength is the share of the distance to the other people's weights that each
    training step takes back. At 0, these weights are only the start.
    """
    # Largest number of pictures, and strength of transfer (`train.start_pull`) up to
    # it, where no other people choose the strength. It is 0 for more pictures. The
    # values are about the best of the demo with eight people.
    for max_pictures, pull in ((50, 0.3), (200, 0.1), (600, 0.03)):
        if n_pictures <= max_pictures:
            return pull
    return 0.0


@dataclass(frozen=True)
class PersonModel:
    """Model of a person, with alignments of the signals and the tokens.

    Attributes:
        model: The model.
        normaliser: Normaliser of the person's signals. None if they are read as
            recorded.
        align: Function that aligns tokens [N, D], or None.
        subject: Number of the person, if the model was trained on the person.
    """

    model: Aligner
    normaliser: Normaliser | None = None
    align: Callable[[Tensor], Tensor] | None = None
    subject: int | None = None

    @torch.inference_mode()
    def encode(self, signal: Float32 | Tensor) -> Tensor:
        """Encode signals of the person as the tokens [N, D] that retrieval compares.

        Args:
            signal: Signals [N, C, T] that are not normalised.

        Raises:
            BrainhiveError: if the model cannot decode a new person.
        """
        model = self.model
        normaliser = self.normaliser
        if normaliser is not None and normaliser.matrix.shape[0] != signal.shape[1]:
            raise BrainhiveError(
                "the new person has other channels or voxels than the training people",
                "leave out zero-shot: --arms transfer,scratch",
            )
        blocks = []
        for start in range(0, len(signal), SIGNALS_PER_BLOCK):
            block = np.asarray(signal[start : start + SIGNALS_PER_BLOCK], np.float32)
            if normaliser is not None:
                block = normaliser(block)
            index = model.make_subject_index(self.subject, len(block))
            inputs = torch.from_numpy(block).to(model.device)
            blocks.append(model.encode_signal(inputs, index).float())
        tokens = torch.cat(blocks)
        return tokens if self.align is None else self.align(tokens)


@dataclass(frozen=True)
class SourceModel:
    """Model of other people that is adapted to a new person.

    Attributes:
        model: Model that was not trained on the person.
        targets: Targets of the training stimuli, keyed by the key of the embedding.
        terms: Loss terms of the training.
        train: Settings of the training, whose epochs and learning rate were chosen for
            other people.
        training_trials: Training signals of at least one training subject, not
            normalised.
        fuser: Frozen fusion encoder of a prior. None if the model has its own fuser.
    """

    model: Aligner
    targets: Targets
    terms: Sequence[Term]
    train: Train
    training_trials: Sequence[Trials]
    fuser: torch.nn.Module | None = None
    # keyed by the config of the normalisation and the number of trials of a picture
    _statistics: dict[Any, Any] = field(default_factory=dict, init=False)

    @property
    def is_closed_form(self) -> bool:
        """Return True if models are fitted without epochs, so without a pull."""
        return is_closed_form(self.model.layout)

    @cached_property
    def normalisation(self) -> Any:
        """Config that normalised each training subject by its own signals, or None."""
        value = self.model.layout.spec.signal.get("normalise", "none")
        return None if value == "none" else parts.resolve("normalisations", value)

    @cached_property
    def zero_shot(self) -> PersonModel:
        """Model for a person without recordings.

        Signals are normalised by the mean of the training subjects' normalisers.

        Raises:
            BrainhiveError: if the others have different channels or voxels.
        """
        history = self.model.learned
        if self.normalisation is None or history.normaliser is not None:
            return PersonModel(self.model, history.normaliser)
        normalisers = list(history.normalisers.values())
        if len({normaliser.matrix.shape for normaliser in normalisers}) != 1:
            raise BrainhiveError(
                f"signal.normalise={self.normalisation.kind} of the model needs "
                "recordings of the new person, but zero-shot uses none",
                "leave out zero-shot, or use a model without signal.normalise",
            )
        mean = np.mean([normaliser.mean for normaliser in normalisers], 0)
        matrix = np.mean([normaliser.matrix for normaliser in normalisers], 0)
        return PersonModel(self.model, Normaliser(mean, matrix))

    def can_decode_new_people(self, trials: Trials) -> bool:
        """Return True if the model encodes the first trial without adaptation."""
        try:
            self.zero_shot.encode(trials.read(slice(1)))
        except BrainhiveError:
            return False
        return True

    def align_signals(self, config: Any, trials: Trials) -> PersonModel:
        """Align the signals of a person with the training signals, without labels.

        If each training subject was normalised by its own statistics, so is the person.
        Otherwise the signals get the mean statistics of the training subjects.

        Args:
            config: Config of the normalisation that measures the statistics.
            trials: Trials of the person, not normalised.

        Raises:
            BrainhiveError: if the model cannot read signals of this normalisation.
        """
        self.require_alignment(config, trials)
        normaliser = config.build(config.measure([trials.averages]))
        if self.normalisation is not None:
            return PersonModel(self.model, normaliser)

        # mean statistics of the training subjects, with as many trials of each picture
        max_trials = round(float(np.mean(trials.counts)))
        key = (config, max_trials)
        if key not in self._statistics:
            statistics = []
            for person in self.training_trials:
                first_trials = person.choose(person.repetition < max_trials)
                statistics.append(config.measure([first_trials.averages]))
            self._statistics[key] = pool_statistics(statistics)
        common = config.build(self._statistics[key])

        # normalise by the person's matrix M and mean m, then undo the training
        # subjects' S and s: x → S^-1 (M (x - m)) + s
        matrix = _expand_matrix(normaliser).astype(np.float64)
        common_matrix = _expand_matrix(common).astype(np.float64)
        mapping = np.linalg.solve(common_matrix, matrix)
        mean = normaliser.mean - np.linalg.solve(
            mapping, np.asarray(common.mean, np.float64)
        )
        aligned = Normaliser(mean.astype(np.float32), mapping.astype(np.float32))
        return PersonModel(self.model, aligned)

    def require_alignment(self, config: Any, trials: Trials) -> None:
        """Raise a BrainhiveError if the model cannot read the aligned signals."""
        if self.normalisation is not None and self.normalisation != config:
            raise BrainhiveError(
                "the model was trained with signal.normalise="
                f"{self.normalisation.kind}",
                f"set alignments={self.normalisation.kind}, or use a model without "
                "signal.normalise",
            )
        if self.normalisation is None and not trials.channels:
            raise BrainhiveError(
                "the voxels of two people cannot be aligned",
                "choose alignments of tokens: alignments=[NAME]",
            )

    @cached_property
    def _reference_tokens(self) -> Tensor:
        """Tokens [m, D] of evenly spaced training signals, for alignments."""
        tokens = []
        for trials in self.training_trials:
            n_signals = len(self.training_trials) * len(trials.stimulus)
            step = max(1, n_signals // MAX_REFERENCE_TOKENS)
            normaliser = self._fit_normaliser(trials)
            person = PersonModel(self.model, normaliser, None, trials.subject)
            tokens.append(person.encode(trials.averages[::step]))
        return torch.cat(tokens)

    def _fit_normaliser(self, trials: Trials) -> Normaliser | None:
        """Fit the model's normalisation, if it has any, to the trials of a person."""
        config = self.normalisation
        if config is None:
            return None
        return config.build(config.measure([trials.averages]))

    def align_tokens(self, config: Any, trials: Trials) -> PersonModel:
        """Align the tokens that the model predicts for a person.

        Args:
            config: Config of the alignment. If `is_paired`, it aligns tokens with the
                tokens of their stimuli, else with tokens of the training subjects.
            trials: Trials of the person, not normalised.
        """
        decoder = PersonModel(self.model, self._fit_normaliser(trials))
        references = self._reference_tokens
        if config.is_paired:
            with torch.inference_mode():
                embeddings = self.targets.gather(torch.from_numpy(trials.stimulus))
                references = self.model.encode_image(embeddings).float()
        align = config.fit(decoder.encode(trials.averages), references)
        return replace(decoder, align=align)

    def require_arm(self, arm: str, trials: Trials) -> None:
        """Raise a BrainhiveError if an arm, a kind of training, does not fit."""
        backbone = self.model.layout.backbone["kind"]
        if arm == SUBJECT_LAYER and (self.is_closed_form or not trials.channels):
            kind = f"a {backbone} model" if self.is_closed_form else "a model of voxels"
            raise BrainhiveError(
                f"{kind} has no subject layer",
                "leave out subject-layer",
            )
        if arm == FINE_TUNING and self.is_closed_form:
            raise BrainhiveError(
                f"fine-tuning a {backbone} model equals transfer",
                "leave out fine-tuning",
            )

    def train_arm(
        self,
        arm: str,
        trials: Trials,
        seed: int,
        pull: float = 0.0,
        alignment: Any = None,
    ) -> PersonModel:
        """Train a model on the labelled recordings of a person.

        Args:
            arm: Kind of training of `TRAINED_ARMS`, such as `transfer` (from the model)
                or `scratch` (from random weights).
            trials: Trials of the person, not normalised.
            seed: Seed of the training.
            pull: Share of the distance to the model's weights that each step of
                transfer takes back.
            alignment: Config of the normalisation that aligns signals before transfer,
                or None. It has no effect if the training signals were normalised.

        Raises:
            BrainhiveError: if the model does not have the arm.
        """
        self.require_arm(arm, trials)
        is_transfer = arm in (TRANSFER, PERMUTED_TRANSFER)
        is_scratch = arm in (SCRATCH, PERMUTED_SCRATCH)
        is_permuted = arm in (PERMUTED_TRANSFER, PERMUTED_SCRATCH)

        # normalise the signals as the model reads them
        normaliser = self._fit_normaliser(trials)
        if is_transfer and alignment is not None and self.normalisation is None:
            normaliser = self.align_signals(alignment, trials).normaliser
        is_fixed = is_transfer and pull >= 1 and not self.is_closed_form
        # a full pull trains only modules of the person, and the model has none
        if is_fixed and self.can_decode_new_people(trials):
            return PersonModel(self.model, normaliser)
        if normaliser is not None:
            trials = trials.normalise(normaliser)
        if is_permuted:  # a control with wrong pictures
            rng = np.random.default_rng((seed, len(trials.stimulus)))
            trials = trials.change(stimulus=rng.permutation(trials.stimulus))

        # give the person a number that no training subject has
        layout = self.model.layout
        person = trials.subject
        if person in layout.spec.subjects:
            trials = trials.change(subject=1 + max(layout.spec.subjects))

        # architecture for the person; the last epoch, as no picture is held out
        spec = spec_of([trials], layout.spec.signal)
        layout = replace(layout, spec=replace(spec, scale=layout.spec.scale))
        start = None if is_scratch else self.model
        changes: dict[str, Any] = {"selection": "last"}
        if self.train.last_batch == "drop":  # few pictures may fill no batch
            changes["last_batch"] = "even"
        if is_transfer:
            changes["start_pull"] = pull
        if arm == SUBJECT_LAYER:
            layout = replace(layout, subject_layer="linear")
            start = self._add_subject_layer(layout)
            frozen = ["backbone"]
            if self.model.fuser is not None:
                frozen.append("fuser")
            # Factor of the learning rate of a subject layer, which is small and starts
            # as the identity. Among 1, 10 and 30, it gains from 100 pictures of the
            # demo and loses little at 20.
            lr = 10 * self.train.list_stages(1)[-1].lr
            changes["stages"] = [Stage(epochs=self.train.epochs, lr=lr, freeze=frozen)]

        # train, and record the normaliser
        normalisers = {}
        if self.normalisation is not None and normaliser is not None:
            normalisers[person] = normaliser
        data = CellData(
            trials=[trials],
            targets=self.targets,
            held_out=np.zeros(1 + int(trials.stimulus.max()), np.bool_),
            fuser=self.fuser,
            history=TrainingHistory(normalisers=normalisers),
            seed=seed,
        )
        model = fit(
            layout,
            data,
            self.terms,
            self.train.model_copy(update=changes),
            start,
            derive_seed(seed, 0),
            launch=Launch(0, 1, self.model.device),
        )
        return PersonModel(model, normaliser, None, trials.subject)

    def _add_subject_layer(self, layout: Layout) -> Aligner:
        """Copy the model with a subject layer that changes nothing yet."""
        model = Aligner(layout, self.model.learned).to(self.model.device)
        other_weights = {
            name: value
            for name, value in self.model.state_dict().items()
            if "subject_layer" not in name
        }
        model.load_state_dict(other_weights, strict=False)
        model.losses = self.model.losses
        return model


def _expand_matrix(normaliser: Normaliser) -> Float32:
    """Return the matrix [C, C] of a normaliser, also if it has factors [C, 1]."""
    matrix = normaliser.matrix
    return np.diag(matrix[:, 0]) if matrix.shape[1] == 1 else matrix
