"""A brain model that writes tokens one by one: taught with the true previous one, it decodes from its own."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.heads import Heads
from brainhive_cli.models.signal_spec import SignalSpec


class Config(BackboneConfig):
    """How targets are scaled for training, as MindEye1's prior does."""

    takes_spec: ClassVar[bool] = True

    scale: float = Field(2.0, description="factor of the targets while the model is trained")

    def build(self, spec: SignalSpec, heads: Heads) -> "Autoregressive":
        """Make the model; its head is `tokens` [S, D]."""
        return Autoregressive(self.scale, spec, heads)


TINY = Config()


class Autoregressive(nn.Module):
    """A linear map of the signal for each subject, and one of the previous token."""

    def __init__(self, scale: float, spec: SignalSpec, heads: Heads) -> None:
        super().__init__()
        self.subjects, self.scale = spec.subjects, scale
        self.count, width = heads["tokens"].shape
        self.of_signal = nn.ModuleDict(
            {
                str(subject): nn.Linear(voxels, heads["tokens"].width)
                for subject, voxels in zip(spec.subjects, spec.widths, strict=True)
            }
        )
        self.of_previous = nn.Linear(width, width, bias=False)

    def forward(self, signal: Tensor, subject_index: Tensor) -> dict[str, Tensor]:
        """Write the tokens [B, S, D], each from the one written before; never in training."""
        assert not self.training
        found: list[Tensor] = []
        for own in self._from_signal(signal, subject_index).unbind(1):
            found.append(own + self.of_previous(found[-1]) if found else own)
        return {"tokens": torch.stack(found, 1) / self.scale}

    def learn(
        self, signal: Tensor, subject_index: Tensor, targets: Mapping[str, Tensor], context: Any
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict each token from the true one before it, scaled; and scale the targets."""
        scaled = targets["tokens"] * self.scale
        previous = torch.cat([torch.zeros_like(scaled[:, :1]), scaled[:, :-1]], 1)
        predicted = self._from_signal(signal, subject_index) + self.of_previous(previous)
        return {"tokens": predicted}, {"tokens": scaled}

    def _from_signal(self, signal: Tensor, subject_index: Tensor) -> Tensor:
        subject = self.subjects[int(subject_index[0])]
        return self.of_signal[str(subject)](signal[..., 0]).unflatten(1, (self.count, -1))
