from .decoding import count_decoders as count_decoders, decode_batches as decode_batches
from .media_files import (
    ANIMATED as ANIMATED,
    VIDEOS as VIDEOS,
    count_frames as count_frames,
    get_first_frame as get_first_frame,
    has_pyav as has_pyav,
    is_animated as is_animated,
    read_frames as read_frames,
    sort_by_number as sort_by_number,
    to_bytes as to_bytes,
)
from .near_copies import (
    COPIES as COPIES,
    MAX_DISTANCE as MAX_DISTANCE,
    Likeness as Likeness,
    confirm_near_copy as confirm_near_copy,
    find_candidates as find_candidates,
)
from .picture_digests import describe_pixels as describe_pixels
from .pictures import (
    BadPicture as BadPicture,
    decode as decode,
    report_bad_picture as report_bad_picture,
)
from .stimuli import (
    Clip as Clip,
    StimulusSet as StimulusSet,
    describe_unread as describe_unread,
    find_pictures as find_pictures,
    make_stimulus_set as make_stimulus_set,
    require_unique_ids as require_unique_ids,
)
from .views import (
    BatchContent as BatchContent,
    Latents as Latents,
    PictureBatch as PictureBatch,
    View as View,
    crop_centre as crop_centre,
    load_batches as load_batches,
    read_pictures as read_pictures,
    to_pictures as to_pictures,
    use_crop_of_original as use_crop_of_original,
)
