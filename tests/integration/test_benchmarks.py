"""Each benchmark runs in its miniature, which measures nothing, and says what it is to say."""

import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES, main
from benchmarks._harness import Claim, Options
from benchmarks.gpu import measure
from benchmarks.growth import claims_of
from benchmarks.methods import METHODS

pytestmark = pytest.mark.long


@pytest.fixture
def bench(crane, monkeypatch, tmp_path):
    """Run benchmarks as `python -m benchmarks NAME --small` does; `crane` puts Hydra back."""

    def run(*names):
        arguments = [*names, "--small", "--output", str(tmp_path / "bench")]
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        main()
        return tmp_path / "bench"

    return run


def result_of(folder, name):
    return json.loads((folder / "results" / f"{name}.json").read_text())["report"]


def figures(report):
    return {claim["what"]: claim["measured"] for claim in report["claims"]}


def test_the_forward_is_compared_with_a_plain_one_that_says_the_same(bench):
    folder = bench("forward")
    report = result_of(folder, "forward")
    *measured, _ = figures(report).values()  # resident memory may not grow so little
    assert len(measured) == 4
    assert all(value > 0 for value in measured)
    assert "the largest difference is" in report["text"]
    assert (folder / "pictures" / "forward.png").stat().st_size > 10_000


def test_text_takes_less_time_cut_than_at_all_positions(bench):
    report = result_of(bench("text"), "text")
    (times,) = figures(report).values()
    assert times > 1.5  # 18 of 77 positions, on whatever else runs
    assert [row[0] for row in report["rows"]] == ["1", "8"]


def test_views_are_timed_in_forwards(bench):
    report = result_of(bench("views"), "views")
    assert [row[0] for row in report["rows"]] == ["whole", "tiles", "scales"]
    assert [int(row[1]) for row in report["rows"]] == [1, 1 + 3 * 3, 2]
    time, _ = figures(report).values()  # the memory of a small image does not show
    assert time > 0


def test_epochs_are_timed_with_and_without_the_cache(bench):
    report = result_of(bench("epochs"), "epochs")
    seconds = [float(cell) for _, cell in report["rows"]]
    assert len(seconds) == 4
    assert all(value > 0 for value in seconds)


def test_a_sweep_counts_one_pass_a_vision_setting(bench):
    report = result_of(bench("sweep"), "sweep")
    measured = figures(report)
    assert measured["vision passes of a sweep of 2 prompt settings"] == 1
    assert measured["vision passes of a sweep over 2 vision settings as well"] == 2


def test_growth_runs_both_commands(bench):
    report = result_of(bench("growth"), "growth")
    ((num, *cells),) = report["rows"]
    assert num == "4"
    assert all(float(cell) > 0 for cell in cells)


def test_start_up_is_measured_in_new_processes(bench):
    report = result_of(bench("start_up"), "start_up")
    assert [row[0] for row in report["rows"]] == ["`crane --help`", "`crane data list`"]
    assert all(float(row[2]) > 0 for row in report["rows"])
    assert len(figures(report)) == 2


def test_without_a_gpu_its_table_says_not_run(bench):
    folder = bench("gpu")
    report = result_of(folder, "gpu")
    assert {cell for _, *cells in report["rows"] for cell in cells} == {"not run"}
    page = (folder / "README.md").read_text()
    assert (
        "| GPU, batch of 8, bf16: images/s / the official code's | at least 5 | not run | - |"
        in page
    )


def test_the_gpu_benchmark_measures_and_judges(tmp_path):
    options = Options("cpu", small=True, output=tmp_path)
    found = measure(options, "float32", tmp_path)
    assert all(speed > 0 for speed in found["speed"].values())
    assert 0 < found["metrics"]["aupro"] < 100
    assert (tmp_path / "float32.npy").is_file()


def test_growth_is_linear_and_flat_or_it_is_not():
    linear = {10: (5.0, 900), 100: (5.9, 1000), 1000: (15.0, 1010), 10_000: (105.0, 1020)}
    assert [claim.reached for claim in claims_of("x", linear)] == [True, True]
    quadratic = {n: (5.0 + n**2 / 1e4, 900 + n) for n in linear}
    assert [claim.reached for claim in claims_of("x", quadratic)] == [False, False]
    with pytest.raises(RuntimeError, match="less time for more images"):
        claims_of("x", dict.fromkeys(linear, (5.0, 900)))


def test_a_failing_benchmark_does_not_stop_the_others(bench, monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.text.run", lambda options: 1 / 0)
    with pytest.raises(SystemExit, match="failed: text"):
        bench("text", "gpu")
    assert (tmp_path / "bench" / "results" / "gpu.json").is_file()
    assert not (tmp_path / "bench" / "results" / "text.json").exists()


@pytest.mark.parametrize(
    ("claim", "row"),
    [
        (Claim("x", 1.5, 1.25, True), ["x", "at most 1.5", "1.25", "yes"]),
        (Claim("x", 3.5, 3.4, False), ["x", "at least 3.5", "3.4", "**no**"]),
        (Claim("x", 1, 1.5, True, exactly=True), ["x", "exactly 1", "1.5", "**no**"]),
        (Claim("x", 1, None, True), ["x", "at most 1", "not run", "-"]),
    ],
)
def test_a_claim_says_whether_it_is_reached(claim, row):
    assert claim.row() == row


def test_methods_are_compared_with_the_vit(bench):
    report = result_of(bench("methods"), "methods")
    assert [row[0] for row in report["rows"]] == list(METHODS)
    for claim, (*_, ratio, products, limit) in zip(report["claims"], report["rows"], strict=True):
        assert 0 < claim["measured"] == pytest.approx(float(ratio), abs=0.01)
        assert claim["wanted"] == pytest.approx(1.5 * float(products), abs=0.01)
        assert claim["wanted"] == pytest.approx(float(limit), abs=0.01)


def test_requests_to_a_server_are_counted(bench):
    report = result_of(bench("serve"), "serve")
    assert figures(report)["serve: requests lost"] == 0
    assert [row[0] for row in report["rows"]] == ["1", "2", "4", "8"]
    assert all(float(row[1]) > 0 for row in report["rows"])


def test_exported_files_are_compared_with_pytorch(bench):
    report = result_of(bench("export"), "export")
    assert figures(report)["export, fp32: largest difference of a score or pixel"] < 1e-4
    assert [row[0] for row in report["rows"]][:2] == ["PyTorch", "fp32"]


def test_engines_are_compared(bench):
    pytest.importorskip("ray", reason="Ray, an extra, is not installed")
    report = result_of(bench("ray"), "ray")
    assert [row[:2] for row in report["rows"]] == [["local", "8"], ["ray", "8"], ["ray", "16"]]
    assert all(float(cell) > 0 for row in report["rows"] for cell in row[2:])


def test_every_benchmark_of_the_page_is_tried():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_benchmarks*.py"))
    assert set(NAMES) <= set(re.findall(r'bench\("(\w+)"', tests))
