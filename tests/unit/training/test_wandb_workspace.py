import json
import sys

import pytest

from crane.errors import UsageError
from crane.training.wandb_logging import build_workspace, save_workspace

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style")  # theirs

PLAIN = {
    **{"entity": "team", "project": "crane", "name": "Crane"},
    **{"datasets": ["visa", "mpdd"], "metrics": ["image_auroc", "aupro"]},
}


def built(**changes):
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed")
    return build_workspace(**{**PLAIN, **changes})


def sent(workspace):
    """The sections as they would be sent: panels by the name of their section."""
    view = json.loads(workspace._to_model().model_dump_json(by_alias=True))
    sections = view["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def test_results_targets_training_configuration_and_system_have_a_section_each():
    workspace = built()
    assert (workspace.entity, workspace.project, workspace.name) == ("team", "crane", "Crane")
    names = ["Results", "visa", "mpdd", "Training", "Configuration", "System"]
    assert list(sent(workspace)) == names


def test_a_metric_has_one_panel_for_all_targets():
    bars = [panel["config"] for panel in sent(built())["Results"]]
    assert [bar["metrics"] for bar in bars] == [
        ["test/visa/image_auroc", "test/mpdd/image_auroc"],
        ["test/visa/aupro", "test/mpdd/aupro"],
    ]


def test_a_target_has_its_table_pictures_sizes_and_curves():
    panels = sent(built())["mpdd"]
    kinds = [panel["viewType"] for panel in panels]
    assert kinds == ["Weave", "Media Browser", "Bar Chart", *["Vega2"] * 5]
    text = json.dumps(panels)
    for key in ("results/mpdd", "images/mpdd", "test/mpdd/aupro_small", "curves/mpdd/pro_table"):
        assert f'"{key}"' in text
    assert "visa" not in text


def test_runs_are_grouped_by_their_sweep():
    view = json.loads(built()._to_model().model_dump_json(by_alias=True))
    assert '"group"' in json.dumps(view["spec"]["section"]["runSets"][0]["grouping"])


@pytest.mark.parametrize(("lacking", "key"), [("datasets", "datasets"), ("metrics", "panels")])
def test_nothing_to_show_is_refused(lacking, key):
    with pytest.raises(UsageError, match=f"{key} must name at least one"):
        built(**{lacking: []})


def test_without_a_login_saving_says_so(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"neither WANDB_API_KEY nor a stored login.*wandb login"):
        save_workspace(built())


def test_with_a_login_it_is_saved(monkeypatch):
    workspace = built()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    saved = []
    monkeypatch.setattr(type(workspace), "save", lambda self: saved.append(self) or self)
    monkeypatch.setattr(type(workspace), "url", "https://example.org/team/crane")
    assert save_workspace(workspace) == "https://example.org/team/crane"
    assert saved == [workspace]


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UsageError, match=r"pip install 'crane-ad\[wandb-workspaces\]'"):
        build_workspace(**PLAIN)
