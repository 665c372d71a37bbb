"""Values that do not fit end a run before any work, naming their key."""

from contextlib import suppress

import pytest
from PIL import Image

from crane.errors import UsageError


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.portion=2.0", "data.portion"),
        ("attention.num_blocks=9", "attention.num_blocks"),
        ("prompt.depth=99", "prompt.depth"),
        ("scoring.temperature=0.0", "scoring.temperature"),
        ("guide=tiny guide.attention.mean=both", "guide.attention.mean"),
        ("attention=none", "attention"),
        ("epoch=2", "epoch"),
        ("epoch=best", "epoch"),
        ("trainer.max_epochs=0", "trainer.max_epochs"),
        ("trainer=gpu", "trainer"),
        ("trainer.precision=17-true", "trainer.precision"),
        ("trainer.accelerator=abacus", "trainer.accelerator"),
        ("seed=-1", "seed"),
        ("seed=1.5", "seed"),
        ("seed=null", "seed"),
        ("loss.dice_weight=-1", "loss.dice_weight"),
        ("scoring.temperature=inf", "scoring.temperature"),
        ("scoring.blur_sigma=nan", "scoring.blur_sigma"),
        ("prompt.words.anomalous=object.", "prompt.words"),
        ("compile=fast", "compile"),
        ("cache.source=sometimes", "cache.source"),
        ("optimizer.lr=-1.0", "optimizer"),
        ("resume=last.ckpt", "resume"),
        ("overlay.choose=nicest", "overlay.choose"),
    ],
)
def test_values_that_do_not_fit_name_their_key(trained, tmp_path, override, key):
    with pytest.raises(UsageError) as caught:
        trained("run", *override.split())
    assert key in str(caught.value.key).split(" or ")
    assert key.partition(".")[0] in str(caught.value), "and the sentence says which"
    assert not (tmp_path / "run").exists()


def test_a_training_that_diverges_ends_there_and_keeps_no_prompts(trained, tmp_path):
    with pytest.raises(UsageError, match=r"NaN or infinity after epoch 1; lower optimizer\.lr"):
        trained("run", "optimizer.lr=1e38")
    assert not list((tmp_path / "run").glob("prompts/*"))


def test_pictures_that_cannot_be_written_cost_no_numbers(trained, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with suppress(OSError, UsageError):
        trained("run", "overlay.num_anomalous=2")
    assert (tmp_path / "run" / "results.csv").is_file()
    assert (tmp_path / "run" / "results.json").is_file()
