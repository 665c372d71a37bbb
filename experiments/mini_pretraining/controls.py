"""Control experiments: what the small backbone and each part of the method contribute."""

import csv
import json
import logging
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict

from crane import training
from crane.config import compose
from crane.methods import build_model, model_config, read_checkpoint, save_prompts
from crane.runs import DatasetResult

log = logging.getLogger(__name__)

OPTIONS = Path(__file__).parent / "conf"
"""Options that only the controls have."""
METRICS = (
    "image_auroc",
    "pixel_auroc",
    "aupro",
    "aupro_small",
    "aupro_medium",
    "aupro_large",
)
"""Columns of results.csv; fractions."""


def run_controls(
    recipe: Mapping[str, Any], folder: Path, seeds: Sequence[int], rows: Iterable[str]
) -> None:
    """Run what has not run yet; each run keeps its values in `means.json` in its folder.

    Args:
        recipe: Content of controls.yaml.
        folder: Parent folder of the runs.
        seeds: Seeds to run.
        rows: Rows of the recipe to run.
    """
    for seed in seeds:
        for row in rows:
            place = folder / _slug(row) / str(seed)
            by_hand = row in recipe["untrained"]  # the same for every seed
            if (place / "means.json").is_file() or (by_hand and seed != seeds[0]):
                continue
            own = [*recipe["every_run"], *recipe["rows"][row], f"seed={seed}"]
            own += [f"run_dir='{place}'", f"hydra.searchpath=['file://{OPTIONS}']"]
            if by_hand:
                results = _by_hand(own, str(recipe["word"]), place)
            else:
                results = training.train(compose("train", own)).results
            means = {result.dataset: dict(result.means) for result in results}
            (place / "means.json").write_text(json.dumps(means, indent=1))
            log.info("%s, seed %d: %s", row, seed, _shown(means))


def _by_hand(overrides: list[str], word: str, place: Path) -> tuple[DatasetResult, ...]:
    """Test hand-written prompts: `word` before the method's sentences, no learned token."""
    place.mkdir(parents=True, exist_ok=True)
    fixed = ["prompt=none", "prompt.num_words=1", "prompt.num_deep=1", "prompt.depth=1"]
    config: DictConfig = compose("train", [*overrides, *fixed])
    model = build_model(config)
    ids = model.text.tokenize(word)[1:2]
    with torch.no_grad():
        for learned in model.prompts.words.values():
            learned.copy_(model.text.token_embedding(ids))
    path = place / "by_hand.safetensors"
    save_prompts(path, model, model_config(config), {})
    with open_dict(config):
        config.checkpoint = str(path)
    return training.test(config, read_checkpoint(path)).results


def collect(recipe: Mapping[str, Any], folder: Path, path: Path) -> list[dict[str, Any]]:
    """Collect the values of all finished runs in a CSV file: a line per row, seed and target."""
    lines = []
    for row in recipe["rows"]:
        for file in sorted((folder / _slug(row)).glob("*/means.json")):
            for dataset, means in json.loads(file.read_text()).items():
                values = {metric: means.get(metric) for metric in METRICS}
                lines.append({"row": row, "seed": file.parent.name, "dataset": dataset, **values})
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, ["row", "seed", "dataset", *METRICS], lineterminator="\n")
        table.writeheader()
        table.writerows(lines)
    return lines


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """One Markdown table per target: mean ± standard deviation over seeds, in per cent."""
    tables = []
    for dataset in dict.fromkeys(line["dataset"] for line in lines):
        header = ["", "seeds", *(metric.replace("_", " ") for metric in METRICS)]
        shown = [f"**{dataset}**\n", _cells(header), _cells(["---"] * len(header))]
        own = [line for line in lines if line["dataset"] == dataset]
        for row in dict.fromkeys(line["row"] for line in own):
            runs = [line for line in own if line["row"] == row]
            values = [_spread([run[metric] for run in runs]) for metric in METRICS]
            shown.append(_cells([row, str(len(runs)), *values]))
        tables.append("\n".join(shown))
    return "\n\n".join(tables)


def _spread(values: Sequence[float | None]) -> str:
    known = [100.0 * value for value in values if value is not None and value == value]
    if not known:
        return "-"
    if len(known) == 1:
        return f"{known[0]:.1f}"
    return f"{statistics.mean(known):.1f} ± {statistics.stdev(known):.1f}"


def _cells(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def _slug(row: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in row.replace("+", "plus").lower())


def _shown(means: Mapping[str, Mapping[str, float]]) -> str:
    return "; ".join(
        f"{name} {own['image_auroc']:.3f} {own['aupro']:.3f}" for name, own in means.items()
    )
