"""One of two processes of test_methods_in_processes.py, as torchrun would start it.

Arguments: a JSON file from method to overrides, and a folder. Each method is trained, if it can be,
and tested; its results and its prompts' file go to FOLDER/RANK.json.
"""

import json
import os
import sys
from pathlib import Path

from crane import training
from crane.config import compose
from crane.methods import adaclip


def main(plan: Path, folder: Path) -> None:
    found = {}
    adaclip.rounded = lambda prompts: prompts
    for method, (command, overrides) in json.loads(plan.read_text()).items():
        config = compose(command, [*overrides, f"run_dir={folder / method}"])
        run = training.train(config) if command == "train" else training.test(config, None)
        means = {result.dataset: dict(result.means) for result in run.results}
        found[method] = {"means": means, "prompts": run.checkpoint and str(run.checkpoint)}
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
