from .health import (
    FAILED as FAILED,
    HEALTH_COLUMNS as HEALTH_COLUMNS,
    PASSED as PASSED,
    Health as Health,
    make_health_row as make_health_row,
    make_health_table as make_health_table,
)
from .inventory import inspect_dataset as inspect_dataset
from .job import Job as Job, Recipe as Recipe
from .learned_pictures import (
    ComparePair as ComparePair,
    LearnedPictures as LearnedPictures,
    PixelComparison as PixelComparison,
    RowPair as RowPair,
    find_similar_pictures as find_similar_pictures,
    hash_concepts as hash_concepts,
    make_empty_hashes as make_empty_hashes,
)
from .recordings import (
    Recordings as Recordings,
    list_recorded_subjects as list_recorded_subjects,
    list_recording_caveats as list_recording_caveats,
)
from .signal_store import SignalStore as SignalStore, is_signal_store as is_signal_store
from .store_tables import (
    COUNT_COLUMNS as COUNT_COLUMNS,
    describe_store as describe_store,
    make_count_rows as make_count_rows,
)
from .target_store import (
    PIXEL_HASH_WORDS as PIXEL_HASH_WORDS,
    PIXELS_DATASET as PIXELS_DATASET,
    TargetStore as TargetStore,
    expand_patterns as expand_patterns,
    find_equal_embeddings as find_equal_embeddings,
    find_finite_rows as find_finite_rows,
    find_own_vectors as find_own_vectors,
    find_store as find_store,
    get_stimuli_and_pixels as get_stimuli_and_pixels,
    has_unknown_pictures as has_unknown_pictures,
    holds_own_vectors as holds_own_vectors,
    list_stores as list_stores,
    open_stores as open_stores,
)
from .target_writer import (
    StorePlan as StorePlan,
    TargetWriter as TargetWriter,
    finish_stores as finish_stores,
    open_writers as open_writers,
)
from .training_history import (
    ARRAYS_FILE as ARRAYS_FILE,
    DATASET_SEPARATOR as DATASET_SEPARATOR,
    EpochSelection as EpochSelection,
    TrainingHistory as TrainingHistory,
)
