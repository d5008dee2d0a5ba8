from .beta_names import (
    SHAPE_HINT as SHAPE_HINT,
    order_betas as order_betas,
    read_labels as read_labels,
)
from .betas import (
    Betas as Betas,
    BetaSteps as BetaSteps,
    PublishedBetas as PublishedBetas,
    PublishedSteps as PublishedSteps,
    SessionBetas as SessionBetas,
    SessionTrials as SessionTrials,
    Subject as Subject,
    Trial as Trial,
)
from .bids_bold import (
    BOLD_PATTERNS as BOLD_PATTERNS,
    COPY_HINT as COPY_HINT,
    BoldRun as BoldRun,
    RunTiming as RunTiming,
    ShownPicture as ShownPicture,
    find_onset_unit as find_onset_unit,
    find_runs as find_runs,
    read_bold as read_bold,
    read_confounds as read_confounds,
    read_events as read_events,
    read_space as read_space,
    read_timing as read_timing,
)
from .glm import TrialRun as TrialRun, estimate_trials as estimate_trials
from .regions import (
    Thresholds as Thresholds,
    count_hemisphere_rows as count_hemisphere_rows,
    find_region_files as find_region_files,
    read_regions as read_regions,
)
from .underlays import (
    average_bold as average_bold,
    find_anatomy as find_anatomy,
    read_anatomy as read_anatomy,
)
from .volumes import (
    CIFTI_ENDINGS as CIFTI_ENDINGS,
    NIFTI_ENDINGS as NIFTI_ENDINGS,
    Mask as Mask,
    find_vertices as find_vertices,
    open_image as open_image,
    read_volume as read_volume,
)
