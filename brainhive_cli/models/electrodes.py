"""Electrodes of the 10-05 system, with their positions on a template head."""

from functools import cache

from brainhive_cli.core.base import Float64


@cache
def read_template() -> dict[str, tuple[str, Float64]]:
    """Read the electrodes of the 10-05 system.

    Returns:
        Name and position [3] in the head frame in metres, keyed by the name in lower
        case.
    """
    from mne.channels import (
        get_builtin_montages,
        make_standard_montage,
        transform_to_head,
    )

    # Names of MNE's template of electrode positions, since MNE 1.13 and before.
    new_name, old_name = "colin27_1005", "standard_1005"
    name = new_name if new_name in get_builtin_montages() else old_name
    montage = transform_to_head(make_standard_montage(name))
    positions = montage.get_positions()["ch_pos"]
    return {name.lower(): (name, position) for name, position in positions.items()}
