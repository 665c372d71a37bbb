"""Whole runs: train on one data set and test on many, or test a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from crane.config import plain
from crane.data import CraneDataModule
from crane.errors import UsageError
from crane.files import sha256
from crane.gate import build
from crane.methods import Crane, build_model, compile_towers, load_prompts, model_config
from crane.methods.checkpoint import PromptCheckpoint, read_checkpoint
from crane.pictures import PanelStyle
from crane.runs import (
    DatasetResult,
    RunRecord,
    begin_record,
    write_record,
    write_results_csv,
    write_results_json,
)
from crane.training.callbacks import DrawOverlays, KeepFindings, KeepPrompts
from crane.training.features import use_features
from crane.training.loggers import closing
from crane.training.module import CraneModule
from crane.training.processes import StopWhenTold, check_processes, ending_together
from crane.training.progress import ProgressBar
from crane.training.resuming import bring_checkpoint, resumed, training_facts
from crane.training.wandb_runs import LogToWandb, log_prompts
from crane.weights import RANDOM, weight_status, weights_needed

NUM_SEEDS = 2**32
"""Seeds are below it, as numpy's are."""

PROMPTS_FOLDER = "prompts"
"""Where a training keeps its prompts, in its folder."""


@dataclass(frozen=True)
class RunSummary:
    """What a run leaves behind."""

    folder: Path
    """Where everything was written."""
    checkpoint: Path
    """The prompts that were tested, or of the last epoch."""
    results: tuple[DatasetResult, ...]
    """One for each target."""
    overlays: tuple[Path, ...]
    """Pictures of test images."""


def train(config: DictConfig) -> RunSummary:
    """Learn prompts on the sources of a configuration, then test on its targets.

    Args:
        config: Of `crane train`.

    Returns:
        What was written, and the results.

    Raises:
        UsageError: Something in the configuration does not fit; most of it before any work.
    """
    _seed(config.seed)
    data: CraneDataModule = build(config.data, "data")
    if not data.source:
        raise UsageError("at least one source data set", "none", key="source")
    model = build_model(config)
    compile_towers(model, config.compile)
    loss = build(config.loss, "loss")
    optimizer = build(config.optimizer, "optimizer")
    sources = {k: v for k, v in data.fingerprints().items() if k.startswith("source.")}
    facts = training_facts(config, sources)
    module = _module(config, model, loss=loss, optimizer=optimizer, training=facts)
    module.configure_optimizers()  # what it refuses, it refuses now

    folder = Path(config.run_dir)
    resume = resumed(config.resume, facts)
    earlier = None if resume is None else resume.parents[1] / PROMPTS_FOLDER
    keep = KeepPrompts(folder / PROMPTS_FOLDER, config.monitor, sources, earlier)
    keep.check_choice(config.epoch, config.trainer.max_epochs, data.num_validation)
    resumable = ModelCheckpoint(
        folder / "checkpoints", filename="last", save_top_k=1, enable_version_counter=False
    )
    draw = _draw_overlays(config, data)
    trainer = _trainer(
        config, [keep, resumable, draw, _keep_findings(config, data), LogToWandb(draw)]
    )
    data.check_shares(trainer.world_size)
    with ending_together(trainer), closing(trainer.logger):
        record = _begin(config, trainer, data, weight_hashes(config))
        use_features(config, trainer, module, data)
        trainer.fit(module, data, ckpt_path=resume)

        chosen = keep.choose(config.epoch, last=trainer.current_epoch)
        if trainer.is_global_zero:
            bring_checkpoint(resume, folder / "checkpoints")
            log_prompts(trainer.logger, chosen, {"epoch": chosen.stem, "sources": sources})
        if config.test and data.targets:
            prompts = read_checkpoint(chosen).prompts if trainer.is_global_zero else {}
            load_prompts(model, trainer.strategy.broadcast(prompts))
            _test(trainer, module, data, folder)
        _end(config, trainer, record)
    return RunSummary(folder, chosen, module.results, tuple(draw.files))


def _seed(seed: int) -> None:
    if not 0 <= seed < NUM_SEEDS:
        raise UsageError(f"a number from 0 to {NUM_SEEDS - 1}", seed, key="seed")
    seed_everything(seed, workers=True, verbose=False)


def test(config: DictConfig, checkpoint: PromptCheckpoint) -> RunSummary:
    """Test learned prompts on the targets of a configuration.

    Args:
        config: Of `crane test`, with the checkpoint's model in it (`adopt_config`).
        checkpoint: The prompts.

    Raises:
        UsageError: Something in the configuration does not fit.
    """
    _seed(config.seed)
    data: CraneDataModule = build(config.data, "data")
    if not data.targets:
        raise UsageError("at least one target data set", "none", key="targets")
    model = build_model(config)
    load_prompts(model, checkpoint.prompts)
    compile_towers(model, config.compile)
    module = _module(config, model, loss=None, optimizer=None)

    folder, prompts = Path(config.run_dir), Path(config.checkpoint).expanduser()
    draw = _draw_overlays(config, data)
    trainer = _trainer(config, [draw, _keep_findings(config, data), LogToWandb(draw)])
    data.check_shares(trainer.world_size)
    weights = {**weight_hashes(config), "prompts": sha256(prompts)}
    with ending_together(trainer), closing(trainer.logger):
        record = _begin(config, trainer, data, weights)
        use_features(config, trainer, module, data)
        _test(trainer, module, data, folder)
        _end(config, trainer, record)
    return RunSummary(folder, prompts, module.results, tuple(draw.files))


def _test(trainer: Trainer, module: CraneModule, data: CraneDataModule, folder: Path) -> None:
    """Test on every target and write the tables."""
    trainer.test(module, data, verbose=False)
    if trainer.is_global_zero:
        write_results_csv(module.results, folder / "results.csv")
        write_results_json(module.results, folder / "results.json")


def _draw_overlays(config: DictConfig, data: CraneDataModule) -> DrawOverlays:
    overlay = config.overlay
    return DrawOverlays(
        Path(config.run_dir) / "overlays",
        data.targets,
        style=_style(config),
        choose=overlay.choose,
        num_anomalous=overlay.num_anomalous,
        num_normal=overlay.num_normal,
        num_columns=overlay.num_columns,
    )


def _keep_findings(config: DictConfig, data: CraneDataModule) -> KeepFindings:
    return KeepFindings(
        Path(config.run_dir),
        data.targets,
        style=_style(config),
        num_anomalous=config.overlay.gallery.num_anomalous,
        num_normal=config.overlay.gallery.num_normal,
    )


def _style(config: DictConfig) -> PanelStyle:
    overlay = config.overlay
    return PanelStyle(build(overlay.scale, "overlay.scale"), overlay.alpha, overlay.tile)


def _begin(
    config: DictConfig, trainer: Trainer, data: CraneDataModule, weights: Mapping[str, str]
) -> RunRecord:
    """Write what the run is before it begins, so that one cut short can be understood."""
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


def _module(config: DictConfig, model: Crane, **parts: Any) -> CraneModule:
    evaluate = build(config.metrics, "metrics")
    return CraneModule(
        model, evaluate=evaluate, seed=config.seed, config=model_config(config), **parts
    )


def _trainer(config: DictConfig, callbacks: list[Callback]) -> Trainer:
    if config.trainer.enable_progress_bar:
        callbacks = [*callbacks, ProgressBar(config.trainer.log_every_n_steps)]
    callbacks = [*callbacks, StopWhenTold()]
    run_logger = build(config.logger, "logger") if config.logger is not None else False
    try:
        trainer: Trainer = build(config.trainer, "trainer", callbacks=callbacks, logger=run_logger)
    except InstantiationException as error:
        if not isinstance(error.__cause__, (MisconfigurationException, ValueError)):
            raise
        wanted = "a trainer that Lightning knows and this machine has"
        raise UsageError(wanted, str(error.__cause__), key="trainer") from error
    check_processes(trainer)
    return trainer


def weight_hashes(config: DictConfig) -> Mapping[str, str]:
    """The sha256 of every weight file that the model was made of; code of torch.hub is none."""
    needed = weights_needed(plain(config))
    found = {name: weight_status(name, config.weights_dir, verify=False) for name in needed}
    files = {name: s.path for name, s in found.items() if s.path is not None and s.path.is_file()}
    hashes = {name: sha256(path) for name, path in files.items()}
    return hashes or {"backbone": f"{RANDOM}, seed {config.backbone.model.seed}"}
