"""Results as people and programs read them: maps, overlays, tables, records of runs."""

from crane.reporting.files import replacing, write_json, write_text
from crane.reporting.maps import read_map, resize_map, save_map
from crane.reporting.overlays import ColourScale, colour_bar, heat_map, outlined, overlay
from crane.reporting.panels import Panel, PanelStyle, draw_panel, gallery
from crane.reporting.record import RunRecord, begin_record, write_record
from crane.reporting.results import (
    DatasetResult,
    read_results_json,
    write_results_csv,
    write_results_json,
)
from crane.reporting.tables import class_table, mean_table
from crane.reporting.writer import OverlayWriter

__all__ = [
    "ColourScale",
    "DatasetResult",
    "OverlayWriter",
    "Panel",
    "PanelStyle",
    "RunRecord",
    "begin_record",
    "class_table",
    "colour_bar",
    "draw_panel",
    "gallery",
    "heat_map",
    "mean_table",
    "outlined",
    "overlay",
    "read_map",
    "read_results_json",
    "replacing",
    "resize_map",
    "save_map",
    "write_json",
    "write_record",
    "write_results_csv",
    "write_results_json",
    "write_text",
]
