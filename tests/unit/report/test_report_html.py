import json
import re

import pytest

from crane.report import find_runs, label_runs, read_published, summarise
from crane.report.page import render_page

METRICS = ["image_auroc", "aupro"]


@pytest.fixture
def page(tmp_path):
    """Render the page over every run made so far."""

    def make(title="Crane", published=None, **options):
        runs, left_out = find_runs([tmp_path / "runs"])
        labels = label_runs(runs)
        rows = summarise(runs, labels)
        if published is not None:
            rows = read_published(published).beside(rows)
        options = {"max_pictures": 100, "left_out": left_out, **options}
        return render_page(title, runs, labels, rows, METRICS, **options)

    return make


def data_of(html):
    (content,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', html)
    return json.loads(content)


def own(html):
    """The page without the library's script."""
    return re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)


def test_charts_are_drawn_from_every_value(make_run, page):
    make_run("one", 0.5, seed=1, started="1", findings=False)
    make_run("two", 0.7, seed=2, started="2")
    data = data_of(page())
    (mean, bolt, _) = data["rows"]
    assert (mean["class"], mean["mean"], bolt["mean"]) == ("mean", True, False)
    assert bolt["values"] == {
        **{key: [50.0, 70.0] for key in (*METRICS, "aupro_small", "aupro_medium")},
        "aupro_large": [],
    }
    assert data["metrics"] == [["image_auroc", "image AUROC"], ["aupro", "AUPRO"]]
    assert data["colours"] == {"all runs": "#d9532c"}
    assert data["curves"] == {"all runs": {}}  # the first run kept none


def test_curves_are_those_of_the_first_run_of_each_setting(make_run, page):
    make_run("one")
    curves = data_of(page())["curves"]["all runs"]["alpha"]
    assert set(curves["image_roc"]) == {"bolt", "nut"}
    assert set(curves["pixel_pr"]) == {"nut"}  # of bolt there is none
    assert curves["image_roc"]["bolt"]["y_name"] == "recall"


def test_names_are_text_wherever_they_stand(make_run, page):
    name = '</script><img src=x onerror="alert(1)">'
    make_run("one", dataset="odd")
    html = page(title=name)
    assert "<img src=x" not in html
    assert "&lt;/script&gt;&lt;img src=x" in html
    assert len(re.findall("<script", own(html))) == 1


def test_nothing_is_fetched(make_run, page):
    make_run("one")
    html = own(page())
    assert "default-src 'none'" in html
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)


def test_published_numbers_stand_beside_ours(make_run, page, tmp_path):
    make_run("one", 0.5)
    table = tmp_path / "p.csv"
    table.write_text("level,metric,dataset,method,percent\nimage,auroc,alpha,Theirs,91.8\n")
    html = own(page(published=table))
    (row,) = re.findall(r'<tr[^>]*class="published">(.*?)</tr>', html, flags=re.DOTALL)
    assert "Theirs (published)" in row
    assert '<td class="number best" data-value="0.918">91.8</td>' in row
    assert '<td class="number">-</td>' in row  # no AUPRO was published


def test_what_differs_and_runs_left_out_are_listed(make_run, page):
    make_run("one", config={"prompt": {"depth": 3}})
    make_run("two", config={"prompt": {"depth": 9}})
    cut = make_run("cut", findings=False)
    (cut / "results.json").unlink()
    html = own(page())
    assert "1 run left out" in html
    assert "cut (under way, interrupted or failed)</p>" in html
    assert re.search(r'<th scope="row">prompt.depth=3</th><td>3</td>', html)


def test_more_keys_than_settings_go_downwards(make_run, page):
    make_run("one", config={"a": 1, "b": 1, "c": 1})
    make_run("two", config={"a": 2, "b": 2, "c": 2})
    html = own(page())
    assert re.search(r'<th scope="row">b</th><td>1</td><td>2</td>', html)


def test_without_findings_there_is_no_gallery(make_run, page):
    make_run("one", findings=False)
    html = page()
    assert "<figure" not in own(html)
    assert data_of(html)["curves"] == {"all runs": {}}
