"""`crane COMMAND`: each command is a Hydra app."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from crane.cli.folders import own_folder
from crane.cli.help import command_help, overview
from crane.cli.job_names import job_folder, with_job_names
from crane.cli.mistakes import check_complete, usage_error
from crane.cli.objective import with_direction
from crane.cli.overrides import check_overrides, check_sweep, with_quotes, with_short_names
from crane.cli.words import with_words
from crane.config import conf_dir
from crane.errors import UsageError

Command = Callable[[DictConfig], float | None]

COMMANDS = {
    "train": "crane.cli.commands",
    "test": "crane.cli.commands",
    "predict": "crane.cli.commands",
    "weights": "crane.cli.commands",
    "demo": "crane.cli.demo",
    "report": "crane.cli.report",
    "workspace": "crane.cli.workspace",
    "reproduce": "crane.cli.reproduce",
    "data": "crane.cli.data",
    "cache": "crane.cli.cache",
}
"""Command to the module that has a function of its name; imported when it runs."""

MULTIRUN = ("-m", "--multirun")

REMARKS = (
    r"Experiment logs directory",  # the logger and the results share a run's folder
    r".*module\(s\) in eval mode at the start of training",  # the frozen towers, as they should be
    r".*is smaller than the logging interval",
    r".*does not have many workers",  # num_workers=auto has chosen
    r".*isinstance\(treespec, LeafSpec\)",
    r"The dirpath has changed",  # a resumed run has a folder of its own
    r"Checkpoint directory .* exists and is not empty",  # or the same
    r"It is recommended to use `self.log\(.*sync_dist=True",  # the metrics are of all processes
    r"Total length of `list` across ranks is zero",  # without held-out images
)
"""Warnings of Lightning about what is meant to be so."""

OmegaConf.register_new_resolver("crane.job_folder", job_folder, replace=True)


def _own_folder(name: str) -> str:
    try:
        return own_folder(name)
    except UsageError as error:  # Hydra would show where in its configuration it was asked for
        _refuse(error)


# Asked once for a run: a second question would find the folder taken.
OmegaConf.register_new_resolver("crane.own_folder", _own_folder, replace=True, use_cache=True)


def main() -> None:
    """Run the command named first; exits with 2 on a user's mistake."""
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if name in ("-h", "--help"):
        overview(COMMANDS)
        return
    try:
        if name not in COMMANDS:
            raise UsageError(f"a command out of {', '.join(COMMANDS)}", name)
        if {"-h", "--help"} & set(arguments):
            command_help(name)
            return
        is_multirun = bool(set(MULTIRUN) & set(arguments))
        arguments = with_short_names(with_words(name, arguments))
        arguments = with_quotes(arguments, at_commas=is_multirun)
        # argparse would refuse -m between overrides.
        arguments.sort(key=lambda argument: argument not in MULTIRUN)
        check_overrides(name, arguments)
        if is_multirun:
            _check_alone()
            check_sweep(arguments)
            arguments = with_direction(with_job_names(arguments))
    except UsageError as error:
        _refuse(error)
    script, sys.argv = sys.argv[0], [f"crane {name}", *arguments]
    with import_module("crane.cli.sweeps").summed_up() if is_multirun else nullcontext():
        hydra.main(config_path=str(conf_dir()), config_name=name, version_base="1.3")(
            Job(name, script)
        )()


@dataclass(frozen=True)
class Job:
    """What Hydra runs once, or for each combination of a multirun; launchers send it elsewhere."""

    name: str
    """The command."""
    script: str
    """What was typed before it."""

    def __call__(self, config: DictConfig) -> float | None:
        """Run the command; a mistake of the user's ends with exit code 2."""
        _quieten()  # here, as this may be another process than that of `main`
        command: Command = getattr(import_module(COMMANDS[self.name]), self.name)
        config.run_dir = str(Path(config.run_dir).expanduser())
        # Lightning starts further processes with these arguments; all are to do this one job.
        sys.argv = [self.script, self.name, *HydraConfig.get().overrides.task]
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            sys.argv.append(f"run_dir={QuotedString(config.run_dir, Quote.single).with_quotes()}")
        try:
            check_complete(config)
            return command(config)
        except Exception as error:
            mistake = usage_error(error)
            if mistake is None:
                raise
            _refuse(mistake)


def _check_alone() -> None:
    """Refuse a multirun in each of several processes: all would do all jobs."""
    num_processes = max(
        int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
    )
    if num_processes > 1:
        raise UsageError(
            "one process for a multirun, which starts those of its jobs itself",
            f"{num_processes} of them, started by torchrun or srun",
            key="trainer.devices or hydra/launcher",
        )


def _quieten() -> None:
    for remark in REMARKS:
        warnings.filterwarnings("ignore", message=remark)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _refuse(error: UsageError) -> NoReturn:
    print(f"crane: {error}", file=sys.stderr)
    raise SystemExit(2)
