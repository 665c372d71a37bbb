"""`crane COMMAND`: each command is a Hydra app."""

import logging
import os
import signal
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
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from crane import __version__
from crane.checks import one_of
from crane.cli.arguments import Arguments
from crane.cli.help import COMPLETION_FLAGS, command_help, complete, overview
from crane.cli.launch import (
    check_alone,
    ending_on_sigterm,
    job_folder,
    own_folder,
    resumption,
)
from crane.cli.validation import (
    check_arguments,
    check_configuration,
    check_files,
    removed_key,
)
from crane.config import conf_dir
from crane.errors import UsageError, usage_error
from crane.terminal import accept_any_text

Command = Callable[[DictConfig], float | None]

COMMANDS = {
    "train": "crane.cli.commands",
    "test": "crane.cli.commands",
    "predict": "crane.cli.commands",
    "serve": "crane.cli.commands",
    "app": "crane.cli.commands",
    "export": "crane.cli.commands",
    "weights": "crane.cli.on_disk",
    "demo": "crane.cli.commands",
    "report": "crane.cli.report",
    "workspace": "crane.cli.report",
    "reproduce": "crane.cli.reproduce",
    "data": "crane.cli.data",
    "cache": "crane.cli.on_disk",
}
"""Command to the module that has a function of its name; imported when it runs."""

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
        _leave(error)


# Asked once for a run: a second question would find the folder taken.
OmegaConf.register_new_resolver("crane.own_folder", _own_folder, replace=True, use_cache=True)


def main() -> None:
    """Run the command named first.

    Exits with 2 on what the user can mend, with 130 on Ctrl-C and with 143 on SIGTERM; each says in
    one line what to do. Any other error is a fault of the program and shows its traceback.
    """
    accept_any_text()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here, and Hydra prints none of its own
    try:
        _main(sys.argv[1] if len(sys.argv) > 1 else "--help", sys.argv[2:])
        sys.stdout.flush()
    except BrokenPipeError:  # `crane data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(141) from None  # the shells' code for it
    except KeyboardInterrupt:
        _leave("stopped by Ctrl-C", 128 + signal.SIGINT)
    except Exception as error:
        mistake = usage_error(error)
        if mistake is not None:
            _leave(mistake)
        if isinstance(error, HydraException) and not isinstance(error, InstantiationException):
            _leave(" ".join(str(error).split()))  # such as a key of Hydra's that does not exist
        raise


def _main(name: str, typed: list[str]) -> None:
    if name in ("-h", "--help"):
        overview(COMMANDS)
        return
    if name == "--version":
        print(f"crane {__version__}")
        return
    if name in COMPLETION_FLAGS:
        complete(typed[0] if typed else "nothing", COMMANDS)
        return
    one_of(name, COMMANDS, "command")
    if {"-h", "--help"} & set(typed):
        rest = [word for word in typed if word not in ("-h", "--help")]
        command_help(name, Arguments(name, rest).own_folders() if rest else ())
        return
    arguments = Arguments(name, typed)
    config = check_arguments(arguments)
    if config is not None:
        check_files(config, name)
    if arguments.is_multirun:
        check_alone()
        arguments.check_sweep()
    script, sys.argv = sys.argv[0], [f"crane {name}", *arguments.for_hydra()]
    is_multirun = arguments.is_multirun
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
        """Run the command; what the user can mend ends with exit code 2, a signal with its own."""
        _prepare()  # here, as this may be another process than that of `main`
        try:
            check_configuration(config, self.name)
            config.run_dir = str(Path(config.run_dir).expanduser())
            # Lightning starts further processes with these arguments; all do this one job.
            sys.argv = [self.script, self.name, *_overrides(config.run_dir)]
            command: Command = getattr(import_module(COMMANDS[self.name]), self.name)
            with ending_on_sigterm():
                return command(config)
        except KeyboardInterrupt:
            _leave(f"stopped by Ctrl-C; {resumption(config)}", 128 + signal.SIGINT)
        except SystemExit as error:
            if error.code == 128 + signal.SIGTERM:
                _leave(f"stopped by SIGTERM; {resumption(config)}", error.code)
            raise
        except Exception as error:
            mistake = usage_error(error) or removed_key(error, HydraConfig.get().overrides.task)
            if mistake is None:
                raise
            _leave(mistake)


def _overrides(run_dir: str) -> list[str]:
    """The overrides of this run; the folder of a multirun's job is among them."""
    overrides = list(HydraConfig.get().overrides.task)
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return overrides
    own = [override for override in overrides if not override.startswith("run_dir=")]
    return [*own, f"run_dir={QuotedString(run_dir, Quote.single).with_quotes()}"]


def _prepare() -> None:
    """Set up a process for its job: what it prints, what it warns of and where it works."""
    accept_any_text()
    os.chdir(HydraConfig.get().runtime.cwd)  # with hydra.job.chdir, paths would mean other files
    for remark in REMARKS:
        warnings.filterwarnings("ignore", message=remark)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _leave(said: object, code: int = 2) -> NoReturn:
    print(f"crane: {said}", file=sys.stderr)
    raise SystemExit(code)
