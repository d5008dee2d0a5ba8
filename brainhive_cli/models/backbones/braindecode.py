"""Any model of the library braindecode, by its name, its outputs taken as the token."""

import difflib
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import environment, parts
from brainhive_cli.core.errors import BrainhiveError, MissingExtra, RecipeError, first_line
from brainhive_cli.models import signal_shape


class Config(parts.Config):
    """A braindecode model with as many outputs as the token is wide, and braindecode's own defaults."""

    model: str = Field(description="braindecode's name of the model, as in EEGNeX.")
    rate_hz: float | None = Field(
        None, gt=0, description="Sampling rate, for the models that ask for it (their `sfreq`)."
    )
    options: dict[str, Any] = Field(
        {}, description="Further arguments of the model, as in {drop_prob: 0.25}; braindecode's defaults."
    )

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> "Braindecode":
        """Make the encoder for signals [B, C, T] and tokens [B, D].

        Raises:
            MissingExtra: if braindecode is not installed.
            RecipeError: if it has no such model.
            BrainhiveError: if the model does not take the signals, or makes no tokens of them.
        """
        return Braindecode(channels, samples, dim, self.model, self.rate_hz, self.options)


TINY = Config(model="EEGNeX")
"""One of the smaller models."""


class Braindecode(nn.Module):
    """A model of braindecode, tried once on a signal of zeros."""

    def __init__(
        self, channels: int, samples: int, dim: int, name: str, rate_hz: float | None, options: dict[str, Any]
    ) -> None:
        super().__init__()
        self.size = (channels, samples)
        model = _class_of(name)
        try:
            self.model = model(n_chans=channels, n_times=samples, n_outputs=dim, sfreq=rate_hz, **options)
            with torch.no_grad():
                found = self.model.eval()(torch.zeros(2, channels, samples))
        except Exception as error:
            raise BrainhiveError(
                f"braindecode's {name} does not take signals of {channels} channels and {samples} samples: "
                f"{first_line(error)}",
                "give backbone.rate_hz or backbone.options if it asks for them, or choose another model",
            ) from error
        if not isinstance(found, Tensor) or found.shape != (2, dim):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise BrainhiveError(
                f"braindecode's {name} gives {shape} for two signals, not tokens [2, {dim}]",
                "choose a model that makes one decision a window",
            )
        self.model.train()

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        signal_shape.check(signal, *self.size)
        return self.model(signal)


def _class_of(name: str) -> Any:
    try:
        from braindecode import models
        from braindecode.models.util import models_dict
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"braindecode is not installed: {error}", "pip install 'brainhive[braindecode]'"
        ) from error
    except (ImportError, OSError, RuntimeError) as error:  # torchaudio refuses other PyTorchs than its own
        raise environment.failed_import(error) or MissingExtra(
            f"braindecode does not import: {first_line(error)}", "pip install 'brainhive[braindecode]'"
        ) from error
    if name not in models_dict:
        near = difflib.get_close_matches(name, models_dict, n=3)
        raise RecipeError(
            f"braindecode has no model {name!r}", f"near: {', '.join(near) or 'none'}; see braindecode.models"
        )
    return getattr(models, name)
