"""How jobs that run side by side share the cores of a machine."""

import os

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from crane.data.loader import auto_num_workers


def share_cores(config: DictConfig) -> None:
    """Leave each job of the joblib launcher its share of loading processes, where they are `auto`.

    joblib itself gives each job its share of threads, unless OMP_NUM_THREADS says otherwise.

    Args:
        config: Of a command; changed where it loads data.
    """
    num_jobs = side_by_side()
    if num_jobs == 1 or "data" not in config or config.data.get("num_workers") != "auto":
        return
    devices = config.trainer.devices
    num_processes = devices if isinstance(devices, int) and devices > 0 else 1
    config.data.num_workers = auto_num_workers(num_jobs * num_processes)


def side_by_side() -> int:
    """How many jobs of this multirun may run on this machine at a time."""
    launcher = HydraConfig.get().launcher
    if "joblib" not in launcher._target_:
        return 1
    num_jobs = int(launcher.n_jobs)  # below 0: all cores but as many, less one
    return num_jobs if num_jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + num_jobs)
