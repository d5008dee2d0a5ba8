from .account import AcceptKey as AcceptKey, Account as Account, Dispute as Dispute
from .channels import (
    KeptChannels as KeptChannels,
    compare_rates_and_references as compare_rates_and_references,
    compare_subjects as compare_subjects,
    describe_channels as describe_channels,
    group_by_entry as group_by_entry,
    keep_channels as keep_channels,
    list_unusual_channels as list_unusual_channels,
)
from .contract import (
    MergedPreparation as MergedPreparation,
    NoTrials as NoTrials,
    Overview as Overview,
    Preparation as Preparation,
    cached_method as cached_method,
    fill_subject as fill_subject,
    list_subjects as list_subjects,
)
from .epoch_files import (
    Axes as Axes,
    name_trial_tables as name_trial_tables,
    read_epochs as read_epochs,
)
from .epochs import (
    JoinedEpochs as JoinedEpochs,
    as_trials as as_trials,
    cut_trials as cut_trials,
    require_span as require_span,
    warn_of_size as warn_of_size,
)
from .event_names import (
    COLUMNS as COLUMNS,
    EVENT_TABLES as EVENT_TABLES,
    NOT_IN_TABLE as NOT_IN_TABLE,
    EventNames as EventNames,
    find_event_table as find_event_table,
    find_own_tables as find_own_tables,
    read_code as read_code,
)
from .files import (
    list_recording_files as list_recording_files,
    list_recordings as list_recordings,
    list_signal_files as list_signal_files,
)
from .headers import (
    ElectrodeKeys as ElectrodeKeys,
    Header as Header,
    RecordingKeys as RecordingKeys,
    make_header as make_header,
    read_header as read_header,
)
from .lsl_library import (
    ResultOutlet as ResultOutlet,
    explain_lsl_errors as explain_lsl_errors,
    import_lsl as import_lsl,
    resolve_streams as resolve_streams,
)
from .markers import (
    Marker as Marker,
    RecordedMarkers as RecordedMarkers,
    find_unlisted as find_unlisted,
    read_markers as read_markers,
)
from .opening import CHANNEL_UNITS as CHANNEL_UNITS, open_raw as open_raw
from .recording_account import (
    account_for_files as account_for_files,
    dispute_unrecorded as dispute_unrecorded,
    join_showings as join_showings,
    list_disputes as list_disputes,
    list_rows as list_rows,
    list_unrecorded as list_unrecorded,
)
from .samples import (
    FlatSegments as FlatSegments,
    filter_samples as filter_samples,
    read_channels as read_channels,
)
from .showings import find_copies as find_copies, find_mixed_kinds as find_mixed_kinds
from .shown_pictures import (
    StimuliKey as StimuliKey,
    build_stimuli as build_stimuli,
    choose_stimuli as choose_stimuli,
    leave_trials_apart as leave_trials_apart,
    list_pictures as list_pictures,
    match_pictures as match_pictures,
    name_stimuli_keys as name_stimuli_keys,
)
from .stim_channels import FindPictures as FindPictures
from .tables import (
    EMPTY_CELLS as EMPTY_CELLS,
    ENTITIES as ENTITIES,
    PERSON_COLUMNS as PERSON_COLUMNS,
    RowKinds as RowKinds,
    WhereKey as WhereKey,
    find_missing_column as find_missing_column,
    find_sidecar as find_sidecar,
    name_events as name_events,
    read_kinds as read_kinds,
    read_number as read_number,
    read_table as read_table,
    select_rows as select_rows,
)
