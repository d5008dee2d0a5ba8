"""Trained brain model, which encodes and decodes signals and ranks pictures."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainhive_cli.core.base import Int64, derive_seed
from brainhive_cli.core.files import documents
from brainhive_cli.core.results import draw_card
from brainhive_cli.data.signals import Normaliser, Signal, Trials
from brainhive_cli.data.stores import TrainingHistory
from brainhive_cli.data.targets import match_keys
from brainhive_cli.models import Decoded
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment import Cell, Layout, is_checkpoint, model_files

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from brainhive_cli.data.targets import Targets
    from brainhive_cli.measurement import Gallery, Scores
    from brainhive_cli.training.alignment import model as aligners

SIGNALS_PER_BLOCK = 4000
"""Number of signals that are encoded together. It is a multiple of 20, the batch size
with which the weights of NEURONS were published.
"""
PICTURES_PER_BLOCK = 8192
"""Number of pictures that are encoded together."""


@dataclass(eq=False)
class TrainedModel:
    """Trained brain model, whose weights are loaded at their first use.

    Attributes:
        path: Folder or checkpoint of the model.
        cell: Training of the model, with the subjects of the test.
        encoders: Encoders whose embeddings the model predicts.
        signal: Selection of the signals that the model reads.
        run_name: Name of its run or folder on a command line.
        tests_new_subjects: True if the tested subjects are other people than in the
            training, even with equal numbers.
        device: Device of the model.
        head: Head that retrieval compares, or None for the model's own choice.
    """

    path: Path
    cell: Cell
    encoders: Sequence[EncoderConfig]
    signal: Signal
    run_name: str = ""
    tests_new_subjects: bool = False
    device: torch.device | str = "cpu"
    head: str | None = None

    def __repr__(self) -> str:
        """Return the names of the run and the cell, and the subjects."""
        return f"<TrainedModel {self.cell.name} of {self.run_name}>"

    def _repr_html_(self) -> str:
        """Return a card for a notebook: subjects, seed, encoders and device."""
        cell = self.cell
        rows = [
            ["trained on subjects", ", ".join(map(str, cell.trained_on))],
            ["tested on subjects", ", ".join(map(str, cell.tested_on))],
            ["seed", str(cell.seed)],
            ["predicts", ", ".join(encoder.name for encoder in self.encoders)],
            ["device", str(self.device)],
        ]
        return draw_card(f"model · {cell.name}", (), ("", ""), rows)

    @cached_property
    def module(self) -> aligners.Aligner:
        """Network on the device, in evaluation mode.

        Raises:
            RecipeError: if it lacks the head.
        """
        from brainhive_cli.training.alignment import model as aligners

        layout = self.layout
        module = aligners.load(self.path).to(self.device)
        module.layout = layout
        return module

    @cached_property
    def layout(self) -> Layout:
        """Architecture, in which retrieval compares `head` if that is given.

        Raises:
            RecipeError: if the model lacks the head.
        """
        layout, _ = self._description
        if self.head is not None:
            layout = replace(layout, retrieval_heads=(self.head,))
            layout.check()
        return layout

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """Key of each encoder's embedding in the model, by the encoder's name.

        Folders of BrainHiVE have their own keys of encoders.
        """
        layout = self.layout
        names = {config.name for config in self.encoders}
        if names <= layout.encoders.keys():
            return layout.encoders
        return match_keys(self.encoders, layout.dims, f"the model {self.path}")

    @property
    def token_width(self) -> int:
        """Width D of the vectors that retrieval compares."""
        heads = self.layout.heads
        return sum(heads[name].width for name in self.layout.compared_heads)

    @property
    def history(self) -> TrainingHistory:
        """Training history, which includes the models that it started from."""
        return self._description[1]

    @cached_property
    def _description(self) -> tuple[Layout, TrainingHistory]:
        """Architecture and training history, as the folder records them."""
        return describe_model_files(self.path)

    def find_normaliser(self, subject: int) -> Normaliser | None:
        """Return the normaliser that the model stores for a subject, or None."""
        if self.tests_new_subjects:
            return self.history.normaliser
        return self.history.normaliser_of(subject)

    def make_subject_index(self, subject: int, count: int) -> Tensor | None:
        """Return the subject index [count] of signals, or None for a new subject."""
        training_subject = None if self.tests_new_subjects else subject
        return self.module.make_subject_index(training_subject, count)

    def encode(self, trials: Trials, signals: Tensor | None = None) -> Tensor:
        """Encode trials of a subject as the vectors [N, D] that retrieval compares.

        Args:
            trials: Trials as the model reads them.
            signals: Signals [N, C, T] that replace the averages of the trials.
        """
        import torch

        module = self.module
        if signals is None:
            signals = torch.from_numpy(trials.averages)
        tokens = []
        with torch.inference_mode():
            for block in signals.split(SIGNALS_PER_BLOCK):
                index = self.make_subject_index(trials.subject, len(block))
                encoded = module.encode_signal(block.to(module.device), index)
                tokens.append(encoded.float())
        return torch.cat(tokens)

    def encode_pictures(
        self, targets: Targets, rows: Int64, without: str = ""
    ) -> Tensor:
        """Encode pictures as the vectors [M, D] that retrieval compares.

        Args:
            targets: Embeddings of a split, by the model's keys.
            rows: Rows [M] of the pictures.
            without: Key of an embedding that is replaced by its mean over these
                pictures, to measure its contribution, or "".
        """
        import torch

        from brainhive_cli.data.targets import Targets

        mean_embedding = None
        if without:
            source = Targets({without: targets.sources[without]})
            mean_embedding = source.gather(rows)[without].mean(0)

        # encode the pictures in blocks, whose number is rounded up
        n_blocks = max(1, -(-len(rows) // PICTURES_PER_BLOCK))
        tokens = []
        for block in np.array_split(rows, n_blocks):
            with torch.inference_mode():
                embeddings = targets.gather(block)
                if mean_embedding is not None:
                    embedding = embeddings[without]
                    embeddings[without] = mean_embedding.expand_as(embedding)
                tokens.append(self.module.encode_image(embeddings).float())
        return torch.cat(tokens)

    def decode(self, trials: Trials, image_ids: Sequence[str]) -> Decoded:
        """Decode the heads [N, *shape] of the averages of trials, sampling if needed.

        Args:
            trials: Trials as the model reads them.
            image_ids: Image id [N] of each signal. The seed of a signal is derived from
                it and the cell, so the same signal always gives the same samples.
        """
        import torch

        seeds = [
            derive_seed(self.cell.seed, zlib.crc32(image_id.encode()))
            for image_id in image_ids
        ]
        blocks = []
        for start in range(0, len(seeds), SIGNALS_PER_BLOCK):
            rows = slice(start, start + SIGNALS_PER_BLOCK)
            signal = torch.from_numpy(trials.read(rows)).to(self.module.device)
            index = self.make_subject_index(trials.subject, len(signal))
            blocks.append(self.module.decode(signal, index, seeds[rows]).float())
        return Decoded.join(blocks)

    def predict(self, subject: int, signal: Tensor) -> dict[str, Tensor]:
        """Predict the heads [N, *shape] of signals [N, C, T], without sampling."""
        import torch

        index = self.make_subject_index(subject, len(signal))
        with torch.inference_mode():
            heads = self.module.predict(signal.to(self.module.device), index)
            return {head: values.float() for head, values in heads.items()}

    def rank(self, trials: Trials, gallery: Gallery, images: Tensor) -> Scores:
        """Rank the pictures of a gallery for each trial.

        Args:
            trials: Trials of the gallery's first split, as the model reads them.
            gallery: Candidates.
            images: Vectors [M, D] of the candidates.

        Returns:
            Scores with the rank of the shown picture of each trial.
        """
        from brainhive_cli.measurement import Scores, rank_gallery

        # position of each shown picture in the gallery, whose rows ascend
        shown_indices = np.searchsorted(gallery.test_rows, trials.stimulus)
        names = [gallery.image_ids[index] for index in shown_indices]
        concepts = [gallery.concepts[index] for index in shown_indices]
        subject = trials.subject
        items = {subject: Scores(names, names, concepts)}
        tokens = {subject: self.encode(trials)}
        return rank_gallery(gallery, images, tokens, items)[subject]


def describe_model_files(path: Path) -> tuple[Layout, TrainingHistory]:
    """Read the architecture and the training history of a model folder or checkpoint.

    Raises:
        BrainhiveError: if a file is damaged, or has another format.
    """
    if not is_checkpoint(path):
        fields, history = model_files.read_config(path)
        if "spec" in fields:
            file = str(path / "config.json")
            layout = documents.check(fields, file, Layout, model_files.DAMAGE_HINT)
            return layout, history

    # only the weights of other projects tell the architecture
    from brainhive_cli.training.alignment import model as aligners

    model = aligners.load(path)
    return model.layout, model.learned
