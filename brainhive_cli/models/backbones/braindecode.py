"""Models of braindecode by name, also pretrained with their own channels and rate."""

import inspect
import re
import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from brainhive_cli.core.base import (
    BrainhiveError,
    Float64,
    MissingData,
    MissingExtra,
    RecipeError,
    find_rows,
    first_line,
    guess,
    install_line,
)
from brainhive_cli.core.files import documents, hub
from brainhive_cli.core.runs import find_failed_import, weights
from brainhive_cli.models import (
    SignalSpec,
    build_resampling_matrix,
    count_output_samples,
    read_template,
    refuse_absent,
)
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder


class Config(BackboneConfig):
    """Settings of a braindecode model.

    The model's outputs are the token [B, D], or with `features` or `pretrained` its
    features are mapped to the token. Signals then reach the model in its channels, rate
    and scale.
    """

    cites = ("schirrmeister2017",)

    reads_sensors = True
    any_channels: ClassVar[bool] = False
    """If True, the model takes any subset of `channels`, so signals whose sensors are
    all in `channels` are not interpolated.
    """

    model: str = Field(description="Name of the model in braindecode, such as EEGNeX.")
    rate_hz: float | None = Field(
        None,
        gt=0,
        description=(
            "Sampling rate, for models that take it (`sfreq`). Signals of features are "
            "resampled to it."
        ),
    )
    options: dict[str, Any] = Field(
        {},
        description=(
            "Further arguments of the model, such as {drop_prob: 0.25}. Default: "
            "braindecode's."
        ),
    )
    features: bool = Field(
        False,
        description="If true, map the features before the last layer to the token.",
    )
    pretrained: str | None = Field(
        None,
        description=(
            "Weights: hub:owner/name[@revision], or a folder that braindecode's "
            "save_pretrained wrote. Default: random."
        ),
    )
    channels: tuple[str, ...] = Field(
        (),
        description=(
            "Channels of the model, with A-B for differences. Channels that the signal "
            "lacks are interpolated. Default: the signal's."
        ),
    )
    scale: float | Literal["quantile"] = Field(
        1.0,
        description=(
            "Factor on the signal. quantile divides each channel by the 0.95 quantile "
            "of its magnitude."
        ),
    )
    clip: float | None = Field(
        None,
        gt=0,
        description="Largest magnitude of the scaled signal. Default: no limit.",
    )
    patch_samples: PositiveInt = Field(
        1, description="Windows are cut to a multiple of this number of samples."
    )

    @property
    def input_unit(self) -> str:
        """Unit of the signals that `scale` takes, or "" for a spread of 1."""
        return "" if self.scale in (1.0, "quantile") else "µV"

    def build(
        self,
        channels: int,
        samples: int,
        dim: int,
        subjects: int = 1,
        spec: SignalSpec | None = None,
    ) -> nn.Module:
        """Make the encoder for signals [B, C, T] and tokens [B, D].

        Raises:
            MissingExtra: if braindecode is not installed.
            RecipeError: if braindecode has no such model.
            BrainhiveError: if the model does not take the signals, or returns no
                tokens.
        """
        model_class = _import_model(self.model)
        if self.features or self.pretrained:
            return FeatureEncoder(self, model_class, spec, samples, dim)

        model, outputs = self.make_model(
            model_class, {}, n_chans=channels, n_times=samples, n_outputs=dim
        )
        is_tensor = isinstance(outputs, Tensor)
        if not is_tensor or outputs.shape != (2, dim):
            shape = list(outputs.shape) if is_tensor else type(outputs).__name__
            raise BrainhiveError(
                f"braindecode's {self.model} gives {shape} for two signals, not "
                f"tokens [2, {dim}]",
                "choose a model that makes one decision a window",
            )
        return BrainEncoder(model=model)

    def make_model(
        self, model_class: Any, arguments: dict[str, Any], **sizes: Any
    ) -> tuple[Any, Any]:
        """Make a model of braindecode, and apply it to two signals of zeros.

        Args:
            model_class: Class of the model.
            arguments: Further arguments of its `forward`.
            sizes: Arguments of the class, with `n_chans` and `n_times`.

        Returns:
            The model and its outputs.

        Raises:
            BrainhiveError: if the model does not take the sizes or options.
        """
        signal = torch.zeros(2, sizes["n_chans"], sizes["n_times"])
        try:
            # braindecode warns of channels and sizes that are intended
            with warnings.catch_warnings(action="ignore"), torch.no_grad():
                model = model_class(**sizes, sfreq=self.rate_hz, **self.options).eval()
                outputs = model(signal, **arguments)
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
"""Settings of a small model."""


class FeatureEncoder(nn.Module):
    """Model of braindecode whose features are mapped to the token.

    Attributes:
        channel_map: Weights [C', C] of the signal's channels in the model's channels,
            or None if both have the same channels.
        resampling: Matrix [T', T] of a polyphase filter, or None at equal rates.
        samples: Number T' of samples that the model takes.
        arguments: Further arguments of the model's `forward`.
        model: Model of braindecode, without its last layer.
        project: Linear map from all features of a window to the token.
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

        # channels and rate of the model
        self.config = config
        names, channel_map = choose_channels(spec, config.channels, config.any_channels)
        rate_hz = config.rate_hz or spec.rate_hz
        resampling = None
        n_resampled = samples
        if rate_hz != spec.rate_hz:
            resampling = build_resampling_matrix(samples, spec.rate_hz, rate_hz)
            n_resampled = len(resampling)
        self.register_buffer("channel_map", channel_map)
        self.register_buffer("resampling", resampling)
        patch = config.patch_samples
        n_patches = count_output_samples(n_resampled, (patch, patch))
        self.samples = n_patches * patch

        # some models take the names of channels here, others in `forward`
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
        self.model.final_layer = nn.Identity()
        n_features = outputs["features"][0].numel()
        self.project = nn.Linear(n_features, dim)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]. The subject has no effect."""
        outputs = self.model(self.prepare(signal), **self.arguments)
        features: Tensor = outputs["features"]
        return self.project(features.flatten(1))

    def prepare(self, signal: Tensor) -> Tensor:
        """Convert signals [B, C, T] to the model's channels, rate and scale.

        Returns:
            Inputs [B, C', T'] of the model.
        """
        # models compute spectra, which torch does not compute in bf16
        with torch.autocast(signal.device.type, enabled=False):
            x = signal.float()
            if self.channel_map is not None:
                x = self.channel_map @ x
            if self.resampling is not None:
                x = x @ self.resampling.mT
            x = x[..., : self.samples]
            if self.config.scale == "quantile":  # as in BIOT's code
                x = x / (x.abs().quantile(0.95, -1, keepdim=True) + 1e-8)
            else:
                x = x * self.config.scale
            limit = self.config.clip or torch.inf
            return x.clamp(-limit, limit)

    def load_pretrained(self) -> None:
        """Load the weights of `pretrained`, without the last layer.

        Raises:
            MissingData: if they are absent, damaged or incomplete.
            BrainhiveError: if they have other sizes or settings.
        """
        reference = self.config.pretrained
        if reference is None:
            return

        # Files of weights that are downloaded. braindecode also publishes
        # them as pickles.
        weights_pattern = "*.safetensors"
        folder = hub.folder(reference, allow=["config.json", weights_pattern])
        files: list[Path] = []
        for pattern in hub.WEIGHT_PATTERNS:
            files += sorted(folder.glob(pattern))
        if not files:
            raise MissingData(
                f"{reference} has no {weights_pattern}",
                "give a folder that save_pretrained wrote",
            )
        self._check_settings(reference, folder / "config.json")

        # the publisher's version of braindecode may use other names
        model_state = self.model.state_dict()
        new_names = self.model.mapping or {}
        state = {}
        for name, weight in weights.read(files[0]).items():
            state[new_names.get(name, name)] = weight
        # Name of LaBraM's vectors [1, 1 + patches, D]. Weights for longer windows have
        # more, of which the first are used.
        temporal_embedding = "temporal_embedding"
        if temporal_embedding in model_state and temporal_embedding in state:
            n_vectors = model_state[temporal_embedding].shape[1]
            state[temporal_embedding] = state[temporal_embedding][:, :n_vectors]
        refuse_absent(model_state.keys() - state.keys(), len(model_state), reference)
        weights.fill(self.model, {name: state[name] for name in model_state}, reference)

    def _check_settings(self, reference: str, config_file: Path) -> None:
        """Raise an error if weights were trained with other settings.

        Some settings, such as the number of heads, change no shape. Without a
        config.json nothing is checked.
        """
        if not config_file.is_file():
            return
        published: dict[str, Any] = documents.read(
            config_file, hint=documents.DOWNLOAD_HINT
        )
        settings = self.model.get_config()
        # Settings in a published config.json that may differ, because they follow from
        # the signal and the recipe or do not affect the weights.
        ignored_settings = "n_(chans|times|outputs)|input_window_seconds|return_|.*drop"
        for key, value in published.items():
            if not isinstance(value, int | float) or re.match(ignored_settings, key):
                continue
            if settings.get(key, value) != value:
                override = f"backbone.options.{key}={value}"
                if key == "sfreq":
                    override = f"backbone.rate_hz={value}"
                raise BrainhiveError(
                    f"{reference} is of a {self.config.model} with {key} "
                    f"{value}, not {settings[key]}",
                    override,
                )


def choose_channels(
    spec: SignalSpec, channels: Sequence[str], takes_any: bool
) -> tuple[list[str], Tensor | None]:
    """Choose the channels that a model gets, and map the signal to them.

    Args:
        spec: Signals, with the names and positions of the sensors.
        channels: Channels of the model, with A-B for differences. Empty if the model
            takes channels of any names.
        takes_any: If True, the model takes any subset of `channels`, in any order.

    Returns:
        Names of the channels, and a matrix [C', C]. The matrix is None if the model
        gets the signal's channels.

    Raises:
        BrainhiveError: if channels must be interpolated, and the signal is MEG or a
            position is unknown.
    """
    row_of = _find_rows(channels, spec)
    channel_of = {row: name for name, row in row_of.items() if row is not None}
    has_all_sensors = takes_any and len(channel_of) == len(spec.names)
    if not channels or has_all_sensors:
        names = [channel_of.get(row, name) for row, name in enumerate(spec.names)]
        return names, None

    # a channel is a sensor, an electrode to interpolate, or a difference of two
    electrodes_of = {}
    for name in channels:
        electrodes_of[name] = name.split("-") if row_of[name] is None else [name]
    electrodes = list(dict.fromkeys(chain.from_iterable(electrodes_of.values())))
    row_of = _find_rows(electrodes, spec)
    absent = [name for name in electrodes if row_of[name] is None]

    # weights [C] of the sensors in each electrode, then in each channel
    identity = np.eye(len(spec.names))
    weights_of = {}
    for name, row in row_of.items():
        if row is not None:
            weights_of[name] = identity[row]
    if absent:
        weights_of |= dict(zip(absent, interpolate(spec, absent), strict=True))
    matrix = []
    for name in channels:
        first, *others = electrodes_of[name]
        matrix.append(weights_of[first] - sum(weights_of[other] for other in others))
    return list(channels), torch.tensor(np.stack(matrix), dtype=torch.float32)


def _find_rows(names: Sequence[str], spec: SignalSpec) -> dict[str, int | None]:
    """Find the row of each channel in a signal. Absent channels have None."""
    rows = find_rows(names, spec.names, "the signal")
    return dict(zip(names, rows, strict=True))


def interpolate(spec: SignalSpec, electrodes: Sequence[str]) -> Float64:
    """Compute the weights of sensors that interpolate electrodes by spherical splines.

    MNE's `interpolate_bads` is regularised. `Raw.interpolate_to`, which braindecode
    calls, is not, and doubles the noise of frontal channels from posterior sensors.

    Args:
        spec: Signals, with the names and positions of the sensors.
        electrodes: Names of E electrodes in the 10-05 system.

    Returns:
        Weights [E, C].

    Raises:
        BrainhiveError: if the signal is MEG, or a position is unknown.

    Source: Perrin et al. (1989).
    """
    import mne

    with mne.use_log_level("ERROR"):
        standard = {name: position for name, (_, position) in read_template().items()}
        default_positions = [standard.get(name.lower()) for name in spec.names]
        sensor_positions: Sequence[Any] = spec.positions or default_positions
        positions = dict(zip(spec.names, sensor_positions, strict=True))
        for name in electrodes:
            positions[name] = standard.get(name.lower())

        unknown = []
        for name, position in positions.items():
            is_meg_sensor = spec.modality == "MEG" and name in spec.names
            if position is None or is_meg_sensor:
                unknown.append(name)
        if unknown:
            raise BrainhiveError(
                f"{', '.join(electrodes[:3])} … are no channels of the signal, and "
                "cannot be interpolated: no position on the scalp is known of "
                f"{', '.join(unknown[:3])}",
                "prepare EEG with positions of its electrodes, or choose "
                "signal.channels of the 10-05 system",
            )

        # a unit signal per sensor, whose interpolation gives the weights
        info = mne.create_info(list(positions), 1.0, "eeg")
        info.set_montage(mne.channels.make_dig_montage(positions, coord_frame="head"))
        info["bads"] = list(electrodes)
        unit_signals = np.eye(len(positions), len(spec.names))
        raw = mne.io.RawArray(unit_signals, info).interpolate_bads()
        return np.asarray(raw.get_data(picks=list(electrodes)))


def _import_model(name: str) -> Any:
    """Return a model class of braindecode.

    Raises:
        MissingExtra: if braindecode cannot be imported.
        RecipeError: if it has no such model.
    """
    try:
        # braindecode triggers MNE's warnings of names of montages
        with warnings.catch_warnings(action="ignore"):
            from braindecode import models
            from braindecode.models.util import models_dict
    except (ImportError, OSError, RuntimeError) as error:
        # torchaudio fails with another version of PyTorch
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
