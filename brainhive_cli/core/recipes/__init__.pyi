from .flags import (
    START as START,
    STORES as STORES,
    Arguments as Arguments,
    Flag as Flag,
    flag_field as flag_field,
)
from .key_types import (
    Copies as Copies,
    NameList as NameList,
    Numbers as Numbers,
    OneRun as OneRun,
    Pattern as Pattern,
    UniqueNames as UniqueNames,
    describe_bad_label as describe_bad_label,
    read_ranges as read_ranges,
    split_commas as split_commas,
)
from .parts import (
    Config as Config,
    list_papers as list_papers,
    part_validator as part_validator,
)
from .recipe import (
    EMBEDDINGS as EMBEDDINGS,
    MAX_STEPS as MAX_STEPS,
    SIGNALS as SIGNALS,
    BaseRecipe as BaseRecipe,
    FileRecipe as FileRecipe,
    OneRunRecipe as OneRunRecipe,
    Paths as Paths,
    Published as Published,
    PublishedKey as PublishedKey,
    Recipe as Recipe,
    RunOptions as RunOptions,
    TrainedRunRecipe as TrainedRunRecipe,
    find_recipe as find_recipe,
    parse_value as parse_value,
    read_extended as read_extended,
    read_recipe as read_recipe,
    recipe_name_of as recipe_name_of,
    shipped_recipes as shipped_recipes,
    validate as validate,
    write_yaml as write_yaml,
)
from .recipe_schema import describe_recipe as describe_recipe
from .sections import (
    Section as Section,
    added_field as added_field,
    refuse_idle as refuse_idle,
)
