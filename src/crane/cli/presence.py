"""Whether the files that a command reads first are there, before anything heavy is imported."""

from glob import has_magic
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from crane.checks import PathText, check_value, existing_file, existing_folder
from crane.config import recipe_dir
from crane.errors import InvalidValueError, UsageError
from crane.files import is_remote
from crane.gate import TARGET
from crane.named_prompts import full_name, hub_place, is_name, is_on_hub, last_prompts


def check_files(config: DictConfig, command: str) -> None:
    """Check that the files that a command reads first exist.

    Args:
        config: The configuration of a command.
        command: Its name.

    Raises:
        UsageError: One does not exist; names its key.
    """
    trains_nothing = "loss" in config and config.loss is None  # loss=none, which methods choose
    if command == "train" and trains_nothing:
        name = config.method.name
        raise UsageError(
            f"{name} has nothing to train; crane test needs no checkpoint", key="method"
        )
    if "checkpoint" in config and (config.checkpoint is not None or not trains_nothing):
        check_value(config.checkpoint, PathText, "checkpoint")
        _check_checkpoint(str(config.checkpoint))
    if config.get("resume") is not None:
        existing_file(config.resume, "resume", "the checkpoints/last.ckpt of a training")
    if command == "report":
        for path in config.paths:
            existing_folder(path, "paths", "folders of runs, or folders that hold some")
    if command in ("train", "test"):
        _check_data_sets(config)
    if command == "reproduce":
        for folder in config.experiments:
            if recipe_dir(str(folder)) is None:
                raise UsageError(f"experiments: {folder} has no recipe.yaml", key="experiments")
    if command in ("predict", "export"):
        for key in ("input", "calibration.input"):
            spec = OmegaConf.select(config, key)
            for entry in spec if isinstance(spec, ListConfig) else filter(None, [spec]):
                if is_remote(entry) or has_magic(str(entry)):
                    continue
                if not Path(entry).expanduser().exists():
                    wanted = "an image, a folder, a glob or a list of paths"
                    raise UsageError(f"{key}: {entry} does not exist; give {wanted}", key=key)


def _check_checkpoint(spec: str) -> None:
    """Check that a checkpoint is a published name, a file, or the folder of a training."""
    if spec == "auto":
        return
    if is_on_hub(spec):
        hub_place(spec)
    elif is_name(spec):
        full_name(spec)
    elif Path(spec).expanduser().is_dir():
        last_prompts(Path(spec).expanduser())
    else:
        existing_file(spec, "checkpoint", "a checkpoint file, the folder of a training, or a name")


def _check_data_sets(config: DictConfig) -> None:
    """Check that there is a folder for each data set, except those drawn on first use."""
    from crane.data.index import Request  # a quarter of a second that other commands save
    from crane.datasets import candidate_folders

    named = [(r, *item) for r in ("source", "targets") for item in config[r].items()]
    for role, name, node in named:
        if not str(node.get(TARGET)).startswith(("crane.data.", "crane.datasets.")):
            continue
        root, folders = node.get("root"), node.get("folders") or [str(name)]
        if root is None and "file" in node:  # a table, which lies beside its images
            existing_file(node.file, f"{role}.{name}.file", "a list of images and labels")
            continue
        if root is None:
            top = Path(node.get("datasets_dir") or config.datasets_dir)
            if candidate_folders(top, folders):
                continue
            root = top / folders[0]
        try:
            request = Request(str(name), str(root), "test", 0, fetch=node.get("fetch") or "")
        except InvalidValueError as error:
            raise error.under(f"{role}.{name}") from None
        request.folder()
