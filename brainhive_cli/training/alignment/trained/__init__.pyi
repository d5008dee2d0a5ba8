from .few_shot import (
    ARMS as ARMS,
    FINE_TUNING as FINE_TUNING,
    MIN_TRANSFER_PICTURES as MIN_TRANSFER_PICTURES,
    PERMUTED_SCRATCH as PERMUTED_SCRATCH,
    PERMUTED_TRANSFER as PERMUTED_TRANSFER,
    SCRATCH as SCRATCH,
    SUBJECT_LAYER as SUBJECT_LAYER,
    TRAINED_ARMS as TRAINED_ARMS,
    TRANSFER as TRANSFER,
    ZERO_SHOT as ZERO_SHOT,
    PersonModel as PersonModel,
    SourceModel as SourceModel,
    choose_pull as choose_pull,
)
from .model import TrainedModel as TrainedModel
from .models import TrainedModels as TrainedModels
from .new_trials import read_new as read_new
from .picture_targets import open_targets as open_targets
from .portable import (
    MappingKind as MappingKind,
    PortableModel as PortableModel,
    save_program as save_program,
)
from .prior_tokens import check_tokens as check_tokens, write_training as write_training
from .run import open_model as open_model, open_models as open_models
from .sharing import Files as Files, SharedRun as SharedRun
from .test_job import TestJob as TestJob
from .test_set import (
    TestSet as TestSet,
    check_test_set as check_test_set,
    open_test_set as open_test_set,
)
from .tested_person import DEFAULT_UNIT as DEFAULT_UNIT, TestedPerson as TestedPerson
