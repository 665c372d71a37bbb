"""What a run leaves behind: its record, its numbers, and the store that gathers them."""

from crane.runs.frame import (
    Measurement,
    Quantity,
    Spread,
    by_seed,
    differences,
    latest,
    measurements,
    paired,
    spreads,
)
from crane.runs.record import RunRecord, StoredRun, begin_record, processor_name, write_record
from crane.runs.results import (
    HEADINGS,
    MEAN,
    SIZES,
    DatasetResult,
    class_table,
    mean_table,
    read_results_json,
    write_results_csv,
    write_results_json,
)
from crane.runs.store import (
    FinishedRun,
    finished_runs,
    read_measurements,
    read_store,
    store_run,
)
