"""Values that do not fit end a run before any work, naming their key."""

import pytest

from crane.cli.mistakes import usage_error


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.portion=2.0", "data.portion"),
        ("attention.num_blocks=9", "attention.num_blocks"),
        ("prompt.depth=99", "prompt.depth"),
        ("scoring.temperature=0.0", "scoring.temperature"),
        ("guide=tiny guide.attention.mean=both", "guide.attention.mean"),
        ("attention=none", "attention or guide"),
        ("epoch=2", "epoch"),
        ("epoch=best", "data.validation_fraction or epoch"),
        ("trainer.max_epochs=0", "trainer.max_epochs"),
        ("trainer=gpu", "trainer"),
        ("resume=last.ckpt", "resume"),
        ("overlay.choose=nicest", "overlay.choose"),
    ],
)
def test_values_that_do_not_fit_name_their_key(trained, tmp_path, override, key):
    with pytest.raises(Exception, match="expected ") as caught:
        trained("run", *override.split())
    mistake = usage_error(caught.value)
    assert mistake is not None
    assert mistake.key == key
    assert not (tmp_path / "run").exists()
