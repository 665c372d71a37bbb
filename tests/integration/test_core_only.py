"""A Python with nothing but the core dependencies trains, tests and predicts."""

import subprocess
import sys

import pytest

HIDDEN = ("plotly", "pandas", "tensorboard", "tensorboardX", "wandb_workspaces", "skimage")
"""What the extras install, and what only tests need."""
UNUSED = ("wandb",)
"""A core dependency that these commands do not import."""

CODE = """
import importlib.metadata
import sys

hidden = {hidden!r}


class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *args):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, *args)

    def find_distributions(self, context=importlib.metadata.DistributionFinder.Context()):
        find = getattr(self.finder, "find_distributions", lambda context: ())
        return (one for one in find(context) if (one.name or "").replace("-", "_") not in hidden)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from crane.cli.main import main

for line in {lines!r}:
    sys.argv = ["crane", *line]
    try:
        main()
    except SystemExit as leaving:
        print("code", leaving.code)
print("imported", *sorted({{*hidden}} & set(sys.modules)))
"""


@pytest.fixture
def without(tmp_path):
    """Type commands in a process that cannot import some packages."""

    def run(*lines, hidden=(*HIDDEN, *UNUSED)):
        code = CODE.format(hidden=hidden, lines=[[str(word) for word in line] for line in lines])
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )

    return run


@pytest.mark.long
def test_train_test_and_predict_need_the_core_only(without, tiny, data_sets, tmp_path):
    places = [f"targets.folder.root={data_sets / 'gamma'}", "targets=[folder]"]
    source = [f"source.folder.root={data_sets / 'alpha'}", "source=[folder]"]
    checkpoint = f"checkpoint={tmp_path / 'trained' / 'prompts' / 'epoch_1.safetensors'}"
    quick = ["trainer=cpu", "image_size=56", "trainer.enable_progress_bar=false"]
    done = without(
        ["train", *tiny, *source, *places, "run_dir=trained"],
        ["test", checkpoint, *quick, *places, "data.num_workers=0", "run_dir=tested"],
        ["predict", checkpoint, f"input={data_sets / 'gamma'}", "num_workers=0", "output=scored"],
        ["train", *tiny, *source, *places, "logger=tensorboard"],
        ["report", "tested"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for file in ("trained/results.csv", "tested/results.csv", "scored/scores.csv"):
        assert (tmp_path / file).is_file(), done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "imported"
    assert "tensorboard is not installed; pip install 'crane-ad[tensorboard]'" in done.stderr
    assert "pip install 'crane-ad[report]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("code 2") == 2
