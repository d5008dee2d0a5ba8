from .bids_labels import (
    DESCRIPTION as DESCRIPTION,
    SIMULATED as SIMULATED,
    BidsIndex as BidsIndex,
    ChosenSessions as ChosenSessions,
    SplitSessions as SplitSessions,
    SubjectNumbers as SubjectNumbers,
    describe_labels as describe_labels,
    find_bids_root as find_bids_root,
    find_label as find_label,
    find_pattern as find_pattern,
    get_session_numbers as get_session_numbers,
    group_by_session as group_by_session,
    natural_key as natural_key,
    number_sessions as number_sessions,
    number_subjects as number_subjects,
    read_entities as read_entities,
    read_label as read_label,
    read_session as read_session,
    read_simulated as read_simulated,
)
from .hdf5 import (
    NUMBERS as NUMBERS,
    LazyRows as LazyRows,
    shorten_store_path as shorten_store_path,
)
from .ids import (
    PICTURES as PICTURES,
    Names as Names,
    format_ranges as format_ranges,
    match_ids as match_ids,
    match_names as match_names,
    name_stimulus as name_stimulus,
    normalise_name as normalise_name,
    path_ends as path_ends,
    read_category as read_category,
    summarise_names as summarise_names,
    to_image_id as to_image_id,
    to_table_cell as to_table_cell,
)
from .named_files import (
    SPLIT as SPLIT,
    find_next_part as find_next_part,
    list_further_parts as list_further_parts,
    list_named_parts as list_named_parts,
    require_own as require_own,
    require_own_parts as require_own_parts,
)
from .parquet import import_pyarrow as import_pyarrow, open_parquet as open_parquet
from .published_files import (
    FOLDERS as FOLDERS,
    cut_ending as cut_ending,
    fetch_line as fetch_line,
    find_below as find_below,
    find_file as find_file,
    read_names as read_names,
    read_splits as read_splits,
    read_table as read_table,
)
from .subjects import PEOPLE as PEOPLE, RECORDS as RECORDS, Subjects as Subjects
