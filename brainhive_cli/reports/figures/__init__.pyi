from .brain_maps import write_brain_map as write_brain_map
from .brain_slices import write_view as write_view
from .drawings import (
    PNG_DPI as PNG_DPI,
    WIDTH_INCH as WIDTH_INCH,
    DrawnTile as DrawnTile,
    is_informative as is_informative,
    make_rank_bars as make_rank_bars,
    render_svg as render_svg,
    save_figure as save_figure,
    save_sheet as save_sheet,
)
from .evoked_responses import (
    MIXTURES as MIXTURES,
    draw_evoked as draw_evoked,
    name_unit as name_unit,
)
from .head_maps import draw_head as draw_head, place_sensors as place_sensors
