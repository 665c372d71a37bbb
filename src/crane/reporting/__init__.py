"""Results as people and programs read them: maps, overlays, tables, records of runs."""

from crane.reporting.files import replacing, write_json, write_text
from crane.reporting.findings import (
    CURVES,
    GALLERY,
    KINDS,
    SCORES,
    GalleryKeeper,
    Picture,
    read_gallery,
    write_curves,
    write_gallery,
    write_scores,
)
from crane.reporting.maps import read_map, resize_map, save_map
from crane.reporting.overlays import ColourScale, colour_bar, heat_map, outlined, overlay
from crane.reporting.panels import Panel, PanelStyle, draw_panel, gallery
from crane.reporting.record import RunRecord, begin_record, write_record
from crane.reporting.results import (
    MEAN,
    DatasetResult,
    read_results_json,
    write_results_csv,
    write_results_json,
)
from crane.reporting.setting import setting_of
from crane.reporting.store import (
    FinishedRun,
    StoredRun,
    finished_runs,
    read_store,
    store_run,
)
from crane.reporting.tables import HEADINGS, SIZES, class_table, mean_table
from crane.reporting.writer import OverlayWriter

__all__ = [
    "CURVES",
    "GALLERY",
    "HEADINGS",
    "KINDS",
    "MEAN",
    "SCORES",
    "SIZES",
    "ColourScale",
    "DatasetResult",
    "FinishedRun",
    "GalleryKeeper",
    "OverlayWriter",
    "Panel",
    "PanelStyle",
    "Picture",
    "RunRecord",
    "StoredRun",
    "begin_record",
    "class_table",
    "colour_bar",
    "draw_panel",
    "finished_runs",
    "gallery",
    "heat_map",
    "mean_table",
    "outlined",
    "overlay",
    "read_gallery",
    "read_map",
    "read_results_json",
    "read_store",
    "replacing",
    "resize_map",
    "save_map",
    "setting_of",
    "store_run",
    "write_curves",
    "write_gallery",
    "write_json",
    "write_record",
    "write_results_csv",
    "write_results_json",
    "write_scores",
    "write_text",
]
