from .augmentations import (
    Augment as Augment,
    Augmentation as Augmentation,
    DrawSettings as DrawSettings,
    draw_repetitions as draw_repetitions,
    mix_repetitions as mix_repetitions,
)
from .brain_channels import (
    EYE_NAME as EYE_NAME,
    STIMULUS_HINT as STIMULUS_HINT,
    STIMULUS_NAME as STIMULUS_NAME,
    find_codes as find_codes,
    list_eye_channels as list_eye_channels,
    refuse_stimulus_channels as refuse_stimulus_channels,
)
from .channel_mapping import (
    ChannelChoice as ChannelChoice,
    ChannelMapping as ChannelMapping,
    map_channels as map_channels,
)
from .cutting import (
    MIN_VARIANCE_SHARE as MIN_VARIANCE_SHARE,
    Band as Band,
    CausalFilter as CausalFilter,
    Cutting as Cutting,
    Milliseconds as Milliseconds,
    Steps as Steps,
    apply_whitener as apply_whitener,
    compute_whitener as compute_whitener,
    measure_noise as measure_noise,
    refuse_flat_channels as refuse_flat_channels,
    refuse_high_edges as refuse_high_edges,
    require_noise_splits as require_noise_splits,
    whiten_session as whiten_session,
)
from .holdout import (
    HOLDOUT_FIELD as HOLDOUT_FIELD,
    MAX_FOLDS as MAX_FOLDS,
    SEPARATE_TEST as SEPARATE_TEST,
    Holdout as Holdout,
    read_split as read_split,
)
from .normalisations import (
    Normaliser as Normaliser,
    Statistics as Statistics,
    pool_statistics as pool_statistics,
    require_equal_widths as require_equal_widths,
)
from .overlap import (
    TIME_TOLERANCE_S as TIME_TOLERANCE_S,
    Overlap as Overlap,
    measure_spacing_s as measure_spacing_s,
)
from .provenance import find_fact as find_fact, read_preparation as read_preparation
from .repetitions import (
    SCALED_UNITS as SCALED_UNITS,
    WHITENED_UNIT as WHITENED_UNIT,
    average_by_part as average_by_part,
    average_by_session as average_by_session,
    average_repetitions as average_repetitions,
    average_trials as average_trials,
    measure_reliability as measure_reliability,
    measure_scale as measure_scale,
    separate_in_time as separate_in_time,
)
from .selection import (
    Signal as Signal,
    list_regions as list_regions,
    list_window_starts as list_window_starts,
    make_region_masks as make_region_masks,
    mark_window as mark_window,
)
from .space_files import write_maps as write_maps, write_underlay as write_underlay
from .spaces import (
    Grid as Grid,
    Sensors as Sensors,
    Surface as Surface,
    Underlay as Underlay,
    Voxels as Voxels,
    are_amplifier_inputs as are_amplifier_inputs,
    find_channel_rows as find_channel_rows,
    look_up_positions as look_up_positions,
    name_electrodes as name_electrodes,
    standardise_name as standardise_name,
    standardise_names as standardise_names,
    strip_electrode_name as strip_electrode_name,
)
from .study import (
    StudyDesign as StudyDesign,
    describe_concepts as describe_concepts,
    describe_study as describe_study,
)
from .trial_table import COLUMNS as COLUMNS
from .trials import (
    MAX_STIMULI_PER_READ as MAX_STIMULI_PER_READ,
    Trials as Trials,
    digest_trials as digest_trials,
    group_trials as group_trials,
    index_optional as index_optional,
    make_trial_reader as make_trial_reader,
    sum_by_picture as sum_by_picture,
)
from .windows import Counts as Counts, CutWindow as CutWindow, Windows as Windows
