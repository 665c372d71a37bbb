"""Whole runs: train on one data set and test on many, or test a checkpoint."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from crane.checks import Seed, check_value
from crane.config import flat, plain
from crane.data import CraneDataModule
from crane.errors import UsageError
from crane.files import sha256
from crane.gate import build, renamed
from crane.identity import Effect, decisive
from crane.methods import (
    Detector,
    PromptCheckpoint,
    build_model,
    compile_towers,
    model_config,
    read_checkpoint,
)
from crane.pictures import OverlayOptions
from crane.runs import DatasetResult, RunRecord, begin_record, write_record
from crane.training.callbacks import KeepPrompts, ProgressBar, WriteTestResults
from crane.training.features import check_cache, use_features
from crane.training.module import CraneModule
from crane.training.trainers import StopWhenTold, ending_together
from crane.training.wandb_logging import LogToWandb, closing, log_prompts
from crane.views import View, build_view
from crane.weights import RANDOM, weight_status, weights_needed

PROMPTS_FOLDER = "prompts"
"""Name of the folder of prompts in a training's folder."""


@dataclass(frozen=True)
class RunSummary:
    """The outcome of a run."""

    folder: Path
    """Folder of everything that was written."""
    checkpoint: Path | None
    """What was tested, or that of the last epoch; None for methods that train nothing."""
    results: tuple[DatasetResult, ...]
    """Results of each target."""
    overlays: tuple[Path, ...]
    """Pictures of test images."""


def train(config: DictConfig) -> RunSummary:
    """Learn prompts on the sources of a configuration, then test on its targets.

    Args:
        config: Configuration of `crane train`.

    Returns:
        The files written, and the results.

    Raises:
        UsageError: Something in the configuration does not fit, reported before any work where
            possible.
    """
    _start(config)
    data: CraneDataModule = build(config.data, "data")
    if not data.source:
        raise UsageError(
            "no data set to train on; choose one, such as source=[mvtec]", key="source"
        )
    data.explain()
    data.check_labels()
    model = build_model(config)
    if not model.is_trainable:
        raise UsageError(
            f"{config.method.name} has nothing to train; crane test method=… needs no checkpoint",
            key="method",
        )
    compile_towers(model, config.compile)
    loss = build(config.loss, "loss")
    optimizer = build(config.optimizer, "optimizer")
    scheduler = None if config.scheduler is None else build(config.scheduler, "scheduler")
    more = [build(node, f"callbacks.{name}") for name, node in config.callbacks.items()]
    sources = {k: v for k, v in data.fingerprints().items() if k.startswith("source.")}
    facts = training_facts(config, sources)
    parts: dict[str, Any] = {"loss": loss, "optimizer": optimizer, "scheduler": scheduler}
    parts["view"] = _look(config, data)
    module = _module(config, model, **parts, training=facts)
    module.configure_optimizers()  # its errors come now, not after the work

    folder = Path(config.run_dir)
    resume = resumed(config.resume, facts)
    earlier = None if resume is None else resume.parents[1] / PROMPTS_FOLDER
    keep = KeepPrompts(folder / PROMPTS_FOLDER, config.monitor, sources, earlier)
    keep.check_choice(config.epoch, config.trainer.max_epochs, data.num_validation)
    resumable = ModelCheckpoint(
        folder / "checkpoints", filename="last", save_top_k=1, enable_version_counter=False
    )
    write = _write_results(config, data)
    trainer = _trainer(config, [keep, resumable, write, LogToWandb(write), *more])
    data.check_shares(trainer.world_size)
    with ending_together(trainer), closing(trainer.logger):
        record = _begin(config, trainer, data, weight_hashes(config))
        use_features(config, trainer, module, data)
        trainer.fit(module, data, ckpt_path=resume)

        chosen = keep.choose(config.epoch, last=trainer.current_epoch)
        if trainer.is_global_zero:
            _copy_resumed(resume, folder / "checkpoints")
            log_prompts(trainer.logger, chosen, {"epoch": chosen.stem, "sources": sources})
        if config.test and data.targets:
            prompts = read_checkpoint(chosen).prompts if trainer.is_global_zero else {}
            model.load_learned(trainer.strategy.broadcast(prompts))
            trainer.test(module, data, verbose=False)
        _end(config, trainer, record)
    return RunSummary(folder, chosen, module.results, tuple(write.files))


def _start(config: DictConfig) -> None:
    check_value(config.seed, Seed, "seed")
    check_cache(config)
    seed_everything(config.seed, workers=True, verbose=False)


def test(config: DictConfig, checkpoint: PromptCheckpoint | None) -> RunSummary:
    """Test learned prompts on the targets of a configuration.

    Args:
        config: Configuration of `crane test` that holds the checkpoint's model (`adopt_config`).
        checkpoint: The prompts.

    Raises:
        UsageError: Something in the configuration does not fit.
    """
    _start(config)
    data: CraneDataModule = build(config.data, "data")
    if not data.targets:
        raise UsageError(
            "no data set to test on; choose one, such as targets=[visa]", key="targets"
        )
    data.explain()
    model = build_model(config)
    if checkpoint is not None:
        model.load_learned(checkpoint.prompts)
    compile_towers(model, config.compile)
    view = _look(config, data)
    module = _module(config, model, loss=None, optimizer=None, view=view)

    folder = Path(config.run_dir)
    prompts = None if checkpoint is None else Path(config.checkpoint).expanduser()
    write = _write_results(config, data)
    trainer = _trainer(config, [write, LogToWandb(write)])
    data.check_shares(trainer.world_size)
    weights = dict(weight_hashes(config))
    if prompts is not None:
        weights["prompts"] = sha256(prompts)
    with ending_together(trainer), closing(trainer.logger):
        record = _begin(config, trainer, data, weights)
        use_features(config, trainer, module, data)
        trainer.test(module, data, verbose=False)
        _end(config, trainer, record)
    return RunSummary(folder, prompts, module.results, tuple(write.files))


def _look(config: DictConfig, data: CraneDataModule) -> View:
    """The view of a configuration; data load what it needs of targets."""
    view = build_view(config)
    if not view.is_whole or view.resolution == "own":
        data.use_own_size(None if view.resolution == "own" else config.image_size)
    return view


def _write_results(config: DictConfig, data: CraneDataModule) -> WriteTestResults:
    options: OverlayOptions = build(config.overlay, "overlay")
    return WriteTestResults(Path(config.run_dir), data.targets, options)


def _begin(
    config: DictConfig, trainer: Trainer, data: CraneDataModule, weights: Mapping[str, str]
) -> RunRecord:
    """Write the record before the work, so that an interrupted run can be understood."""
    record = begin_record(
        seed=config.seed,
        device=f"{trainer.num_nodes} x {trainer.num_devices} {trainer.strategy.root_device.type}",
        data=data.fingerprints(),
        weights=weights,
    )
    if trainer.is_global_zero:
        write_record(Path(config.run_dir), record, plain(config))
    if trainer.logger is not None:
        trainer.logger.log_hyperparams(plain(config))
    return record


def _end(config: DictConfig, trainer: Trainer, record: RunRecord) -> None:
    if trainer.is_global_zero:
        write_record(Path(config.run_dir), record.finished(), plain(config))


def _module(config: DictConfig, model: Detector[Any, Any], **parts: Any) -> CraneModule:
    evaluate = build(config.metrics, "metrics")
    return CraneModule(
        model, evaluate=evaluate, seed=config.seed, config=model_config(config), **parts
    )


def _trainer(config: DictConfig, callbacks: list[Callback]) -> Trainer:
    if config.trainer.enable_progress_bar is True:
        callbacks = [*callbacks, ProgressBar(config.trainer.log_every_n_steps)]
    callbacks = [*callbacks, StopWhenTold()]
    run_logger = build(config.logger, "logger") if config.logger is not None else False
    trainer: Trainer = build(config.trainer, "trainer", callbacks=callbacks, logger=run_logger)
    return trainer


def resumed(path: str | None, facts: Mapping[str, Any]) -> Path | None:
    """Find the Lightning checkpoint from which a training continues.

    Args:
        path: Value of `resume`; None for a new training.
        facts: Facts of this training, see `training_facts`.

    Returns:
        The file's absolute path.

    Raises:
        UsageError: There is no such file, or it belongs to another training.
    """
    if path is None:
        return None
    file = Path(path).expanduser().resolve()
    if not file.is_file() or file.suffix != ".ckpt":
        raise UsageError(
            f"must be the checkpoints/last.ckpt of a training, not {path}", key="resume"
        )
    # Reading it here refuses code too, which some versions of Lightning would run.
    earlier = read_checkpoint(file, key="resume").info.get("training", {})
    was = {k: renamed(v) if isinstance(v, str) else v for k, v in flat(earlier).items()}
    now = flat(facts)
    differing = [key for key in was if was[key] != now.get(key)]
    if differing:
        raise UsageError(
            f"{path} was trained with {_listed(differing, was)}, not {_listed(differing, now)}; "
            "resume with the same values, or start a new training",
            key="resume",
        )
    return file


def training_facts(config: DictConfig, sources: Mapping[str, str]) -> dict[str, Any]:
    """The facts that must not change when a training is resumed.

    Args:
        config: Configuration of `crane train`.
        sources: Fingerprint of each source data set.
    """
    kept = decisive(plain(config), {Effect.PROMPTS, Effect.SEED})
    kept = {key: value for key, value in kept.items() if not key.startswith("source.")}
    return {"source": dict(sources), **kept}


def _copy_resumed(resume: Path | None, folder: Path) -> None:
    """Copy the resumed checkpoint into the new folder if no new one was saved."""
    if resume is not None and not (folder / "last.ckpt").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(resume, folder / "last.ckpt")


def _listed(keys: list[str], values: Mapping[str, Any]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(f"{key}={values.get(key, 'none')}" for key in keys[:3]) + more


def weight_hashes(config: DictConfig) -> Mapping[str, str]:
    """The SHA-256 of every weight file of the model; code of torch.hub has none."""
    needed = weights_needed(plain(config))
    found = {name: weight_status(name, config.weights_dir, verify=False) for name in needed}
    files = {name: s.path for name, s in found.items() if s.path is not None and s.path.is_file()}
    hashes = {name: sha256(path) for name, path in files.items()}
    return hashes or {"backbone": f"{RANDOM}, seed {config.backbone.model.seed}"}
