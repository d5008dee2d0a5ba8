from .encoder_groups import (
    EncoderGroup as EncoderGroup,
    encode as encode,
    group_encoders as group_encoders,
)
from .encoder_keys import (
    add_usual_encoders as add_usual_encoders,
    find_encoders as find_encoders,
    find_prior_encoders as find_prior_encoders,
    match_keys as match_keys,
    match_prior_keys as match_prior_keys,
    read_run_encoders as read_run_encoders,
    read_run_recipe as read_run_recipe,
)
from .encoder_stores import (
    IDENTITIES as IDENTITIES,
    describe_health_problem as describe_health_problem,
    digest_of as digest_of,
    find_encoder_config as find_encoder_config,
    holds_annotations as holds_annotations,
    keep_identity as keep_identity,
    list_changed as list_changed,
    list_store_inputs as list_store_inputs,
    open_alternatives as open_alternatives,
    open_stores as open_stores,
    require_same_identities as require_same_identities,
    warn_of_problems as warn_of_problems,
)
from .job import Job as Job, Recipe as Recipe
from .likeness import find_features as find_features
from .model_input import (
    choose_input as choose_input,
    match_recording as match_recording,
    match_split as match_split,
    match_stimuli as match_stimuli,
    measure_new_subject as measure_new_subject,
    measure_trials as measure_trials,
    read_training as read_training,
    spec_of as spec_of,
)
from .next_commands import (
    MAX_TRIAL_FOLDS as MAX_TRIAL_FOLDS,
    are_embedded as are_embedded,
    keep_if_recorded as keep_if_recorded,
    suggest_category_test as suggest_category_test,
    write_embed_commands as write_embed_commands,
    write_next_command as write_next_command,
    write_prior_arguments as write_prior_arguments,
)
from .picture_splits import write_split as write_split
from .targets import (
    OnlineTargets as OnlineTargets,
    StoreTargets as StoreTargets,
    Targets as Targets,
    TargetSource as TargetSource,
    make_online_targets as make_online_targets,
    open_targets as open_targets,
)
