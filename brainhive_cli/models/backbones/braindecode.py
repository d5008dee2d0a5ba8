"""Any model of the library braindecode, by its name, its outputs taken as the token."""

import difflib
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingExtra, RecipeError, first_line
from brainhive_cli.core.launch import failed_import
from brainhive_cli.models.backbones._layers import BrainEncoder


class Config(parts.Config):
    """A braindecode model with as many outputs as the token is wide, and braindecode's own defaults."""

    model: str = Field(description="braindecode's name of the model, as in EEGNeX.")
    rate_hz: float | None = Field(
        None, gt=0, description="Sampling rate, for the models that ask for it (their `sfreq`)."
    )
    options: dict[str, Any] = Field(
        {}, description="Further arguments of the model, as in {drop_prob: 0.25}; braindecode's defaults."
    )

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] and tokens [B, D], and try it on signals of zeros.

        Raises:
            MissingExtra: if braindecode is not installed.
            RecipeError: if it has no such model.
            BrainhiveError: if the model does not take the signals, or makes no tokens of them.
        """
        model_class = _class_of(self.model)
        sizes = {"n_chans": channels, "n_times": samples, "n_outputs": dim, "sfreq": self.rate_hz}
        try:
            model = model_class(**sizes, **self.options)
            with torch.no_grad():
                tokens = model.eval()(torch.zeros(2, channels, samples))
        except Exception as error:
            raise BrainhiveError(
                f"braindecode's {self.model} does not take signals of {channels} channels and {samples} "
                f"samples: {first_line(error)}",
                "give backbone.rate_hz or backbone.options if it asks for them, or choose another model",
            ) from error
        if not isinstance(tokens, Tensor) or tokens.shape != (2, dim):
            shape = list(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
            raise BrainhiveError(
                f"braindecode's {self.model} gives {shape} for two signals, not tokens [2, {dim}]",
                "choose a model that makes one decision a window",
            )
        return BrainEncoder(model=model.train())


TINY = Config(model="EEGNeX")
"""One of the smaller models."""


def _class_of(name: str) -> Any:
    try:
        from braindecode import models
        from braindecode.models.util import models_dict
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"braindecode is not installed: {error}", "pip install 'brainhive[braindecode]'"
        ) from error
    except (ImportError, OSError, RuntimeError) as error:  # torchaudio refuses other PyTorchs than its own
        raise failed_import(error) or MissingExtra(
            f"braindecode does not import: {first_line(error)}", "pip install 'brainhive[braindecode]'"
        ) from error
    if name not in models_dict:
        near = difflib.get_close_matches(name, models_dict, n=3)
        raise RecipeError(
            f"braindecode has no model {name!r}", f"near: {', '.join(near) or 'none'}; see braindecode.models"
        )
    return getattr(models, name)
