from .foreign_results import open_result as open_result
from .session_folder import SessionFolder as SessionFolder
from .vectors import (
    NAMES_FILE as NAMES_FILE,
    ORDERED_LAYOUT as ORDERED_LAYOUT,
    PARQUET_PART as PARQUET_PART,
    VECTORS_PER_BATCH as VECTORS_PER_BATCH,
    StoredShare as StoredShare,
    Vectors as Vectors,
    copy_vectors as copy_vectors,
    open_vectors as open_vectors,
    read_checked_batches as read_checked_batches,
    write_parquet as write_parquet,
)
