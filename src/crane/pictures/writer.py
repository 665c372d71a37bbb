"""A few overlays of every data set, chosen while a test runs."""

import re
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor

from crane.files import replacing
from crane.pictures.panels import Panel, PanelStyle, draw_panel, gallery
from crane.pictures.shortlist import Shortlist
from crane.types import NORMAL, Sample


class OverlayWriter:
    """Keep a few samples of each class while a test runs, then write their panels and a gallery.

    What is kept does not depend on the order of the samples, and its size does not depend on their
    number. Panels are `FOLDER/CLASS/NN_DEFECT_NAME.png`, the gallery is `FOLDER/gallery.png`.

    Args:
        folder: where to write.
        title: heading of the gallery, such as the method and the data set.
        style: scale, opacity and size of the panels.
        choose: which samples: `random` (by name, the same in every run), `best` or `worst` (by
            score, given the label).
        num_anomalous: anomalous samples of each class.
        num_normal: normal samples of each class.
        num_columns: panels in a row of the gallery.

    Raises:
        UsageError: for an unknown choice.
    """

    def __init__(
        self,
        folder: Path,
        *,
        title: str,
        style: PanelStyle,
        choose: str,
        num_anomalous: int,
        num_normal: int,
        num_columns: int,
    ) -> None:
        self.folder, self.title, self.style = folder, title, style
        self.num_columns = num_columns
        self.shortlist = Shortlist(
            choose=choose, num_anomalous=num_anomalous, num_normal=num_normal, tile=style.tile
        )

    def add(
        self,
        sample: Sample,
        score: float,
        map: Float[Tensor, "H W"],
        mask: Int[Tensor, "H W"] | None = None,
    ) -> None:
        """Consider one sample; it is opened and its map fetched only if it is to be kept.

        Args:
            sample: the sample; its image file is read.
            score: its anomaly score.
            map: its anomaly probabilities, on any device.
            mask: non-zero where anomalous; None where not known.
        """
        self.shortlist.add(sample, score, map, mask)

    def panels(self) -> dict[Path, Panel]:
        """What has been kept so far, by the file it will be drawn in; classes in order of names."""
        panels: dict[Path, Panel] = {}
        for sample, panel, place in self.shortlist.chosen():
            number = place + (0 if sample.label == NORMAL else self.shortlist.room[NORMAL])
            name = f"{number:02d}_{plain_name(sample.defect)}_{plain_name(sample.image.stem)}.png"
            panels[self.folder / plain_name(sample.class_name) / name] = panel
        return panels

    def close(self) -> list[Path]:
        """Write what was kept, and forget it.

        Returns:
            The gallery's path and those of the panels; empty when nothing was added.
        """
        panels = self.panels()
        self.shortlist.clear()
        if not panels:
            return []
        for path, panel in panels.items():
            with replacing(path) as part:
                draw_panel(panel, self.style).save(part)
        top = self.folder / "gallery.png"
        sheet = gallery(
            list(panels.values()), self.style, num_columns=self.num_columns, title=self.title
        )
        with replacing(top) as part:
            sheet.save(part)
        return [top, *panels]


def plain_name(name: str) -> str:
    """A name with nothing in it that a file system minds."""
    return re.sub(r"[^\w.-]+", "_", name)
