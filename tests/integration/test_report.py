"""`crane report` over runs that `crane train` made."""

import csv
import re

import pytest

from crane.runs import DatasetResult, write_results_json

pytestmark = pytest.mark.long


@pytest.fixture
def sweep(crane, tiny, use, tmp_path):
    """A multirun of two attentions and two seeds: its folder."""
    folder = tmp_path / "sweep"
    data = [*use("source", "alpha"), *use("targets", "gamma")]
    varied = ("-m", "attention=clip,vv", "seed=1,2", f"hydra.sweep.dir={folder}")
    outcome = crane("train", *tiny, *data, *varied, "results_store=null")
    assert outcome.code == 0, outcome.err
    return folder


def test_a_sweep_becomes_tables_figures_and_a_page(crane, sweep, tmp_path):
    (sweep / "9_cut_short").mkdir()
    (sweep / "9_cut_short" / "record.json").write_text("{}")
    outcome = crane("report", sweep, "output=out", "title=Two attentions")
    assert outcome.code == 0, outcome.err
    assert "4 runs of 2 settings" in outcome.out
    assert "left out sweep/9_cut_short: under way, interrupted or failed" in outcome.out

    out = tmp_path / "out"
    with (out / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = {(a, n) for a in ("attention=clip", "attention=vv") for n in ("tile", "mean")}
    assert {(row["setting"], row["class"]) for row in rows} == wanted
    assert {row["num_values"] for row in rows if row["metric"] == "image_auroc"} == {"2"}

    markdown = (out / "report.md").read_text()
    assert markdown.startswith("# Two attentions\n\n### gamma\n")
    assert re.search(r"\| attention=vv \| 2 \| .*\d\.\d ± \d", markdown)
    assert r"\bottomrule" in (out / "report.tex").read_text()
    names = {path.name for path in (out / "figures" / "gamma").iterdir()}
    assert {"settings.pdf", "classes.pdf", "sizes.pdf", "pro.pdf", "image_roc.pdf"} <= names
    html = (out / "report.html").read_text()
    assert html.count("<figure") >= 4
    assert "1 run left out" in html

    jobs = sorted(path for path in sweep.iterdir() if path.name[0] in "02")
    assert all("=" in path.name for path in jobs)  # and yet no overrides
    outcome = crane("report", jobs[0].relative_to(tmp_path), jobs[1], "figures=null")
    assert outcome.code == 0, outcome.err
    assert "2 runs of 2 settings" in outcome.out
    assert "figures" not in outcome.out


def test_a_sweep_is_reported_whole_though_some_was_done_before(crane, tiny, use, tmp_path):
    data = [*use("source", "alpha"), *use("targets", "gamma")]

    def train(folder, *axes):
        places = [f"hydra.sweep.dir={tmp_path / folder}", "results_store=store"]
        return crane("train", "-m", *tiny, *data, "seed=1", *axes, *places)

    assert train("first", "attention=vv").code == 0
    outcome = train("second", "attention=vv,qq", "prompt.num_words=12,0")
    assert outcome.code == 1
    outcome = crane("report", "second", "output=out", "figures=null")
    assert outcome.code == 0, outcome.err
    assert "2 runs of 2 settings" in outcome.out
    assert re.search(r"\| attention=vv.* \| 1 \|", outcome.out)
    failed = [line for line in outcome.out.splitlines() if line.startswith("left out")]
    assert len(failed) == 2
    assert all(re.search(r"second/\d_attention=.*: failed: ", line) for line in failed)


def test_tests_of_a_sweeps_checkpoints_are_told_apart_by_their_trainings(
    crane, tiny, use, tmp_path
):
    places = ["results_store=null", f"hydra.sweep.dir={tmp_path / 'trained'}"]
    axes = ["-m", "attention=clip,vv", "seed=1,2", "test=false"]
    data = [*use("source", "alpha"), "dataset@targets=[]"]
    outcome = crane("train", *tiny, *data, *axes, *places)
    assert outcome.code == 0, outcome.err
    found = sorted((tmp_path / "trained").glob("*/prompts/epoch_1.safetensors"))
    axis = "checkpoint=" + ",".join(f"'{path.relative_to(tmp_path)}'" for path in found)
    common = ["trainer=cpu", "data.num_workers=0", *use("targets", "gamma")]
    places = ["results_store=null", f"hydra.sweep.dir={tmp_path / 'tested'}"]
    outcome = crane("test", "-m", *common, axis, *places)
    assert outcome.code == 0, outcome.err
    outcome = crane("report", "trained", "tested", "output=out", "figures=null")
    assert outcome.code == 0, outcome.err
    assert "4 runs of 2 settings" in outcome.out
    assert "left out" not in outcome.out
    for label in ("attention=clip", "attention=vv"):
        assert re.search(rf"\| {label} \| 2 \| .*\d ± \d", outcome.out)


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ((), "paths is required: crane report paths=…"),
        (("nowhere",), "paths: nowhere does not exist; give folders of runs"),
        (("run/0_attention=vvx",), "paths: run/0_attention=vvx does not exist"),
        (("0_attention=vvx", "figures=null"), "paths: 0_attention=vvx does not exist"),
        (
            ("run", "columns=[image_aurok]"),
            "columns: unknown metric 'image_aurok'; did you mean image_auroc?",
        ),
        (("run", "columns=[]"), "columns must be a non-empty list"),
        (("run", "columns=aupro"), "columns must be a list; type columns=[aupro]"),
        (("paths=run",), "paths must be a list; type paths=[run]"),
        (
            ("run", "columns=[image_auroc]", "figures=gif"),
            "figures must be pdf, svg or png, or null, not 'gif'",
        ),
        (("run", "max_pictures=-1"), "max_pictures must be an integer of at least 0, not -1"),
        (("run", "columns=[image_auroc]", "output=file"), "cannot write to file: "),
        (("run", "published=nothing.csv"), "published: cannot read nothing.csv"),
        (("run", "titel=x"), "title"),
    ],
)
def test_mistakes_are_named(crane, tmp_path, typed, shown):
    result = DatasetResult(
        dataset="gamma",
        class_names=("tile",),
        values={"image_auroc": (0.5,)},
        means={"image_auroc": 0.5},
        num_normal=(1,),
        num_anomalous=(1,),
    )
    write_results_json([result], tmp_path / "run" / "results.json")
    (tmp_path / "file").write_text("")
    outcome = crane("report", *typed)
    assert outcome.code == 2
    assert shown in outcome.err
