from .adamw import AdamW as AdamW
from .blocks import (
    CHANNEL_MIXING as CHANNEL_MIXING,
    Adapter as Adapter,
    ChannelMixing as ChannelMixing,
    Dropout as Dropout,
    FusionEncoder as FusionEncoder,
    ResidualMLP as ResidualMLP,
    build_mlp as build_mlp,
    build_residual_stack as build_residual_stack,
    find_linear_shapes as find_linear_shapes,
    order_embeddings as order_embeddings,
    select_rows as select_rows,
)
from .clip_conditions import (
    OPEN_CLIP as OPEN_CLIP,
    PLAIN_TEXT_TOWER as PLAIN_TEXT_TOWER,
    Vocabulary as Vocabulary,
    load_tokenizer as load_tokenizer,
    load_tower as load_tower,
)
from .course import (
    Course as Course,
    EpochRange as EpochRange,
    Wave as Wave,
    format_share as format_share,
    parse_share as parse_share,
    resolve_courses as resolve_courses,
    resolve_epochs as resolve_epochs,
    value_at as value_at,
)
from .electrodes import read_template as read_template
from .foreign_weights import (
    NameTable as NameTable,
    StateDict as StateDict,
    count_indices as count_indices,
    find_file_input as find_file_input,
    find_weight_file as find_weight_file,
    is_weight_file as is_weight_file,
    load_network as load_network,
    refuse_absent as refuse_absent,
    rename_weights as rename_weights,
    strip_prefix as strip_prefix,
)
from .fusers import FuserConfig as FuserConfig
from .heads import (
    FUSED_TARGET as FUSED_TARGET,
    LATENT_SPACE_PREFIX as LATENT_SPACE_PREFIX,
    TOKEN_HEAD as TOKEN_HEAD,
    Conditioning as Conditioning,
    Decoded as Decoded,
    Head as Head,
    Heads as Heads,
    check_head_names as check_head_names,
    flatten_vectors as flatten_vectors,
    name_latent_space as name_latent_space,
    refuse_other_target as refuse_other_target,
)
from .losses import (
    LossConfig as LossConfig,
    LossContext as LossContext,
    Mixing as Mixing,
)
from .picture_autoencoder import (
    PIXELS as PIXELS,
    RANDOM as RANDOM,
    SIDE_PX as SIDE_PX,
    WEIGHTS_FILE as WEIGHTS_FILE,
    PictureAutoencoder as PictureAutoencoder,
    Pixels as Pixels,
    find_weights as find_weights,
    open_autoencoder as open_autoencoder,
    resize as resize,
)
from .pretraining import look_up_training as look_up_training
from .signal_spec import (
    MEG_NAME_PATTERN as MEG_NAME_PATTERN,
    UNIT_SIZES as UNIT_SIZES,
    SignalSpec as SignalSpec,
    build_resampling_matrix as build_resampling_matrix,
    check_signal as check_signal,
    convert_unit as convert_unit,
    count_output_samples as count_output_samples,
    guess_modality as guess_modality,
    normalise_unit as normalise_unit,
)
from .sizes import (
    HiddenDropout as HiddenDropout,
    InnerWidth as InnerWidth,
    Share as Share,
    UnitDropout as UnitDropout,
    Width as Width,
)
