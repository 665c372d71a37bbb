"""What a plan costs: images through the towers, hours, and room on the disk."""

from collections.abc import Sequence
from dataclasses import dataclass

from crane.reproduce.plan import Test, Training
from crane.reproduce.suite import Suite

MB_PER_EPOCH = 0.2
"""A file of prompts: 43,008 numbers of 4 bytes for ViT-L/14."""
MB_PER_RUN = 2.0
"""Results, records and pictures of a run; of a training the state to resume from."""


@dataclass(frozen=True)
class Cost:
    """Of some trainings and tests."""

    num_trainings: int
    num_tests: int
    num_images: int
    """Images through the towers: a training sees its images once an epoch."""
    seconds: float
    megabytes: float
    """Of what the runs write; data, weights and cached features are not in it."""

    @property
    def hours(self) -> float:
        """The same time in hours."""
        return self.seconds / 3600

    @classmethod
    def of(
        cls, trainings: Sequence[Training], tests: Sequence[Test], suite: Suite, device: str
    ) -> "Cost":
        """Estimate.

        Args:
            trainings: Each once.
            tests: Each once.
            suite: Knows the seconds.
            device: `cpu` or `gpu`.
        """
        num_images = sum(one.num_images for one in trainings)
        num_images += sum(one.num_images for one in tests)
        num_runs = len(trainings) + len(tests)
        epochs = sum(one.num_epochs for one in trainings)
        return cls(
            len(trainings),
            len(tests),
            num_images,
            num_images * suite.seconds_per_image[device] + num_runs * suite.seconds_per_run,
            epochs * MB_PER_EPOCH + num_runs * MB_PER_RUN,
        )

    @property
    def time(self) -> str:
        """The time in the unit that suits it.

        >>> [Cost(0, 0, 0, s, 0.0).time for s in (40, 400, 40000)]
        ['40 s', '7 min', '11.1 h']
        """
        if self.seconds < 120:
            return f"{self.seconds:.0f} s"
        return f"{self.seconds / 60:.0f} min" if self.seconds < 7200 else f"{self.hours:.1f} h"
