from .artifacts import (
    Artifact as Artifact,
    BrainMap as BrainMap,
    Curve as Curve,
    CurveLine as CurveLine,
    Evoked as Evoked,
    Heatmap as Heatmap,
    Mark as Mark,
    Point as Point,
    Sample as Sample,
    Sheet as Sheet,
    SheetRow as SheetRow,
    SheetTile as SheetTile,
    Topomap as Topomap,
)
from .cells import (
    WORKERS_VARIABLE as WORKERS_VARIABLE,
    announce as announce,
    share_cells as share_cells,
)
from .claims import Claim as Claim, find_holder as find_holder
from .driver import (
    LOCK as LOCK,
    is_in_use as is_in_use,
    make_command as make_command,
    remove_unused as remove_unused,
)
from .jobs import (
    CellStage as CellStage,
    FunctionJob as FunctionJob,
    Job as Job,
    LoggedMetrics as LoggedMetrics,
    OpenRun as OpenRun,
    RunJob as RunJob,
    Summary as Summary,
    UnresolvedJob as UnresolvedJob,
    key_work as key_work,
    list_inputs as list_inputs,
    resolve as resolve,
)
from .launch import (
    READ_ONLY as READ_ONLY,
    Launch as Launch,
    count_processes as count_processes,
    find_broken_libraries as find_broken_libraries,
    find_failed_import as find_failed_import,
    library_version as library_version,
    library_versions as library_versions,
    open_device as open_device,
    start as start,
)
from .result import Result as Result
from .run_files import check as check
from .run_folder import (
    ENVIRONMENT_FILE as ENVIRONMENT_FILE,
    FINGERPRINTS as FINGERPRINTS,
    MAX_RECIPE_BYTES as MAX_RECIPE_BYTES,
    METRICS_FILE as METRICS_FILE,
    Environment as Environment,
    RunFolder as RunFolder,
    find as find,
    find_labelled as find_labelled,
    find_newest as find_newest,
    format_age as format_age,
    is_run as is_run,
    list_finished_runs as list_finished_runs,
    reference as reference,
    rejoin_labels as rejoin_labels,
    require_single as require_single,
)
from .sweep import (
    SweptRecipe as SweptRecipe,
    list_axes as list_axes,
    read_sweep as read_sweep,
)
from .trackers import open_trackers as open_trackers
from .weights import (
    Checkpoint as Checkpoint,
    describe_match as describe_match,
    fill as fill,
    read as read,
    reading as reading,
)
from .work import Work as Work, read_paces as read_paces
