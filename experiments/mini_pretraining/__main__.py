"""`python -m experiments.mini_pretraining all`: pretrain both models from scratch."""

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from crane.weights.catalogue import MINI_FOLDER
from experiments.mini_pretraining.model import small_guide

HERE = Path(__file__).parent
RECIPE = HERE / "recipe.yaml"
"""How the weights in the package were made."""
log = logging.getLogger("experiments.mini_pretraining")


def _clip(recipe: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Pretrain the small CLIP, or resume it from its checkpoint."""
    from experiments.mini_pretraining.loop import Pretraining

    for stage in recipe["clip"]["stages"]:
        stage["steps"] = arguments.steps or stage["steps"]
    Pretraining(recipe, arguments.folder, arguments.device).run()


def _guide(recipe: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Pretrain the small guide, or resume it. Needs lightly (dependency group `pretraining`)."""
    from experiments.mini_pretraining.guide import pretrain_guide
    from experiments.mini_pretraining.guide_segments import train_on_segments

    own, steps = recipe["guide"], arguments.steps
    pretrain_guide(recipe, arguments.folder, arguments.device, steps or own["steps"])
    rounds = [steps] if steps else own["segments"]["rounds"]
    train_on_segments(recipe, arguments.folder, arguments.device, rounds)


def _export(recipe: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Write the weight files of the package; put the logged checksums into the catalogue."""
    from experiments.mini_pretraining.export import export

    for checkpoint, key, file in (
        ("clip.ckpt", "model", "crane-mini.safetensors"),
        ("guide.ckpt", "vit", "crane-mini-guide.safetensors"),
    ):
        path = arguments.folder / checkpoint
        if path.is_file():
            state = torch.load(path, map_location="cpu")
            sha256 = export(state[key], MINI_FOLDER / file)
            log.info("%s: step %d, %.0f s, %s", file, state["step"], state["seconds"], sha256)


def _evaluate(recipe: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Evaluate the CLIP in the folder, else the package's, and the package's guide.

    The drawings are unseen in training. Writes evaluation.json, for another recipe into the folder.
    """
    from experiments.mini_pretraining.evaluate import (
        evaluate,
        evaluate_guide,
        features_drawn,
        features_of,
    )
    from experiments.mini_pretraining.model import MiniClip

    settings = recipe["clip"]
    model = MiniClip(settings["num_stream_blocks"], settings["correlation"])
    checkpoint = arguments.folder / "clip.ckpt"
    if checkpoint.is_file():
        model.clip.load_state_dict(torch.load(checkpoint, map_location="cpu")["model"])
    else:
        model.load_embedded()
    drawings = recipe["evaluation"]
    guides = {name: small_guide(name) for name in ("crane-mini-guide/embedded", "random")}
    attention = guides["random"][1]
    seen = {name: features_of(guide) for name, (guide, _) in guides.items()}
    seen["segments"] = features_drawn
    found: dict[str, Any] = {"clip": evaluate(model, attention, seen, **drawings), "guide": {}}
    for name, (guide, _) in guides.items():
        found["guide"][name] = evaluate_guide(
            guide,
            attention,
            **{name: drawings[name] for name in ("image_size", "scenes", "seed")},
        )
    text = json.dumps(found, indent=1) + "\n"
    place = HERE if arguments.recipe == RECIPE else arguments.folder
    (place / "evaluation.json").write_text(text)
    log.info("%s", text)


def _look(recipe: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Write drawings.jpg and guide.jpg."""
    from experiments.mini_pretraining.look import drawings, guide_colours

    last = recipe["clip"]["stages"][-1]["drawings"]
    drawings(HERE / "drawings.jpg", recipe["image_size"], last, recipe["evaluation"]["seed"])
    guide_colours(HERE / "guide.jpg", small_guide("crane-mini-guide/embedded")[0])


def _controls(recipe: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Run the rows of controls.yaml; writes results.csv and results.md."""
    from experiments.mini_pretraining.controls import collect, markdown, run_controls

    controls = yaml.safe_load((HERE / "controls.yaml").read_text())
    rows = arguments.rows or list(controls["rows"])
    run_controls(
        controls, arguments.folder / "controls", arguments.seeds or controls["seeds"], rows
    )
    lines = collect(controls, arguments.folder / "controls", HERE / "results.csv")
    (HERE / "results.md").write_text(markdown(lines) + "\n")


COMMANDS: dict[str, Callable[[dict[str, Any], argparse.Namespace], None]] = {
    "clip": _clip,
    "guide": _guide,
    "export": _export,
    "evaluate": _evaluate,
    "look": _look,
    "controls": _controls,
}
"""Command to its function."""


def main() -> None:
    """Run the command that was typed."""
    parser = argparse.ArgumentParser(prog="python -m experiments.mini_pretraining")
    parser.add_argument("what", choices=["all", *COMMANDS], nargs="+")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for clip and guide")
    parser.add_argument(
        "--steps",
        type=int,
        help="steps of the guide, or of each stage of clip, in place of the recipe's",
    )
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/mini_pretraining"), help="where checkpoints go"
    )
    parser.add_argument("--seeds", type=int, nargs="*", help="seeds of controls")
    parser.add_argument("--rows", nargs="*", help="rows of controls")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="all settings")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("experiments").setLevel(logging.INFO)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    recipe = yaml.safe_load(arguments.recipe.read_text())
    chosen = arguments.what
    if "all" in chosen:
        chosen = ["guide", "clip", "export", "evaluate", "look"]
    for name in chosen:
        COMMANDS[name](recipe, arguments)


if __name__ == "__main__":
    main()
