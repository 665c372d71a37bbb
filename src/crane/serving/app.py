"""`crane app`: score images in the browser, move the threshold, calibrate, compare two methods."""

import io
import math
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from PIL import Image

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
import gradio as gr

from crane.checks import MinLen, PositiveFloat, PositiveInt, Text, checked
from crane.data.images import rgb_from_bytes
from crane.errors import UsageError, counted
from crane.files import csv_text, file_names
from crane.pictures import png_map
from crane.pictures.overlays import verdict_text
from crane.prediction import AnomalyDetector, ImageResult, Threshold, load

STEP = 1e-4
"""Step of the threshold's slider."""
SHOWN = 900
"""Longer side of a picture on the page, in pixels."""
AS_TRAINED, NONE = "as trained", "none"
"""Choices beside the attentions and the checkpoints."""
FIRST = 0.5
"""Where the threshold starts; a checkpoint may carry another one."""
FONTS, MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
"""Fonts of the visitor's own system: gradio's come from elsewhere."""
KEPT = 3600
"""Seconds that uploads and results are kept."""

Choices = Annotated[Sequence[Text], MinLen(1)]


@checked
@dataclass(frozen=True)
class AppOptions:
    """What visitors may choose and send.

    Raises:
        UsageError: A value is out of range.
    """

    checkpoints: Choices
    """Names or files that can be chosen; the first is where the page starts."""
    attentions: Sequence[Text]
    """Options of the group `attention` that can be chosen in place of the checkpoint's own."""
    max_images: PositiveInt = 32
    """Images at once."""
    max_body_mb: PositiveFloat = 32.0
    """Size of a file in megabytes."""
    max_pixels: PositiveInt = 50_000_000
    """Pixels of all images together, by their headers."""
    device: str = "auto"
    """As `crane.load` takes it."""
    precision: str = "32-true"
    """As `crane.load` takes it."""
    class_name: str = "object"
    """What the images show."""
    overrides: Sequence[str] = ()
    """More changes, as on the command line."""


class Scored(NamedTuple):
    """What one method gave."""

    names: list[str]
    results: list[ImageResult]

    def decided(self, threshold: Threshold) -> "Scored":
        """The same results under another threshold; nothing is scored again."""
        return Scored(self.names, [replace(one, threshold=threshold) for one in self.results])


class Side(NamedTuple):
    """The elements of one method."""

    checkpoint: Any
    attention: Any
    threshold: Any
    pixel: Any
    verdicts: Any
    gallery: Any
    scored: Any


class App:
    """The page and what it does.

    Args:
        options: What visitors may choose and send.
    """

    def __init__(self, options: AppOptions) -> None:
        self.options = options
        self._folder = tempfile.TemporaryDirectory(prefix="crane-app-")
        self.detector = lru_cache(maxsize=2)(self._load)

    def _load(self, checkpoint: str, attention: str) -> AnomalyDetector:
        options = self.options
        if checkpoint not in options.checkpoints:
            raise UsageError(f"choose a checkpoint of {', '.join(options.checkpoints)}")
        if attention not in (AS_TRAINED, *options.attentions):
            raise UsageError(f"choose an attention of {', '.join(options.attentions)}")
        chosen = [] if attention == AS_TRAINED else [f"attention={attention}"]
        return load(
            checkpoint,
            device=options.device,
            precision=options.precision,
            class_name=options.class_name,
            overrides=[*options.overrides, *chosen],
        )

    def read(self, files: Sequence[str] | None) -> tuple[list[str], list[Image.Image]]:
        """The names and images of uploads.

        Raises:
            UsageError: There are none, too many or too large ones, or one is no image.
        """
        options = self.options
        if not files:
            raise UsageError("drop some images first")
        if len(files) > options.max_images:
            many = counted(len(files), "image is", "images are")
            raise UsageError(f"{many} too many; max_images={options.max_images}")
        names, images, room = [], [], options.max_pixels
        for path in map(Path, files):
            image = rgb_from_bytes(path.read_bytes(), path.name, max_pixels=room)
            room -= image.width * image.height
            names.append(path.name)
            images.append(image)
        return names, images

    def score(
        self, files: Sequence[str] | None, checkpoint: str, attention: str, value: float, pixel: Any
    ) -> tuple[Any, ...]:
        """Score uploads with one method: what the panel shows, and its results."""
        if checkpoint == NONE:
            return *self.show(None, value, pixel), None
        names, images = self.read(files)
        scored = Scored(names, self.detector(checkpoint, attention).predict(images))
        return *self.show(scored, value, pixel), scored

    def show(self, scored: Scored | None, value: float, pixel: Any) -> tuple[Any, Any]:
        """Verdicts and pictures under a threshold."""
        if scored is None:
            return "", []
        threshold = Threshold(float(value), pixel_value=float(pixel))
        decided = scored.decided(threshold)
        number = sum(bool(one.is_anomalous) for one in decided.results)
        lines = [f"**{number} of {counted(len(scored.names), 'image')} anomalous**", ""]
        shown = []
        for name, result in zip(*decided, strict=True):
            said = f"{name}: {verdict_text(result.score, threshold.value)}"
            regions = counted(len(result.regions), "region")
            picture = result.plot()
            picture.thumbnail((SHOWN, SHOWN))
            shown.append(picture)
            lines.append(f"- {_plain(said)}, {regions}")
        return "\n".join(lines), shown

    def calibrate(
        self, files: Sequence[str] | None, rate: float, *chosen: str
    ) -> tuple[float | Any, ...]:
        """Thresholds of each method for a rate of false alarms, from images known to be normal."""
        _, images = self.read(files)
        found: list[Any] = []
        for checkpoint, attention in zip(chosen[::2], chosen[1::2], strict=True):
            if checkpoint == NONE:
                found += [gr.skip(), gr.skip()]
                continue
            threshold = self._calibrated(checkpoint, attention, images, rate)
            shown = round(math.ceil(threshold.value / STEP) * STEP, 9)  # not 0.10250000000000001
            found += [min(1.0, shown), threshold.pixel_value]
        wanted = math.ceil(1 / rate - 1e-9) - 1
        said = f"Calibrated on {counted(len(images), 'normal image')} for {rate:.0%} false alarms."
        if len(images) < wanted:
            said += (
                f" That rate needs {wanted} images; these guarantee {1 / (1 + len(images)):.0%}."
            )
        return said, *found

    def _calibrated(
        self, checkpoint: str, attention: str, images: list[Image.Image], rate: float
    ) -> Threshold:
        detector = self.detector(checkpoint, attention)
        before = detector.threshold
        try:
            return detector.calibrate(images, rate)
        finally:
            detector.threshold = before  # the detector is everyone's

    def download(self, *values: Any) -> str:
        """A zip file with scores, regions, overlays and maps of each method.

        Args:
            values: Results, threshold and pixel threshold of each method.

        Raises:
            UsageError: Nothing was scored.
        """
        groups = [values[place : place + 3] for place in range(0, len(values), 3)]
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as file:
            for number, (scored, value, pixel) in enumerate(groups, start=1):
                if scored is not None:
                    threshold = Threshold(float(value), pixel_value=float(pixel))
                    _pack(file, f"method_{number}", scored.decided(threshold))
            if not file.namelist():
                raise UsageError("score some images first")
        with tempfile.NamedTemporaryFile(
            dir=self._folder.name, prefix="crane-", suffix=".zip", delete=False
        ) as kept:
            kept.write(content.getvalue())
        return kept.name

    def blocks(self) -> gr.Blocks:
        """The page."""
        with gr.Blocks(
            title="crane", analytics_enabled=False, delete_cache=(KEPT, KEPT), fill_width=True
        ) as page:
            gr.Markdown("# crane\nZero-shot anomaly detection: drop images, see what is anomalous.")
            files = _upload("Images", "images")
            with gr.Row():
                panels = [self._panel(number) for number in (1, 2)]
            with gr.Accordion("Calibrate on images known to be normal", open=False):
                good = _upload("Normal images", "good")
                rate = gr.Slider(0.01, 0.5, 0.05, step=0.01, label="Rate of false alarms")
                calibrate = gr.Button("Calibrate", elem_id="calibrate")
                said = gr.Markdown(elem_id="calibrated")
            pack = gr.Button("Pack results", elem_id="pack")
            packed = gr.File(label="Results", interactive=False, height=80, elem_id="packed")
            self._connect(files, panels, (good, rate, calibrate, said), (pack, packed))
        return page

    def _panel(self, number: int) -> Side:
        first = [] if number == 1 else [NONE]
        with gr.Column(min_width=320):
            with gr.Row():
                names = [*first, *self.options.checkpoints]
                checkpoint = gr.Dropdown(
                    names, value=names[0], label=("Checkpoint", "Compare with")[number - 1]
                )
                attention = gr.Dropdown(
                    [AS_TRAINED, *self.options.attentions], value=AS_TRAINED, label="Attention"
                )
            own = self.detector(self.options.checkpoints[0], AS_TRAINED).threshold
            threshold = gr.Slider(
                0,
                1,
                FIRST if own is None else own.value,
                step=STEP,
                label="Threshold",
                elem_id=f"threshold_{number}",
            )
            pixel = gr.State(Threshold.PIXEL if own is None else own.pixel_value)
            scored = gr.State(None, time_to_live=KEPT)
            verdicts = gr.Markdown(elem_id=f"verdicts_{number}")
            gallery = gr.Gallery(
                label="Maps",
                columns=2,
                object_fit="contain",
                height="auto",
                elem_id=f"maps_{number}",
            )
        return Side(checkpoint, attention, threshold, pixel, verdicts, gallery, scored)

    def _connect(self, files: Any, panels: Sequence[Side], calibration: Any, packing: Any) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private"}
        for one in panels:
            inputs = [files, one.checkpoint, one.attention, one.threshold, one.pixel]
            outputs = [one.verdicts, one.gallery, one.scored]
            changes = [element.change for element in (files, one.checkpoint, one.attention)]
            gr.on(changes, _told(self._on_change), inputs, outputs, **quiet)
            gr.on(
                [one.threshold.change],
                _told(self.show),
                [one.scored, one.threshold, one.pixel],
                [one.verdicts, one.gallery],
                trigger_mode="always_last",
                show_progress="hidden",
                **quiet,
            )
        good, rate, button, said = calibration
        chosen = [element for one in panels for element in (one.checkpoint, one.attention)]
        found = [element for one in panels for element in (one.threshold, one.pixel)]
        button.click(_told(self.calibrate), [good, rate, *chosen], [said, *found], **quiet)
        results = [e for one in panels for e in (one.scored, one.threshold, one.pixel)]
        pack, packed = packing
        pack.click(_told(self.download), results, packed, **quiet)

    def _on_change(self, files: Any, *values: Any) -> tuple[Any, ...]:
        """Score again, unless the images were removed."""
        return self.score(files, *values) if files else ("", [], None)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(
        f"&#{ord(letter)};" if letter in "<>&*_`[]()#|\\~$" else letter for letter in text
    )


def _upload(label: str, name: str) -> Any:
    return gr.File(
        label=label, file_count="multiple", file_types=["image"], height=170, elem_id=name
    )


def _told(work: Callable[..., Any]) -> Callable[..., Any]:
    """Show mistakes on the page."""

    @wraps(work)
    def call(*values: Any) -> Any:
        try:
            return work(*values)
        except UsageError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call


def _pack(file: zipfile.ZipFile, folder: str, scored: Scored) -> None:
    scores: list[tuple[object, ...]] = [("image", "score", "anomalous", "regions")]
    regions: list[tuple[object, ...]] = [
        ("image", "left", "top", "right", "bottom", "area", "peak")
    ]
    numbered = [f"{place}_{name}" for place, name in enumerate(scored.names, start=1)]
    safe = file_names(numbered)
    for name, own, result in zip(scored.names, numbered, scored.results, strict=True):
        drawn = io.BytesIO()
        result.plot().save(drawn, "jpeg", quality=92)
        file.writestr(f"{folder}/overlays/{safe[own]}.jpg", drawn.getvalue())
        file.writestr(f"{folder}/maps/{safe[own]}.png", png_map(result.map))
        scores.append((name, result.score, int(bool(result.is_anomalous)), len(result.regions)))
        regions += [(name, *one.box, one.area, one.peak) for one in result.regions]
    file.writestr(f"{folder}/scores.csv", csv_text(scores))
    file.writestr(f"{folder}/regions.csv", csv_text(regions))


def run(options: AppOptions, *, host: str, port: int, share: bool) -> None:
    """Show the page until SIGTERM or Ctrl-C.

    Args:
        options: What visitors may choose and send.
        host: The address to listen at.
        port: Its port.
        share: Whether gradio makes a public address for it, through its own servers.

    Raises:
        UsageError: The port is taken, or the first checkpoint cannot be loaded.
    """
    page = App(options).blocks()
    launch(page, options, host=host, port=port, share=share)
    print(f"ready: {page.share_url or page.local_url}", flush=True)
    page.block_thread()


def launch(
    page: gr.Blocks, options: AppOptions, *, host: str, port: int | None, share: bool
) -> None:
    """Start the server of a page in a thread; arguments and errors as of `run`.

    A port of None is a free one.
    """
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=share,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
            theme=gr.themes.Default(font=FONTS, font_mono=MONO),
            footer_links=[],
            max_file_size=round(1e6 * options.max_body_mb),
        )
    except OSError as error:
        raise UsageError(f"port={port} is in use; choose another port", key="port") from error
