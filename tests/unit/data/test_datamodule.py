import logging
import socket
from dataclasses import replace

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import multiprocessing

from crane.data import CraneDataModule, index_folder
from crane.errors import UsageError

PUBLISHED = {
    "image_size": 8,
    "batch_size": 3,
    "test_batch_size": 4,
    "num_workers": 0,
    "seed": 111,
    "validation_fraction": 0.0,
    "k_shot": 0,
    "portion": 1.0,
    "mosaic_rate": 0.0,
    "mosaic_anomalous_rate": 0.2,
    "drop_last": False,
    "resizer": "pil",
    "strict": True,
}


@pytest.fixture
def other(tmp_path, write):
    write.classed(tmp_path / "other" / "screw", num_normal=2, num_anomalous=1)
    return index_folder("other", tmp_path / "other", "test", mask_threshold=0)


def module(source, targets=None, **changes):
    return CraneDataModule(source, targets or {}, **{**PUBLISHED, **changes})


def indices(loader):
    return [i for batch in loader for i in batch["index"].tolist()]


def test_published_protocol_trains_on_everything(mvtec, other):
    data = module({"mvtec": mvtec}, {"other": other})
    assert sorted(indices(data.train_dataloader())) == list(range(16))
    assert data.val_dataloader() == []
    assert (data.num_train, data.num_validation) == (16, 0)
    assert data.has_masks
    assert data.source_class_names == ("bottle", "cable")


def test_tests_each_target_in_order(mvtec, other):
    data = module(None, {"other": other, "mvtec": mvtec})
    assert tuple(data.targets) == ("other", "mvtec")
    assert [indices(loader) for loader in data.test_dataloader()] == [
        list(range(3)),
        list(range(16)),
    ]
    assert not data.has_masks


def test_validation_is_held_out(mvtec, other):
    data = module({"mvtec": mvtec, "other": other}, validation_fraction=0.25)
    (loader,) = data.val_dataloader()
    training, held = indices(data.train_dataloader()), indices(loader)
    assert not set(training) & set(held)
    assert sorted(training + held) == list(range(19))
    assert (len(held), data.num_validation) == (5, 5)
    assert data.source_class_names == ("mvtec/bottle", "mvtec/cable", "other/screw")
    assert max(int(batch["class_id"].max()) for batch in loader) == 2


def test_every_process_needs_something_to_do(mvtec, other):
    """Of several targets only the largest matters: a process may see nothing of the others."""
    module({"mvtec": mvtec}, {"mvtec": mvtec, "other": other}).check_shares(16)
    module({"mvtec": mvtec}).check_shares(64)  # nothing held out, no target
    with pytest.raises(
        UsageError,
        match=r"4 processes need an image each, but 3 are in the largest target.*trainer\.devices",
    ):
        module({"mvtec": mvtec}, {"other": other}).check_shares(4)
    held = module({"mvtec": mvtec}, validation_fraction=0.25)
    with pytest.raises(
        UsageError, match=r"5 processes need an image each, but 4 are held out.*trainer\.devices"
    ):
        held.check_shares(5)


def test_shots_and_portions(mvtec):
    assert module({"mvtec": mvtec}, k_shot=4).num_train == 8
    assert module({"mvtec": mvtec}, portion=0.5).num_train == 8
    both = module({"mvtec": mvtec}, k_shot=2, validation_fraction=0.25)
    assert (both.num_train, both.num_validation) == (4, 4)


def test_last_batch_is_kept_unless_told(mvtec):
    assert len(module({"mvtec": mvtec}).train_dataloader()) == 6
    assert len(module({"mvtec": mvtec}, drop_last=True).train_dataloader()) == 5
    with pytest.raises(
        UsageError,
        match=r"16 training images per process are less than one batch of 99.*data\.drop_last",
    ):
        module({"mvtec": mvtec}, drop_last=True, batch_size=99).train_dataloader()


def test_works_without_masks(mvtec):
    bare = replace(mvtec, samples=tuple(replace(s, mask=None) for s in mvtec.samples))
    data = module({"mvtec": bare})
    assert not data.has_masks
    assert not any(batch["has_mask"].any() for batch in data.train_dataloader())


def test_fingerprints_name_every_part(mvtec, other):
    prints = module({"mvtec": mvtec}, {"other": other}).fingerprints()
    assert prints == {
        "source.mvtec": mvtec.fingerprint(),
        "targets.other": other.fingerprint(),
    }


def test_a_target_that_is_the_source_is_told(mvtec, other, caplog):
    with caplog.at_level(logging.WARNING):
        module({"mvtec": mvtec}, {"other": other})
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        module({"mvtec": mvtec}, {"again": mvtec})
    assert "16 of 16 images of target again are also in the source" in caplog.text


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"batch_size": "8"}, "batch_size"),
        ({"batch_size": None}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"test_batch_size": 0}, "test_batch_size"),
        ({"image_size": 0}, "image_size"),
        ({"num_workers": -1}, "num_workers"),
        ({"num_workers": "many"}, "num_workers"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"validation_fraction": float("nan")}, "validation_fraction"),
        ({"validation_fraction": "0.1"}, "validation_fraction"),
        ({"validation_fraction": False}, "validation_fraction"),
        ({"portion": 0.0}, "portion"),
        ({"portion": 1.5}, "portion"),
        ({"portion": 0.5, "k_shot": 2}, "data.k_shot or data.portion"),
        ({"k_shot": 3}, "k_shot"),
        ({"k_shot": 1}, "k_shot"),
        ({"k_shot": -2}, "k_shot"),
        ({"k_shot": 2.0}, "k_shot"),
        ({"k_shot": True}, "k_shot"),
        ({"drop_last": 1}, "drop_last"),
        ({"strict": "no"}, "strict"),
        ({"resizer": "cv2"}, "resizer"),
        ({"mosaic_rate": 1.1}, "mosaic_rate"),
        ({"mosaic_anomalous_rate": -0.1}, "mosaic_anomalous_rate"),
    ],
)
def test_values_out_of_range_name_their_key(mvtec, changes, key):
    with pytest.raises(UsageError, match=key) as caught:
        module({"mvtec": mvtec}, **changes)
    assert caught.value.key == key


def test_missing_data_sets_name_their_key(mvtec):
    with pytest.raises(UsageError, match=r"no data set to train on; set source=\[NAME\]"):
        module({}).train_dataloader()
    with pytest.raises(UsageError, match=r"no data set to test on; set targets=\[NAME\]"):
        module({"mvtec": mvtec}).test_dataloader()


class Recorder(LightningModule):
    """Learns nothing; remembers which images it was shown."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.shown = []

    def training_step(self, batch, batch_idx):
        self.shown.append(batch["index"].tolist())
        return self.weight * 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(data, folder, max_steps, resume=None, **options):
    model = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        use_distributed_sampler=False,
        logger=False,
        callbacks=[ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)],
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(model, data, ckpt_path=resume)
    return model.shown, trainer.checkpoint_callback.best_model_path


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("num_steps", [2, 6, 8])
@pytest.mark.filterwarnings("ignore")
def test_resuming_equals_not_stopping(mvtec, tmp_path, num_workers, num_steps):
    # 6 batches an epoch: stopped in the first epoch, between epochs, and in the second.
    options = {"num_workers": num_workers, "mosaic_rate": 0.5}
    whole, _ = fit(module({"mvtec": mvtec}, **options), tmp_path / "whole", 13)
    first, path = fit(module({"mvtec": mvtec}, **options), tmp_path / "cut", num_steps)
    rest, _ = fit(module({"mvtec": mvtec}, **options), tmp_path / "cut", 13, resume=path)
    assert first == whole[:num_steps]
    assert rest == whole[num_steps:]
    assert whole[:6] != whole[6:12]


@pytest.mark.filterwarnings("ignore")
def test_overfitting_a_few_batches_works(mvtec, tmp_path):
    shown, _ = fit(module({"mvtec": mvtec}), tmp_path, 4, overfit_batches=2)
    assert shown == [[0, 1, 2], [3, 4, 5]] * 2


def share(rank, port, index, results):
    """One of three gloo processes; runs in a child."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=3
    )
    data = module({"mvtec": index}, {"few": replace(index, samples=index.samples[:2])})
    training = data.train_dataloader()
    training.sampler.set_epoch(1)
    results[rank] = (indices(training), indices(data.test_dataloader()[0]))
    torch.distributed.destroy_process_group()


def test_three_processes_share_the_images(mvtec):
    with multiprocessing.get_context("fork").Manager() as manager:
        results = manager.dict()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        multiprocessing.start_processes(
            share, (port, mvtec, results), nprocs=3, start_method="fork"
        )
        training, testing = zip(*[results[rank] for rank in range(3)], strict=True)
    assert {len(part) for part in training} == {6}
    assert {i for part in training for i in part} == set(range(16))
    assert list(testing) == [[0], [1], []]


def test_resizer_and_counts_are_keys(mvtec, caplog):
    with pytest.raises(UsageError, match=r"resizer must be pil, pil_bilinear or torch, not 'cv2'"):
        module({"mvtec": mvtec}, resizer="cv2")
    exact, fast = (module({"mvtec": mvtec}, resizer=r) for r in ("pil", "torch"))
    batches = [next(iter(data.train_dataloader())) for data in (exact, fast)]
    assert (batches[0]["image"] - batches[1]["image"]).abs().max() < 2.01 / 255
    other = replace(mvtec, mismatches=("bottle: 4 images, not 5",))
    for group in ({"source": {"mvtec": other}}, {"source": None, "targets": {"mvtec": other}}):
        with pytest.raises(UsageError, match=r"not 5; .*data\.strict=false"):
            module(**group)
    module({"mvtec": other}, strict=False)
    assert "mvtec is not the published data set: bottle: 4 images, not 5" in caplog.text
