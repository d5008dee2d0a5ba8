"""Brainhive in Python, for notebooks and for modules of your own.

    from brainhive_cli import api

    trained, result = api.fit(X, shown, "PICTURES", **axes)
    print(result)                       # the finding, with interval and chance level
    print(api.decode(trained, X, pictures=shown, **axes))  # ranks of seen pictures

`help(api.fit)` shows the arguments of a function, with an example.

From arrays to a result
  fit           Store trials, embed their pictures, train a decoder, and evaluate it.
  store_trials  Write trials from memory to the signal store of a subject.
  decode        Compare each signal of a recording with all pictures of a split.

Commands and their runs
  run           Run a command as on the command line.
  open_run      Open a finished run.
  compare       Compare runs as the command `compare` does, without writing files.

Models and data
  open_model    Load a trained brain model as a PyTorch module.
  open_signals  Open the prepared signals of a subject.
  open_store    Open the embeddings (vectors of pictures) that `embed` has stored.
  model_input   Convert a recording to the input of a model.

Results
  Run            metrics(), recipe(), artifacts(), page(), cells, predictions(), ...
  CommandResult  folder, tables, metrics, files
  Comparison     differences
  Predictions    image_ids, heads, texts, caveats
  Ranks          ranks, similarity, image_ids, gallery, index, caveats, rows()
`print` writes their finding, and a notebook shows them as a card.

For parts of your own (docs/python.md)
  data     Dataset, StimulusSet, Names, Preparation, MergedPreparation, Trials,
           Sensors, Voxels, Grid, Surface, Paths
  models   Config, BackboneConfig, EncoderConfig, Encoder, FuserConfig, LossConfig,
           LossContext, SignalSpec, Normaliser
  pictures Conditioning, Decoded, Description, Sampling, MetricPart

Errors are `BrainhiveError`, with a `message` and a `hint`. Relative paths start at the
folder `BRAINHIVE_HOME`, or at the working directory if that variable is not set.
"""

import importlib
from typing import TYPE_CHECKING, Any

from brainhive_cli.api.commands import run as run
from brainhive_cli.api.comparison import Comparison as Comparison, compare as compare
from brainhive_cli.api.decoding import Ranks as Ranks, decode as decode
from brainhive_cli.api.from_arrays import fit as fit
from brainhive_cli.api.runs import (
    Predictions as Predictions,
    Run as Run,
    open_model as open_model,
    open_run as open_run,
)
from brainhive_cli.api.stores import (
    open_signals as open_signals,
    open_store as open_store,
    store_trials as store_trials,
)

if TYPE_CHECKING:
    from brainhive_cli.api.results import CommandResult
    from brainhive_cli.core.base import BrainhiveError
    from brainhive_cli.core.recipes import Config, Paths
    from brainhive_cli.data.datasets import Dataset
    from brainhive_cli.data.files import Names
    from brainhive_cli.data.media import StimulusSet
    from brainhive_cli.data.recordings import MergedPreparation, Preparation
    from brainhive_cli.data.signals import (
        Grid,
        Normaliser,
        Sensors,
        Surface,
        Trials,
        Voxels,
    )
    from brainhive_cli.data.targets.model_input import model_input
    from brainhive_cli.measurement.metrics import MetricPart
    from brainhive_cli.models import (
        Conditioning,
        Decoded,
        FuserConfig,
        LossConfig,
        LossContext,
        SignalSpec,
    )
    from brainhive_cli.models.backbones import BackboneConfig
    from brainhive_cli.models.encoders import Encoder, EncoderConfig
    from brainhive_cli.models.generators import Sampling
    from brainhive_cli.models.priors import Description

# `__all__` is missing on purpose: `help(api)` would print every class that it lists
MODULE_OF_NAME = {
    "BackboneConfig": "models.backbones",
    "BrainhiveError": "core.base.errors",
    "CommandResult": "api.results",
    "Conditioning": "models.heads",
    "Config": "core.recipes.parts",
    "Dataset": "data.datasets",
    "Decoded": "models.heads",
    "Description": "models.priors",
    "Encoder": "models.encoders",
    "EncoderConfig": "models.encoders",
    "FuserConfig": "models.fusers",
    "Grid": "data.signals.spaces",
    "LossConfig": "models.losses",
    "LossContext": "models.losses",
    "MergedPreparation": "data.recordings.contract",
    "MetricPart": "measurement.metrics",
    "Names": "data.files.ids",
    "Normaliser": "data.signals.normalisations",
    "Paths": "core.recipes.recipe",
    "Preparation": "data.recordings.contract",
    "Trials": "data.signals.trials",
    "Sampling": "models.generators",
    "Sensors": "data.signals.spaces",
    "SignalSpec": "models.signal_spec",
    "StimulusSet": "data.datasets",
    "Surface": "data.signals.spaces",
    "Voxels": "data.signals.spaces",
    "model_input": "data.targets.model_input",
}
"""Module, below `brainhive_cli`, of each name that a user's own module may import."""
NAMES = (
    "Comparison",
    "Predictions",
    "Ranks",
    "Run",
    "compare",
    "decode",
    "fit",
    "open_model",
    "open_run",
    "open_signals",
    "open_store",
    "run",
    "store_trials",
)
"""Public names that the modules of this package define."""


def __getattr__(name: str) -> Any:
    if name not in MODULE_OF_NAME:
        from brainhive_cli.core.base import guess

        question = guess(name, __dir__())
        message = f"module {__name__!r} has no attribute {name!r}. {question}"
        raise AttributeError(message.strip(), name=name)
    # import late, so that `import brainhive_cli.api` is fast
    module = importlib.import_module(f"brainhive_cli.{MODULE_OF_NAME[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*NAMES, *MODULE_OF_NAME])
