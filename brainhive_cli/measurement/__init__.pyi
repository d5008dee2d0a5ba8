from .audit import FINDING as FINDING
from .comparison import (
    adjust_together as adjust_together,
    compare_hits as compare_hits,
    compare_runs as compare_runs,
    compare_sources as compare_sources,
    crossed_t_test as crossed_t_test,
)
from .confidence_sequence import (
    HitRate as HitRate,
    hit_rate_interval as hit_rate_interval,
)
from .design import (
    Exchange as Exchange,
    LabelDesign as LabelDesign,
    Timeline as Timeline,
    describe_pictures as describe_pictures,
    describe_trials as describe_trials,
)
from .foreign_result import (
    COSINE as COSINE,
    ForeignResult as ForeignResult,
    compute_similarities as compute_similarities,
)
from .linear_maps import (
    Components as Components,
    FeatureScaler as FeatureScaler,
    OutputSums as OutputSums,
    Products as Products,
    choose_penalty as choose_penalty,
    count_fit_bytes as count_fit_bytes,
    count_fit_operations as count_fit_operations,
    project as project,
    shrink as shrink,
)
from .ranks import (
    chance_of_precision as chance_of_precision,
    find_nearest as find_nearest,
    normalise_tokens as normalise_tokens,
    rank_first_pictures as rank_first_pictures,
    rank_targets as rank_targets,
    summarise_ranks as summarise_ranks,
)
from .reliability import (
    Repetitions as Repetitions,
    average_halves as average_halves,
    average_parts as average_parts,
    average_random_halves as average_random_halves,
    correlate as correlate,
    correlate_without_each as correlate_without_each,
    correlation_shares as correlation_shares,
    noise_ceiling as noise_ceiling,
    predict_reliability as predict_reliability,
    retrieve_halves as retrieve_halves,
    spearman_brown as spearman_brown,
    unit_vectors as unit_vectors,
)
from .retrieval import (
    CONCEPT_METRIC as CONCEPT_METRIC,
    CONTROL_METRICS as CONTROL_METRICS,
    Gallery as Gallery,
    Scores as Scores,
    depends_on_other_trials as depends_on_other_trials,
    draw_verdict_pictures as draw_verdict_pictures,
    exchange_labels as exchange_labels,
    measure_subsets as measure_subsets,
    rank_corrected as rank_corrected,
    rank_for_verdict as rank_for_verdict,
    rank_gallery as rank_gallery,
    rank_parts as rank_parts,
)
from .slope import average_by_unit as average_by_unit, fit_slope as fit_slope
from .statistics import measure as measure, measure_positions as measure_positions
from .trial_order import (
    TrialOrder as TrialOrder,
    find_confound as find_confound,
    separate_repetitions as separate_repetitions,
)
from .units import (
    MIN_SUBJECTS_FOR_POPULATION as MIN_SUBJECTS_FOR_POPULATION,
    MIN_UNITS_FOR_POPULATION as MIN_UNITS_FOR_POPULATION,
    GroupingCriterion as GroupingCriterion,
    Items as Items,
    StimulusGrouping as StimulusGrouping,
    describe_claims as describe_claims,
    fold_null_inflation as fold_null_inflation,
    number_names as number_names,
)
from .verdict import (
    MAX_PERMUTATIONS as MAX_PERMUTATIONS,
    ROUNDING as ROUNDING,
    judge as judge,
)
