"""A detector as a repository of the Hugging Face Hub: checkpoint, configuration and model card."""

import csv
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from crane import __version__
from crane.config import plain
from crane.errors import UsageError, counted
from crane.files import uncell, write_json, write_text
from crane.methods import model_config
from crane.named_prompts import hub_place
from crane.weights import HUB_FILE, describe, weights_needed

if TYPE_CHECKING:
    from crane.prediction.anomaly_detector import AnomalyDetector

ALLOWED = ("*.safetensors", "*.json", "*.md")
"""What is uploaded: data and text, nothing that could be executed."""

NUMBERS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "aupro", "pixel_f1max")
"""Columns of results that a model card shows."""

CARD = """# {repo}

{method}: a zero-shot anomaly detector of crane {version} for images of {size} x {size} pixels.

```python
import crane

detector = crane.load("hf://{repo}")
detector.predict("photo.png").plot()
```

## Facts

{facts}
"""


def save_folder(
    detector: "AnomalyDetector",
    folder: str | Path,
    *,
    repo: str,
    licence: str | None,
    results: str | Path | None,
) -> Path:
    """Write `model.safetensors`, `config.json` and `README.md`; see `AnomalyDetector`."""
    folder = Path(folder).expanduser()
    numbers = [] if results is None else _numbers(Path(results).expanduser())
    detector.save(folder / HUB_FILE)
    assert detector.config is not None  # else `save` refuses
    threshold = None if detector.threshold is None else detector.threshold.value
    config = {"library": "crane", "version": __version__, "threshold": threshold}
    model = {**model_config(detector.config), "image_size": detector.image_size}
    write_json(folder / "config.json", {**config, **model})
    write_text(folder / "README.md", _card(detector, repo, licence, numbers))
    return folder


def push_folder(
    detector: "AnomalyDetector",
    repo: str,
    *,
    licence: str | None,
    results: str | Path | None,
    private: bool,
    token: str | None,
) -> str:
    """Upload what `save_folder` writes; see `AnomalyDetector`."""
    from huggingface_hub import HfApi

    hub_place(f"hf://{repo}", "repo")
    with TemporaryDirectory() as scratch:
        save_folder(detector, scratch, repo=repo, licence=licence, results=results)
        api = HfApi(token=token, library_name="crane", library_version=__version__)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=scratch,
                allow_patterns=list(ALLOWED),
                commit_message=f"Upload a detector of crane {__version__}",
            )
        except Exception as error:  # the hub's client raises those of its own and of what it uses
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise UsageError(
                f"cannot push to {repo}: {reason}; hf auth login, or token=",
                key="repo",
            ) from error
    return str(commit.commit_url)


def _card(
    detector: "AnomalyDetector", repo: str, licence: str | None, numbers: Sequence[Sequence[str]]
) -> str:
    from huggingface_hub import ModelCard, ModelCardData

    config = detector.config
    assert config is not None
    method = str(OmegaConf.select(config, "method.name"))
    facts = [("method", method), ("backbone", str(config.backbone.model.architecture))]
    sources = detector.origin.get("sources")
    if sources:
        facts.append(("trained on", ", ".join(map(str, sources))))
    if detector.origin.get("checkpoint"):
        facts.append(("from the checkpoint", str(detector.origin["checkpoint"])))
    if detector.threshold is not None:
        decides = f"{detector.threshold.value:.4g}"
        if detector.threshold.num_normals is not None:
            normals = counted(detector.threshold.num_normals, "normal image")
            decides += (
                f", calibrated on {normals} for "
                f"{detector.threshold.false_alarm_rate:.0%} false alarms"
            )
        facts.append(("threshold", decides))
    for name in weights_needed(plain(config)):
        entry = describe(name)
        needs = "" if entry is None else f" ({entry.licence})"
        facts.append(("needs the weights", f"{name}{needs}, which are not in this repository"))
    text = CARD.format(
        repo=repo,
        method=method,
        size=detector.image_size,
        version=__version__,
        facts="\n".join(f"- {name}: {value}" for name, value in facts),
    )
    if numbers:
        lines = [" | ".join(("", *row, "")).strip() for row in numbers]
        rule = "|" + " --- |" * len(numbers[0])
        text += "\n## Results\n\nPer cent, means over classes.\n\n"
        text += "\n".join([lines[0], rule, *lines[1:]]) + "\n"
    data = ModelCardData(
        license=licence,
        library_name="crane",
        pipeline_tag="image-segmentation",
        tags=["anomaly-detection", "zero-shot"],
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}"))


def _numbers(place: Path) -> list[list[str]]:
    """The means in the `results.csv` of a run, with a heading."""
    file = place / "results.csv" if place.is_dir() else place
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        means = [row for row in rows if row["class"] == "mean"]
        shown = [name for name in NUMBERS if means and means[0].get(name) not in (None, "", "nan")]
        body = [
            [uncell(row["dataset"]), *(f"{100 * float(row[name]):.1f}" for name in shown)]
            for row in means
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"cannot read results of {file}: {error}", key="results") from error
    if not shown:
        raise UsageError(f"{file} holds no mean of a data set", key="results")
    return [["data set", *shown], *body]
