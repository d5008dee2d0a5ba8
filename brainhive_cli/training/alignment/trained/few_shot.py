"""Models for a new person: a model of other people, fitted to few recordings of one who
is new to it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Float32
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.signals.normalisations import Normaliser, pool_statistics
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.learned import TrainingHistory
from brainhive_cli.data.targets.model_input import spec_of
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.stages import Stage, Train
from brainhive_cli.training.alignment.terms import Term
from brainhive_cli.training.alignment.training.batches import CellData
from brainhive_cli.training.alignment.training.loop import fit, is_closed_form

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
"""Arms that learn from labelled pictures; those of alignments are called as their
parts.
"""
ARMS = (ZERO_SHOT, *TRAINED_ARMS)
FEWEST_PICTURES = 5
"""Pictures from which transfer trains; below, it is zero-shot."""
FIXED_PULLS = ((50, 0.3), (200, 0.1), (600, 0.03))
"""Strength of transfer (`train.start_pull`) up to so many pictures where no other
people choose it, and 0 beyond: about the best of the demo with eight people.
"""
LAYER_LR = 10
"""Factor of the learning rate of a subject layer alone, which is small and starts as
the identity: of 1, 10 and 30 the one that gains from 100 pictures of the demo without
losing much at 20.
"""
MAX_REFERENCES = 2000
"""Tokens of training subjects that alignments of tokens are fitted to, evenly
spaced.
"""
SIGNALS_AT_ONCE = 1024


def fixed_pull(pictures: int) -> float:
    """Choose the strength of transfer by the number of pictures alone."""
    return next((pull for most, pull in FIXED_PULLS if pictures <= most), 0.0)


@dataclass(frozen=True)
class PersonModel:
    """A model, with the alignments of a new person before and after it.

    Attributes:
        model: The model.
        normaliser: Of the person's signals; None where the model reads them as they
            are.
        align: Map of tokens [N, D]; None for none.
        subject: Number of the person, if the model has learned from that person; else
            None.
    """

    model: Aligner
    normaliser: Normaliser | None = None
    align: Callable[[Tensor], Tensor] | None = None
    subject: int | None = None

    @torch.inference_mode()
    def encode(self, signal: Float32 | Tensor) -> Tensor:
        """Encode a person's signals [N, C, T], not normalised, as the tokens [N, D]
        that retrieval compares.

        Raises:
            BrainhiveError: if the model cannot decode a person whom it was not trained
                on.
        """
        # voxels of another person are not those that a normalisation is of
        model, normaliser = self.model, self.normaliser
        if normaliser is not None and normaliser.matrix.shape[0] != signal.shape[1]:
            raise BrainhiveError(
                "the person has other channels or voxels", "leave zero-shot out of arms"
            )

        # tokens in blocks
        tokens = []
        for start in range(0, len(signal), SIGNALS_AT_ONCE):
            part = np.asarray(signal[start : start + SIGNALS_AT_ONCE], np.float32)
            read = torch.from_numpy(
                part if normaliser is None else normaliser(part)
            ).to(model.device)
            tokens.append(
                model.encode_signal(
                    read, model.make_subject_index(self.subject, len(read))
                ).float()
            )
        joined = torch.cat(tokens)
        return joined if self.align is None else self.align(joined)


@dataclass(frozen=True)
class SourceModel:
    """A model of other people, with all that goes on from it to a new person.

    Attributes:
        model: The model; it has not learned from the person.
        targets: Targets of the training stimuli, by the fuser's key.
        terms: The loss that trained it.
        train: How it was trained; epochs and learning rate were chosen for other
            people.
        trained: Training signals of the people whom it learned from, not normalised, at
            least one.
        fuser: A prior's fusion encoder, which stays frozen; None where the model
            learned its own.
    """

    model: Aligner
    targets: Targets
    terms: Sequence[Term]
    train: Train
    trained: Sequence[Trials]
    fuser: torch.nn.Module | None = None
    # by part and trials of a picture
    _statistics: dict[Any, Any] = field(default_factory=dict, init=False)

    @property
    def is_closed_form(self) -> bool:
        """Whether models are fitted in one pass, so that there are no epochs and no
        strength of transfer.
        """
        return is_closed_form(self.model.layout)

    @cached_property
    def normalisation(self) -> Any:
        """The part that normalised the signals of each person by their own; None where
        none did.
        """
        value = self.model.layout.spec.signal.get("normalise", "none")
        return None if value == "none" else parts.resolve("normalisations", value)

    @cached_property
    def zero_shot(self) -> PersonModel:
        """The model for a person of whom nothing was recorded: normalised by the mean
        of other people.
        """
        learned = self.model.learned
        # no normalisation, or the mean one that the model itself has
        if self.normalisation is None or learned.normaliser is not None:
            return PersonModel(self.model, learned.normaliser)

        # otherwise average those of its people, if all have the same channels
        normalisers = [*learned.normalisers.values()]
        if not normalisers or len({each.matrix.shape for each in normalisers}) > 1:
            raise BrainhiveError(
                "nothing of the person is known, and the model reads signals by "
                f"{self.normalisation.kind}",
                "leave zero-shot out of arms, or a model without signal.normalise",
            )
        mean, matrix = (
            np.mean([getattr(each, name) for each in normalisers], 0)
            for name in ("mean", "matrix")
        )
        return PersonModel(self.model, Normaliser(mean, matrix))

    def decodes_strangers(self, trials: Trials) -> bool:
        """Whether the model decodes a person whom nothing was learned of, tried on the
        first signal.
        """
        try:
            self.zero_shot.encode(trials.read(slice(1)))
        except BrainhiveError:
            return False
        return True

    def align_signals(self, config: Any, trials: Trials) -> PersonModel:
        """Align a person's signals without labels.

        Signals of a model that was trained on aligned ones are aligned as these were;
        else the person's are brought to the mean statistics of the people whom the
        model learned from.

        Args:
            config: Part of the shelf `normalisations`.
            trials: The person's recordings, not normalised; their stimuli have no part
                in it.

        Raises:
            BrainhiveError: if the model was trained on signals that were normalised in
                another way.
        """
        self.require_alignment(config, trials)
        # statistics of the person's average signals, whatever stimuli these were of
        normaliser = config.build(config.measure([trials.averages]))
        if self.normalisation is not None:
            return PersonModel(self.model, normaliser)

        # mean statistics of the people whom the model learned from, of as many trials
        # of each picture
        count = round(float(np.mean(trials.counts)))
        if (key := (config, count)) not in self._statistics:
            measured = []
            for person in self.trained:
                few = person.choose(
                    person.is_there & (np.arange(person.signal.shape[1]) < count)
                )
                measured.append(config.measure([few.averages]))
            self._statistics[key] = pool_statistics(measured)
        common = config.build(self._statistics[key])

        # from the person's statistics to these: M x → S^-1 (M (x - m)) + s
        matrix, back = (
            np.diag(each.matrix[:, 0]) if each.matrix.shape[1] == 1 else each.matrix
            for each in (normaliser, common)
        )
        mapping = np.linalg.solve(back.astype(np.float64), matrix.astype(np.float64))
        mean = normaliser.mean - np.linalg.solve(
            mapping, np.asarray(common.mean, np.float64)
        )
        aligned = Normaliser(mean.astype(np.float32), mapping.astype(np.float32))
        return PersonModel(self.model, aligned)

    def require_alignment(self, config: Any, trials: Trials) -> None:
        """Refuse an alignment of a person's signals that the model cannot read."""
        # the model's own normalisation, or else none
        if self.normalisation is not None and self.normalisation != config:
            raise BrainhiveError(
                f"the model was trained on signals that {self.normalisation.kind} "
                "normalised",
                f"alignments={self.normalisation.kind}, or a model without "
                "signal.normalise",
            )
        if self.normalisation is None and not trials.channels:
            raise BrainhiveError(
                "voxels of two people have nothing to be aligned by",
                "alignments of tokens",
            )

    @cached_property
    def _reference_tokens(self) -> Tensor:
        """Tokens [m, D] of training signals of the people whom the model learned
        from.
        """
        tokens = []
        for trials in self.trained:
            # evenly spaced: about MAX_REFERENCES tokens of all people together
            step = max(1, len(self.trained) * len(trials.stimulus) // MAX_REFERENCES)
            person = PersonModel(
                self.model, self._normaliser_of(trials), None, trials.subject
            )
            tokens.append(person.encode(trials.averages[::step]))
        return torch.cat(tokens)

    def _normaliser_of(self, trials: Trials) -> Normaliser | None:
        """Fit the model's normalisation to a person's recordings."""
        part = self.normalisation
        return None if part is None else part.build(part.measure([trials.averages]))

    def align_tokens(self, config: Any, trials: Trials) -> PersonModel:
        """Align the tokens of a person's signals: by pairs of signal and stimulus, or
        without labels.

        Args:
            config: Part of the shelf `alignments`.
            trials: The person's recordings, not normalised.
        """
        # pairs need the token of each trial's stimulus; without labels, other people's
        # tokens serve
        decoder = PersonModel(self.model, self._normaliser_of(trials))
        references = self._reference_tokens
        if config.is_paired:
            with torch.inference_mode():
                references = self.model.encode_image(
                    self.targets.gather(torch.from_numpy(trials.stimulus))
                ).float()
        return replace(
            decoder, align=config.fit(decoder.encode(trials.averages), references)
        )

    def require_arm(self, arm: str, trials: Trials) -> None:
        """Refuse an arm that the model does not have of a person's trials.

        Raises:
            BrainhiveError: naming it.
        """
        # a mixing of channels needs the channels of the model
        if arm == SUBJECT_LAYER and (self.is_closed_form or not trials.channels):
            kind = "in closed form" if self.is_closed_form else "of voxels"
            raise BrainhiveError(
                f"a model {kind} has no subject layer",
                "leave subject-layer out of arms",
            )
        if arm == FINE_TUNING and self.is_closed_form:
            raise BrainhiveError(
                "fine-tuning in closed form is transfer",
                "leave fine-tuning out of arms",
            )

    def train_arm(
        self,
        arm: str,
        trials: Trials,
        seed: int,
        pull: float = 0.0,
        alignment: Any = None,
    ) -> PersonModel:
        """Train a model on a person's recordings with their stimuli.

        Args:
            arm: One of `TRAINED_ARMS`.
            trials: The person's recordings, not normalised.
            seed: Decides all that is random.
            pull: Strength of transfer: `train.start_pull`.
            alignment: Of the shelf `normalisations`: what aligns signals before
                transfer, where the model was trained on signals that nothing
                normalised.

        Raises:
            BrainhiveError: if the model has no such arm, as closed form has no subject
                layer.
        """
        self.require_arm(arm, trials)
        # signals as the model reads them; a control moves their stimuli
        normaliser = self._normaliser_of(trials)
        is_transfer = arm in (TRANSFER, PERMUTED_TRANSFER)
        if is_transfer and alignment is not None and self.normalisation is None:
            normaliser = self.align_signals(alignment, trials).normaliser
        if (
            is_transfer
            and pull >= 1
            and not self.is_closed_form
            and self.decodes_strangers(trials)
        ):
            # else modules of the person are trained
            return PersonModel(self.model, normaliser)
        if normaliser is not None:
            trials = trials.normalise(normaliser)
        if arm in (PERMUTED_TRANSFER, PERMUTED_SCRATCH):
            random = np.random.default_rng((seed, len(trials.stimulus)))
            trials = trials.change(stimulus=random.permutation(trials.stimulus))

        # a number that nobody has whom the model learned from
        layout, person = self.model.layout, trials.subject
        if person in layout.spec.subjects:
            trials = trials.change(subject=1 + max(layout.spec.subjects))

        # an architecture for this one person; the last epoch is kept, as no picture is
        # held out
        layout = replace(layout, spec=spec_of([trials], layout.spec.signal))
        start = None if arm in (SCRATCH, PERMUTED_SCRATCH) else self.model
        changes: dict[str, Any] = {"selection": "last"}
        if self.train.last_batch == "drop":  # few pictures may fill no batch
            changes["last_batch"] = "even"
        if is_transfer:
            changes["start_pull"] = pull
        if arm == SUBJECT_LAYER:
            layout = replace(layout, subject_layer="linear")

            # the model, which is frozen, and a layer that changes nothing yet
            start = Aligner(layout, self.model.learned).to(self.model.device)
            state = {
                name: value
                for name, value in self.model.state_dict().items()
                if "subject_layer" not in name
            }
            start.load_state_dict({**start.state_dict(), **state})
            start.losses = self.model.losses
            frozen = ["backbone", *(["fuser"] if self.model.fuser is not None else [])]
            lr = LAYER_LR * self.train.list_stages(1)[-1].lr
            changes["stages"] = [Stage(epochs=self.train.epochs, lr=lr, freeze=frozen)]

        # one training, with the record of what normalised the person's recordings
        learned = TrainingHistory()
        if self.normalisation is not None and trials.normaliser is not None:
            learned = replace(learned, normalisers={person: trials.normaliser})
        data = CellData(
            trials=[trials],
            targets=self.targets,
            held_out=np.zeros(1 + int(trials.stimulus.max()), np.bool_),
            fuser=self.fuser,
            history=learned,
            seed=seed,
        )
        train = self.train.model_copy(update=changes)
        launch = Launch(0, 1, self.model.device)
        model = fit(
            layout, data, self.terms, train, start, derive_seed(seed, 0), launch=launch
        )
        return PersonModel(model, normaliser, None, trials.subject)
