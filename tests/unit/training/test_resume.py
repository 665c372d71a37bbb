"""A training that stops and goes on ends where one that never stopped does, to the last bit."""

import shutil

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from crane import training
from crane.config import compose
from crane.errors import UsageError
from crane.methods import build_model, model_config, read_checkpoint
from crane.training import CraneModule

pytestmark = pytest.mark.long

MOSAICS = ("data.mosaic_rate=0.5", "prompt.context_in_training=0.5")
"""What draws random numbers in a training."""


def prompts(summary):
    return read_checkpoint(summary.checkpoint).prompts


def equal(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_going_on_after_an_epoch_equals_not_stopping(trained, logged, tmp_path):
    chosen = ("data.validation_fraction=0.34", "epoch=best", *MOSAICS)
    straight = trained("straight", "trainer.max_epochs=3", *chosen)
    trained("begun", "trainer.max_epochs=2", *chosen)
    checkpoint = tmp_path / "begun" / "checkpoints" / "last.ckpt"
    gone_on = trained("gone_on", "trainer.max_epochs=3", f"resume={checkpoint}", *chosen)

    for number in (1, 2, 3):
        one, other = (
            read_checkpoint(tmp_path / name / "prompts" / f"epoch_{number}.safetensors")
            for name in ("straight", "gone_on")
        )
        assert equal(one.prompts, other.prompts)
        assert one.info == other.info
    losses = logged(tmp_path / "straight", "train/loss")
    begun = logged(tmp_path / "begun", "train/loss")
    assert begun | logged(tmp_path / "gone_on", "train/loss") == losses
    assert set(begun) < set(losses)
    assert gone_on.checkpoint.name == straight.checkpoint.name
    assert gone_on.checkpoint.parent == tmp_path / "gone_on" / "prompts"
    assert repr(gone_on.results) == repr(straight.results)  # NaN equals no NaN


@pytest.fixture
def stepwise(tiny, use):
    """Train with a checkpoint after every step; gives the losses and the prompts in the end."""
    overrides = [*tiny, *MOSAICS, *use("source", "alpha"), *use("targets")]
    config = compose("train", [*overrides, "data.batch_size=5"])

    def fit(folder, resume=None):
        module = CraneModule(
            build_model(config),
            instantiate(config.loss),
            instantiate(config.optimizer, _convert_="all"),
            instantiate(config.metrics),
            seed=config.seed,
            config=model_config(config),
        )
        losses = {}

        class Note(Callback):
            def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
                losses[trainer.global_step] = (outputs["loss"].item(), batch["index"].tolist())

        every_step = ModelCheckpoint(
            folder, every_n_train_steps=1, save_top_k=-1, filename="{step}"
        )
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=2,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[every_step, Note()],
        )
        trainer.fit(module, instantiate(config.data), ckpt_path=resume)
        return losses, module.model.prompts.state_dict()

    return fit


def test_going_on_after_any_step_equals_not_stopping(stepwise, tmp_path):
    """Twelve images, five a step: three steps an epoch, the last of two images."""
    losses, learned = stepwise(tmp_path / "straight")
    assert sorted(losses) == [1, 2, 3, 4, 5, 6]
    for step in (1, 2, 3, 5):
        checkpoint = tmp_path / "straight" / f"step={step}.ckpt"
        rest, ended_with = stepwise(tmp_path / f"from_{step}", checkpoint)
        assert rest == {number: losses[number] for number in range(step + 1, 7)}
        assert equal(learned, ended_with)


def test_half_an_epoch_is_refused(trained, tmp_path):
    trained("begun", "test=false", "trainer.max_epochs=2", "trainer.max_steps=4")
    checkpoint = tmp_path / "begun" / "checkpoints" / "last.ckpt"
    with pytest.raises(UsageError, match=r"middle of an epoch, which trainer\.max_steps cut short"):
        trained("gone_on", "trainer.max_epochs=2", f"resume={checkpoint}")


def test_another_seed_ends_elsewhere(trained):
    assert not equal(prompts(trained("a", "test=false")), prompts(trained("b", "seed=112")))


def test_resuming_in_place_and_where_earlier_prompts_are_gone(trained, tmp_path, caplog):
    chosen = ("test=false", "data.batch_size=12")
    trained("run", "trainer.max_epochs=1", *chosen)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    summary = trained("run", "trainer.max_epochs=2", f"resume={checkpoint}", *chosen)
    assert summary.checkpoint.name == "epoch_2.safetensors"
    assert "cannot be chosen" not in caplog.text
    shutil.rmtree(tmp_path / "run" / "prompts")
    trained("other", "trainer.max_epochs=3", f"resume={checkpoint}", *chosen)
    assert "no epoch_1.safetensors in" in caplog.text


def test_a_finished_training_resumed_is_tested_all_the_same(trained, tmp_path):
    first = trained("first")
    checkpoint = tmp_path / "first" / "checkpoints" / "last.ckpt"
    again = trained("again", f"resume={checkpoint}")
    assert repr(again.results) == repr(first.results)
    assert equal(prompts(again), prompts(first))


def test_what_cannot_be_resumed_is_refused(trained, tmp_path):
    first = trained("first", "test=false")
    with pytest.raises(UsageError, match=r"resume must be the checkpoints/last\.ckpt of"):
        trained("second", f"resume={first.checkpoint}")
    with pytest.raises(UsageError, match=r"resume must be the checkpoints/last\.ckpt of"):
        trained("second", f"resume={tmp_path / 'nothing.ckpt'}")
    (tmp_path / "a.ckpt").write_bytes(b"garbage")
    with pytest.raises(UsageError, match=r"a\.ckpt is not a checkpoint"):
        trained("second", f"resume={tmp_path / 'a.ckpt'}")
    checkpoint = tmp_path / "first" / "checkpoints" / "last.ckpt"
    with pytest.raises(
        UsageError, match=r"num_words=12.*, not .*num_words=3.*; resume with the same"
    ):
        trained("second", f"resume={checkpoint}", "prompt.num_words=3")


def test_a_resumable_checkpoint_holds_no_tower(trained, tmp_path):
    trained("run", "test=false", "guide=tiny")
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)["state_dict"]
    assert set(state) == {f"model.prompts.{n}" for n in ("words.normal", "words.anomalous", "deep")}
    assert path.stat().st_size < 1_000_000
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


@pytest.fixture(scope="module")
def begun(tiny, use, tmp_path_factory):
    """The folder of a training of two epochs."""
    folder = tmp_path_factory.mktemp("begun")
    data = [*use("source", "alpha"), *use("targets", "gamma")]
    chosen = [*tiny, *data, "trainer.max_epochs=2", "test=false", f"run_dir={folder}"]
    training.train(compose("train", chosen))
    return folder


@pytest.fixture
def go_on(trained, begun):
    """Go on with that training, to three epochs unless told, without a test."""

    def run(*overrides, folder=begun, **changes):
        last = f"resume={folder / 'checkpoints' / 'last.ckpt'}"
        return trained("on", "trainer.max_epochs=3", "test=false", last, *overrides, **changes)

    return run


@pytest.mark.parametrize(
    ("source", "changed", "key"),
    [
        ("beta", "seed=111", r"source\.source\.alpha"),
        ("alpha", "optimizer.lr=0.1", r"optimizer\.lr"),
        ("alpha", "seed=7", "seed"),
        ("alpha", "attention=qq", r"attention\.correlation"),
        ("alpha", "data.k_shot=2", r"data\.k_shot"),
        ("alpha", "scoring.temperature=0.1", r"scoring\.temperature"),
    ],
)
def test_another_training_is_not_gone_on_with(go_on, tmp_path, source, changed, key):
    with pytest.raises(UsageError, match=rf"last\.ckpt was trained with .*{key}.*, not .*{key}"):
        go_on(changed, source=source)
    assert not (tmp_path / "on").exists()


def test_what_does_not_decide_the_prompts_may_change(go_on, tmp_path):
    go_on("scoring.blur_sigma=1", "data.test_batch_size=3", "overlay.tile=50", "logger=none")
    assert (tmp_path / "on" / "prompts" / "epoch_3.safetensors").is_file()


def test_fewer_epochs_than_there_were_are_refused(go_on):
    with pytest.raises(UsageError, match=r"trainer\.max_epochs must be at least 2, .*, not 1"):
        go_on("trainer.max_epochs=1")


def test_a_training_that_was_done_can_be_gone_on_with_from_its_new_folder(go_on, begun, tmp_path):
    go_on("trainer.max_epochs=2")
    first, second = (folder / "checkpoints" / "last.ckpt" for folder in (begun, tmp_path / "on"))
    assert second.read_bytes() == first.read_bytes()


def test_a_linked_folder_is_the_same_folder(go_on, begun, tmp_path):
    shutil.copytree(begun, tmp_path / "on")
    (tmp_path / "link").symlink_to(tmp_path)
    go_on(folder=tmp_path / "link" / "on")
    assert (tmp_path / "on" / "prompts" / "epoch_3.safetensors").is_file()


@pytest.mark.parametrize("lacking", ["optimizer_states", "loops"])
def test_a_checkpoint_without_a_state_is_refused(go_on, begun, tmp_path, lacking):
    content = torch.load(begun / "checkpoints" / "last.ckpt", weights_only=True)
    del content[lacking]
    (tmp_path / "less" / "checkpoints").mkdir(parents=True)
    torch.save(content, tmp_path / "less" / "checkpoints" / "last.ckpt")
    with pytest.raises(UsageError, match=rf"cannot be resumed: it lacks '{lacking}'"):
        go_on(folder=tmp_path / "less")


def test_a_checkpoint_with_nan_in_it_is_refused_before_any_work(go_on, begun, tmp_path):
    content = torch.load(begun / "checkpoints" / "last.ckpt", weights_only=True)
    content["state_dict"]["model.prompts.deep"][0] = torch.nan
    (tmp_path / "nan" / "checkpoints").mkdir(parents=True)
    torch.save(content, tmp_path / "nan" / "checkpoints" / "last.ckpt")
    with pytest.raises(UsageError, match="resume: the prompts under deep hold NaN"):
        go_on(folder=tmp_path / "nan")
    assert not (tmp_path / "on").exists()


def test_a_checkpoint_of_version_0_1_is_resumed(go_on, begun, tmp_path):
    """It names what is built as it was called then."""
    content = torch.load(begun / "checkpoints" / "last.ckpt", weights_only=True)
    for key, text in content["crane"].items():
        content["crane"][key] = text.replace("crane.methods.", "crane.models.")
    assert "crane.models." in content["crane"]["training"]
    (tmp_path / "old" / "checkpoints").mkdir(parents=True)
    torch.save(content, tmp_path / "old" / "checkpoints" / "last.ckpt")
    go_on(folder=tmp_path / "old")
    assert (tmp_path / "on" / "prompts" / "epoch_3.safetensors").is_file()
