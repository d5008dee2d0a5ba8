from .cells import (
    FOLD_PATTERN as FOLD_PATTERN,
    Cell as Cell,
    describe_division as describe_division,
    list_cells as list_cells,
    list_subjects as list_subjects,
    list_test_subjects as list_test_subjects,
)
from .facts import TrainingFacts as TrainingFacts
from .layout import (
    Layout as Layout,
    find_token_axes as find_token_axes,
    is_checkpoint as is_checkpoint,
)
from .model import Aligner as Aligner, load as load
from .model_files import (
    is_model as is_model,
    read_config as read_config,
    require_weights as require_weights,
)
from .recipe import (
    DEFAULT_DIM as DEFAULT_DIM,
    FROM_MEAN as FROM_MEAN,
    Recipe as Recipe,
    make_ridge_keys as make_ridge_keys,
)
from .references import (
    INHERITED_KEYS as INHERITED_KEYS,
    TRAINING as TRAINING,
    choose_cell as choose_cell,
    copy_training_keys as copy_training_keys,
    find_model as find_model,
    find_recipe_name as find_recipe_name,
    find_reference as find_reference,
    list_model_folders as list_model_folders,
)
from .set_ups import (
    describe_model as describe_model,
    describe_recipe as describe_recipe,
    describe_run as describe_run,
)
from .stages import Finetune as Finetune, Stage as Stage, Train as Train
from .terms import Term as Term, find_mixing as find_mixing
