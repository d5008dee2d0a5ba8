"""Any model of the library braindecode by its name, or its features, pretrained, at
their own rate.
"""

import inspect
import re
import warnings
from collections.abc import Sequence
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from brainhive_cli.core import documents, hub, weights
from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    MissingExtra,
    RecipeError,
    find_rows,
    first_line,
    guess,
    install_line,
)
from brainhive_cli.core.launch import find_failed_import
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder
from brainhive_cli.models.foreign_weights import refuse_absent
from brainhive_cli.models.signal_spec import (
    SignalSpec,
    build_resampling_matrix,
    count_output_samples,
)

PUBLISHED = "*.safetensors"
"""The weights that are fetched; braindecode also writes a pickle of the same."""
OVER_TIME = "temporal_embedding"
"""LaBraM's vectors by patch: weights for longer windows have more of them, and the
first are used.
"""
OF_THE_SIGNAL = re.compile(
    "n_(chans|times|outputs)|input_window_seconds|return_|.*drop"
)
"""Settings in a publisher's config.json that follow from signal and recipe, or change
no weight's meaning.
"""


class Config(BackboneConfig):
    """A braindecode model with as many outputs as the token is wide, or a linear map of
    its features.

    With `features` or `pretrained` weights, signals reach the model at its rate, in its
    channels and scale. `options` say its sizes; where weights state others, training
    refuses them with the options to set.
    """

    cites = ("schirrmeister2017",)
    reads_sensors = True
    any_channels: ClassVar[bool] = False
    """Whether the model takes any of `channels`: if it knows all the signal's, it gets
    these.
    """

    model: str = Field(description="braindecode's name of the model, as in EEGNeX.")
    rate_hz: float | None = Field(
        None,
        gt=0,
        description=(
            "Sampling rate, for the models that ask for it (`sfreq`) or for `features`."
        ),
    )
    options: dict[str, Any] = Field(
        {},
        description=(
            "Further arguments of the model, as in {drop_prob: 0.25}; braindecode's "
            "defaults."
        ),
    )
    features: bool = Field(
        False, description="Map the model's features, not its last layer, to the token."
    )
    pretrained: str | None = Field(
        None,
        description=(
            "hub:owner/name[@revision], or a folder that braindecode's save_pretrained "
            "wrote."
        ),
    )
    channels: tuple[str, ...] = Field(
        (),
        description=(
            "What the model knows, by name or interpolated, A-B for a difference; "
            "none: any."
        ),
    )
    scale: float | Literal["quantile"] = Field(
        1.0,
        description=(
            "Factor on the signal, or each channel over the 0.95 quantile of its "
            "magnitude."
        ),
    )
    clip: float | None = Field(
        None, gt=0, description="Largest magnitude of what the model gets."
    )
    patch_samples: PositiveInt = Field(
        1, description="Windows are cut to a multiple of so many samples."
    )

    def build(
        self,
        channels: int,
        samples: int,
        dim: int,
        subjects: int = 1,
        spec: SignalSpec | None = None,
    ) -> nn.Module:
        """Make the encoder for signals [B, C, T] and tokens [B, D], and try it on
        signals of zeros.

        Raises:
            MissingExtra: if braindecode is not installed.
            RecipeError: if it has no such model.
            BrainhiveError: if the model does not take the signals, or makes no tokens
                of them.
        """
        model_class = _class_of(self.model)
        if self.features or self.pretrained:
            return FeatureEncoder(self, model_class, spec, samples, dim)

        # the trial on zeros tells whether the last layer gives tokens [2, D]
        model, tokens = self.make_model(
            model_class, {}, n_chans=channels, n_times=samples, n_outputs=dim
        )
        if not isinstance(tokens, Tensor) or tokens.shape != (2, dim):
            shape = (
                list(tokens.shape)
                if isinstance(tokens, Tensor)
                else type(tokens).__name__
            )
            raise BrainhiveError(
                f"braindecode's {self.model} gives {shape} for two signals, not "
                f"tokens [2, {dim}]",
                "choose a model that makes one decision a window",
            )
        return BrainEncoder(model=model)

    def make_model(
        self, model_class: Any, arguments: dict[str, Any], **sizes: Any
    ) -> tuple[Any, Any]:
        """Make the model of braindecode, and what it makes of two signals of zeros.

        Raises:
            BrainhiveError: if it refuses the sizes or options.
        """
        try:
            # warnings are of channels and sizes, which are as wanted
            with warnings.catch_warnings(action="ignore"), torch.no_grad():
                model = model_class(**sizes, sfreq=self.rate_hz, **self.options).eval()
                outputs = model(
                    torch.zeros(2, sizes["n_chans"], sizes["n_times"]), **arguments
                )
                return model.train(), outputs
        except Exception as error:
            raise BrainhiveError(
                f"braindecode's {self.model} does not take signals of "
                f"{sizes['n_chans']} channels and {sizes['n_times']} samples: "
                f"{first_line(error)}",
                "give backbone.rate_hz or backbone.options if it asks for them, or "
                "choose another model",
            ) from error


TINY = Config(model="EEGNeX")
"""One of the smaller models."""


class FeatureEncoder(nn.Module):
    """Signals in a model's own channels, rate and scale; its features; a linear map of
    them to the token.

    Attributes:
        channel_map: [C', C] what the model's channels are of the signal's; None where
            they are these.
        resampling: [T', T] a polyphase filter as a fixed matrix; None where the rate is
            the model's.
        model: braindecode's, without its last layer.
        project: From all features of a window to the token.
    """

    channel_map: Tensor | None
    resampling: Tensor | None

    def __init__(
        self,
        config: Config,
        model_class: Any,
        spec: SignalSpec | None,
        samples: int,
        dim: int,
    ) -> None:
        super().__init__()
        if spec is None or not spec.names or not spec.rate_hz:
            raise BrainhiveError(
                f"braindecode's {config.model} reads sensors at a known rate, not "
                "voxels",
                "another backbone",
            )

        # channels and rate of the model: chosen or interpolated, and resampled
        self.config = config
        names, channel_map = choose_channels(spec, config.channels, config.any_channels)
        rate_hz = config.rate_hz or spec.rate_hz
        resampling = (
            None
            if rate_hz == spec.rate_hz
            else build_resampling_matrix(samples, spec.rate_hz, rate_hz)
        )
        self.register_buffer("channel_map", channel_map)
        self.register_buffer("resampling", resampling)
        resampled = samples if resampling is None else len(resampling)
        patch = config.patch_samples
        # the window as a multiple of the patch
        self.samples = count_output_samples(resampled, (patch, patch)) * patch

        # some models choose their vectors by chs_info, others by names at each call
        sizes: dict[str, Any] = {
            "n_chans": len(names),
            "n_times": self.samples,
            "n_outputs": 1,
        }
        if config.channels:
            sizes["chs_info"] = [{"ch_name": name, "kind": "eeg"} for name in names]
        self.arguments: dict[str, Any] = {"return_features": True}
        if "ch_names" in inspect.signature(model_class.forward).parameters:
            self.arguments["ch_names"] = names
        self.model, outputs = config.make_model(model_class, self.arguments, **sizes)
        # features replace decisions; the trial tells their size
        self.model.final_layer = nn.Identity()
        self.project = nn.Linear(outputs["features"][0].numel(), dim)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        # [B, ..., E]
        features: Tensor = self.model(self.prepare(signal), **self.arguments)[
            "features"
        ]
        return self.project(features.flatten(1))

    def prepare(self, signal: Tensor) -> Tensor:
        """Bring signals [B, C, T] to the model's channels, rate, length and scale, [B,
        C', T'].
        """
        # spectra are not computed in bf16
        with torch.autocast(signal.device.type, enabled=False):
            signal = signal.float()
            if self.channel_map is not None:
                signal = self.channel_map @ signal
            if self.resampling is not None:
                signal = signal @ self.resampling.mT
            signal = signal[..., : self.samples]  # a multiple of the patch
            if self.config.scale == "quantile":  # as BIOT's code does
                signal = signal / (signal.abs().quantile(0.95, -1, keepdim=True) + 1e-8)
            else:
                signal = signal * self.config.scale
            limit = self.config.clip or torch.inf
            return signal.clamp(-limit, limit)

    def load_pretrained(self) -> None:
        """Take over the weights of `pretrained`, but for the last layer; no code of the
        repository is run.

        Raises:
            MissingData: if they are not there, damaged or incomplete.
            BrainhiveError: if they are of a model of other sizes or settings.
        """
        reference = self.config.pretrained
        if reference is None:
            return

        # find the published weights
        folder = hub.folder(reference, allow=["config.json", PUBLISHED])
        file = next(
            (
                file
                for pattern in hub.WEIGHT_PATTERNS
                for file in sorted(folder.glob(pattern))
            ),
            None,
        )
        if file is None:
            raise MissingData(
                f"{reference} has no {PUBLISHED}",
                "give a folder that save_pretrained wrote",
            )

        # refuse weights of a model with other settings: some, as numbers of heads,
        # change no shape
        if (folder / "config.json").is_file():
            published: dict[str, Any] = documents.read(
                folder / "config.json", hint=documents.DOWNLOAD_HINT
            )
            built = self.model.get_config()
            for key, value in published.items():
                is_plain = isinstance(value, int | float) and not OF_THE_SIGNAL.match(
                    key
                )
                if is_plain and built.get(key, value) != value:
                    raise BrainhiveError(
                        f"{reference} is of a {self.config.model} with {key} "
                        f"{value}, not {built[key]}",
                        f"backbone.rate_hz={value}"
                        if key == "sfreq"
                        else f"backbone.options.{key}={value}",
                    )

        # fill all but the last layer, under today's names and for the window's length
        needed = self.model.state_dict()
        renamed = self.model.mapping or {}
        state = {
            renamed.get(name, name): value for name, value in weights.read(file).items()
        }
        if OVER_TIME in needed and OVER_TIME in state:
            state[OVER_TIME] = state[OVER_TIME][:, : needed[OVER_TIME].shape[1]]
        refuse_absent(needed.keys() - state.keys(), len(needed), reference)
        weights.fill(self.model, {name: state[name] for name in needed}, reference)


def choose_channels(
    spec: SignalSpec, known: Sequence[str], takes_any: bool
) -> tuple[list[str], Tensor | None]:
    """Choose which channels a model gets, and what each is of the signal's.

    Args:
        spec: The signal's sensors.
        known: Names that the model knows, A-B for differences; none: it takes any.
        takes_any: Whether it takes any of these, in any order.

    Returns:
        Their names, and a matrix [C', C]; None where they are the signal's own.

    Raises:
        BrainhiveError: if channels are to be interpolated between sensors of unknown
            positions, or of MEG.
    """
    # known channels that the signal has by name
    rows = dict(zip(known, find_rows(known, spec.names, "the signal"), strict=True))
    known_of = {row: name for name, row in rows.items() if row is not None}
    if not known or (takes_any and len(known_of) == len(spec.names)):
        return [known_of.get(row, name) for row, name in enumerate(spec.names)], None

    # electrodes of each channel: itself, or the two that it is the difference of
    electrodes = [
        [name] if rows[name] is not None else name.split("-") for name in known
    ]
    parts = list(dict.fromkeys(chain(*electrodes)))
    rows = dict(zip(parts, find_rows(parts, spec.names, "the signal"), strict=True))
    units = np.eye(len(spec.names))
    factors = {name: units[row] for name, row in rows.items() if row is not None}
    if absent := [name for name in parts if name not in factors]:
        factors |= dict(zip(absent, interpolate(spec, absent), strict=True))
    # A-B is the difference of two electrodes
    channels = [
        factors[first] - sum(factors[name] for name in rest)
        for first, *rest in electrodes
    ]
    return [*known], torch.tensor(np.stack(channels), dtype=torch.float32)


def interpolate(spec: SignalSpec, electrodes: Sequence[str]) -> Float64:
    """Return what electrodes of the 10-05 system are of the signal's sensors, [E, C],
    by spherical splines.

    Source: Perrin et al. (1989), regularised as mne interpolates bad channels.
    `Raw.interpolate_to`, which braindecode calls, is not: of posterior sensors it makes
    frontal channels of twice the noise.
    """
    import mne

    # positions of all sensors and electrodes
    # the montage's new name
    with mne.use_log_level("ERROR"), warnings.catch_warnings(action="ignore"):
        montage = mne.channels.transform_to_head(
            mne.channels.make_standard_montage("standard_1005")
        )
        standard = {
            name.lower(): position
            for name, position in montage.get_positions()["ch_pos"].items()
        }
        sensors = spec.positions or [standard.get(name.lower()) for name in spec.names]
        positions = dict(zip(spec.names, sensors, strict=True))
        positions |= {name: standard.get(name.lower()) for name in electrodes}
        unknown = [
            name
            for name, position in positions.items()
            if position is None or (spec.modality == "MEG" and name in spec.names)
        ]
        if unknown:
            raise BrainhiveError(
                f"{', '.join(electrodes[:3])} … are no channels of the signal, and "
                "cannot be interpolated: no position on the scalp is known of "
                f"{', '.join(unknown[:3])}",
                "prepare EEG with positions of its electrodes, or choose "
                "signal.channels of the 10-05 system",
            )

        # interpolate one unit signal a sensor: the rows are the weights
        info = mne.create_info([*positions], 1.0, "eeg")
        info.set_montage(mne.channels.make_dig_montage(positions, coord_frame="head"))
        info["bads"] = [*electrodes]
        unit_signals = mne.io.RawArray(np.eye(len(positions), len(spec.names)), info)
        return np.asarray(unit_signals.interpolate_bads().get_data(picks=[*electrodes]))


def _class_of(name: str) -> Any:
    try:
        # mne's to braindecode, of names of montages
        with warnings.catch_warnings(action="ignore"):
            from braindecode import models
            from braindecode.models.util import models_dict
    except (ImportError, OSError, RuntimeError) as error:
        # torchaudio refuses other PyTorchs than its own
        raise find_failed_import(error) or MissingExtra(
            f"braindecode does not import: {first_line(error)}",
            install_line("braindecode"),
        ) from error
    if name not in models_dict:
        raise RecipeError(
            f"braindecode has no model {name!r}",
            f"{guess(name, models_dict)}see braindecode.models",
        )
    return getattr(models, name)
