"""Importing the method and its training does not import what only some of their options use."""

import subprocess
import sys

import pytest

LATER = ("wandb", "timm", "open_clip", "pandas", "pyarrow", "plotly", "skimage", "tensorboard")
BY_LIGHTNING = ("torchvision", "scipy.signal", "matplotlib")
"""Lightning imports torchmetrics, and with it these; the method alone does not."""
SCRIPT = f"""
import sys
import crane.methods
print([name for name in {(*LATER, *BY_LIGHTNING)} if name in sys.modules])
import crane.training
print([name for name in {LATER} if name in sys.modules])
"""


@pytest.mark.long
def test_heavy_packages_are_imported_where_they_are_used():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["[]", "[]"]
