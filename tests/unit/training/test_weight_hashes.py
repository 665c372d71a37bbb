"""The weights that a run records."""

from crane.config import compose
from crane.files import sha256
from crane.training import weight_hashes
from crane.weights.locate import hub_code_folder


def test_code_of_torch_hub_lies_beside_the_weights_but_is_no_file_of_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = compose(
        "train", ["backbone=tiny", "guide=dinov2_vitb14_reg", f"weights_dir='{tmp_path}'"]
    )
    folder = hub_code_folder(config.guide.features.repo)
    assert folder.is_relative_to(tmp_path)
    folder.mkdir(parents=True)
    assert weight_hashes(config) == {"backbone": "random, seed 0"}
    weights = tmp_path / "dinov2_vitb14_reg4_pretrain.pth"
    weights.write_bytes(b"numbers")
    assert weight_hashes(config) == {weights.name: sha256(weights)}
