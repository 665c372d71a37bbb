"""One colour a setting, the same in every chart."""

from collections.abc import Iterable

from crane.report.rows import Row

PALETTE = (
    *("#d9532c", "#2a7fbf", "#3d9a57", "#b07cc6", "#d4a017"),
    *("#26a6a4", "#c2577f", "#7d8b33", "#8c6d4f", "#6b7fd7"),
    *("#f0a58d", "#8fc0e6", "#94d0a4", "#dcc1ea", "#e6c566"),
    *("#8fd9d6", "#e6a8bd", "#bcc77a", "#c9b29b", "#b4bff0"),
)
"""Colours of settings; they hold on white and on black, and come round after the last."""
GREY = "#9a948a"
"""Colour of published numbers."""


def setting_colours(rows: Iterable[Row]) -> dict[str, str]:
    """Give each setting its colour, in the order in which they come.

    >>> rows = [Row("Theirs (published)", "d", "mean", {}, 0), Row("vv", "d", "mean", {}, 2)]
    >>> setting_colours(rows)
    {'Theirs (published)': '#9a948a', 'vv': '#d9532c'}
    """
    is_ours = {row.setting: row.num_seeds > 0 for row in rows}
    ours = [setting for setting, mine in is_ours.items() if mine]
    numbers = {setting: number for number, setting in enumerate(ours)}
    return {
        setting: PALETTE[numbers[setting] % len(PALETTE)] if mine else GREY
        for setting, mine in is_ours.items()
    }
