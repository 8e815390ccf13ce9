"""DVC's own tables of a study fit on a terminal of 120 columns."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from source_tree import ROOT

WIDTH = 120
MEANS = {"psnr": 21.524414, "ssim": 0.645583, "lpips": 0.155168}
HEADLINE = {name + whose: MEANS[name] for name in MEANS for whose in ("", "_none")}
EXPERIMENT = len("└── 84e8318 [prior-gulls]")
STUDY = (
    ".dvc/config",
    ".dvc/plots/page.html",
    ".dvcignore",
    ".gitignore",
    "dvc.lock",
    "dvc.yaml",
    "names_are_one_level.yaml",
    "params.yaml",
)


class Study:
    """Params, graph and metrics of this repository, in a git repository of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in STUDY:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        shutil.copytree(ROOT / "metrics", folder / "metrics")
        self.write("headline", HEADLINE)
        self.run("git", "init", "-q")
        self.run("git", "config", "user.email", "test@localhost")
        self.run("git", "config", "user.name", "test")
        self.commit("First")

    def run(self, *command: str) -> str:
        """Stdout of a command as in a terminal of WIDTH columns."""
        environment = os.environ | {"COLUMNS": str(WIDTH)}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def dvc(self, *words: str) -> str:
        """Stdout of a table of DVC, whose lines all fit."""
        text = self.run("dvc", *words)
        assert max(map(len, text.splitlines()), default=0) <= WIDTH, text
        return text

    def write(self, name: str, numbers: dict) -> None:
        path = self.folder / "metrics" / f"{name}.json"
        path.write_text(json.dumps(numbers))

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """The study as it is committed."""
    return Study(tmp_path / "study")


def test_metrics_are_one_row_of_numbers(study: Study) -> None:
    header, *rows = study.dvc("metrics", "show").splitlines()
    assert header.split() == ["Path", *sorted(HEADLINE)]
    assert [row.split()[0] for row in rows] == ["metrics/headline.json"]
    assert all(0 < float(cell) < 100 for cell in rows[0].split()[1:])


def test_difference_of_revisions_is_that_of_the_headline(study: Study) -> None:
    study.write("headline", HEADLINE | {"psnr": 22.0, "lpips": 0.15})
    for name in ("delta", "tune", "scenes/hi4d_pair15_fight/none"):
        path = study.folder / "metrics" / f"{name}.json"
        path.write_text(path.read_text().replace("1", "2"))
    header, *rows = study.dvc("metrics", "diff").splitlines()
    assert header.split() == ["Path", "Metric", "HEAD", "workspace", "Change"]
    assert [row.split()[:2] for row in rows] == [
        ["metrics/headline.json", "lpips"],
        ["metrics/headline.json", "psnr"],
    ]


def test_details_are_there_when_they_are_named(study: Study) -> None:
    delta = json.loads((study.folder / "metrics" / "delta.json").read_text())
    for row in delta["tuned-post_vs_base-post"].values():
        row["psnr"] += 0.1
    study.write("delta", delta)
    _, *rows = study.dvc("metrics", "diff", "--targets", "metrics/delta.json").splitlines()
    changed = [row.split()[1] for row in rows]
    assert changed == sorted(
        f"tuned-post_vs_base-post.{name}.psnr" for name in delta["tuned-post_vs_base-post"]
    )
    assert "psnr_aligned" in study.run("dvc", "metrics", "show", "metrics/scenes")


def test_experiments_show_what_differs(study: Study) -> None:
    yaml = YAML()
    params = yaml.load(study.folder / "params.yaml")
    params["study"]["subject"] = "none"
    yaml.dump(params, study.folder / "params.yaml")
    study.write("headline", HEADLINE | {name: value + 0.1 for name, value in MEANS.items()})
    study.commit("Subject")
    shown = "exp", "show", "--only-changed", "--drop", "data", "--drop", "metrics", "--all-commits"
    table = study.dvc(*shown).splitlines()
    assert table[1].split() == ["Experiment", "Created", *MEANS, "study.subject"]
    assert len(table[1].rstrip()) <= WIDTH - EXPERIMENT
    study.write("headline", {name: value + 0.2 for name, value in HEADLINE.items()})
    assert len(study.dvc(*shown).splitlines()[1].split()) == 2 + len(HEADLINE) + 1


def test_plots_pass_over_numbers_that_are_no_table(study: Study) -> None:
    study.run("dvc", "plots", "show", "-o", "plots", "metrics/delta.json", "metrics/tune.json")
    study.run("dvc", "plots", "show", "-o", "plots")
    page = (study.folder / "plots" / "index.html").read_text()
    assert "metrics/plots/delta.tsv" in page or "delta" in page
