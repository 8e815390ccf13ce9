"""What a visitor meets first: numbers, citation, containers and artifacts agree with the rest."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from source_tree import ROOT

from stages.quality.decision import verdict_lines
from stages.run.files import read_json

README = (ROOT / "README.md").read_text()
METRICS = ROOT / "metrics"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
BENCHMARK = re.compile(r"python -m (benchmarks\.[a-z_]+)([^`|\n]*)")


def test_table_of_methods_is_that_of_the_metrics() -> None:
    summary, rows = read_json(METRICS / "summary.json"), []
    for method, row in summary.items():
        cells = [f"{row['psnr']:.2f}", f"{row['ssim']:.3f}", f"{row['lpips']:.3f}"]
        rows.append(f"| `{method}` | {' | '.join([*cells, format(row['psnr_aligned'], '.2f')])} |")
    assert _rows_between(README, "| mean of ") == rows
    (scenes,) = {row["scenes"] for row in summary.values()}
    assert f"| mean of {scenes} downstream scenes" in README
    floor = summary["none"]["mean_color_psnr"]
    assert f"An image of the mean colour reaches {floor:.2f} dB" in README


def test_verdict_is_that_of_the_decision() -> None:
    delta = read_json(METRICS / "delta.json")
    lines = list(verdict_lines(delta["study"]["subject"], delta))
    against_none = next(line for line in lines if line.startswith("- Against none:"))
    assert f"> {lines[0]} {against_none.removeprefix('- ')}" in README


def test_fixer_has_as_many_parameters_as_the_decision_says() -> None:
    """The figure of its line on the fixer, which stage compare writes."""
    (line,) = re.findall(r"^- Fixer: .*$", (METRICS / "decision.md").read_text(), re.M)
    (measured,) = re.findall(r"([\d.]+ [MG]) parameters", line)
    assert re.findall(r"fixer of ([\d.]+ [MG]) parameters", README) == [measured]


def test_tables_of_captures_and_static_scenes_are_those_of_the_metrics() -> None:
    page, rows = (ROOT / "docs" / "captures.md").read_text(), []
    for variant in ("combined", "filtered"):
        for name in (variant, f"{variant}_on_eval"):
            row = read_json(METRICS / "captures" / "demo_room" / f"{name}.json")
            rows.append((str(row["views"]), f"{row['psnr']:.2f}", f"{row['lpips']:.3f}"))
    shown = [_cells(line) for line in _rows_between(page, "| embedded demo")]
    assert [(cells[1].split()[0], *cells[2:]) for cells in shown] == rows
    table, rows = read_json(METRICS / "static" / "table.json"), []
    for camera in ("monocular", "iphone", "stereo", "lightfield"):
        row, fixed = table[camera], table[f"{camera} by tuned-post"]
        measures = [f"{row['mpsnr']:.2f}", f"{row['mlpips']:.3f}", f"{row['covisible']:.0%}"]
        measures += [f"{row['psnr']:.2f}", f"{row['lpips']:.3f}", f"{fixed['psnr']:.2f}"]
        rows.append([camera, *measures])
    shown = [_cells(line) for line in _rows_between(page, "| static scene")]
    assert [[cells[0].split(",")[0], *cells[1:]] for cells in shown] == rows
    fixed = read_json(METRICS / "captures" / "demo_room" / "tuned" / "combined_on_eval-post.json")
    assert f"{fixed['psnr']:.2f} dB by `combined`" in page


def test_measured_parts_stand_in_the_benchmarks() -> None:
    """Every number with its unit in the README's tables of parts and costs, and a command."""
    pages = [ROOT / "benchmarks" / "README.md", ROOT / "benchmarks" / "difix.md"]
    known = "\n".join(page.read_text() for page in pages).replace("**", "")
    for start in ("| part | measured | command |\n|---|---|---|\n| trainer", "| part | measured |"):
        for line in _rows_between(README[README.index(start) :], "| part"):
            _, measured, command = _cells(line)
            numbers = re.findall(r"\d[\d.,]*(?= ?(?:ms|s|steps/s|GiB|dB)\b)", measured)
            for number in numbers:
                assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", known), (number, line)
            assert "`python -m " in command or measured == "not measured", line


@pytest.mark.parametrize(
    ("module", "words"),
    sorted({match for page in PAGES for match in BENCHMARK.findall(page.read_text())}),
)
def test_benchmark_has_these_flags(module: str, words: str) -> None:
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    parts = [source, *(one.read_text() for one in (ROOT / "benchmarks").glob("*_resume.py"))]
    for flag in re.findall(r"--[a-z-]+", words):
        assert any(f'"{flag}"' in part for part in parts), f"{module} knows no {flag}"


def test_versions_agree() -> None:
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    newest = re.search(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest
    assert newest.groups() == (version, str(citation["date-released"]))
    assert citation["version"] == version
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["license"] == "MIT"
    assert f"--rev v{version}`" in README


def test_containers_take_the_steps_of_the_makefile() -> None:
    """And a Python that the project supports; the recipe brings all that `make setup` reads."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    editor = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    make, target = editor["postCreateCommand"].split()
    assert (make, target) == ("make", "setup")
    assert target in targets
    assert re.match(r"python:3\.1[123]-", editor["image"])
    recipe = (ROOT / "container" / "splatfix.def").read_text()
    sections = dict(re.findall(r"^%([a-z]+)\n(.*?)(?=^%|\Z)", recipe, re.M | re.S))
    assert set(sections) == {"files", "post", "environment", "test"}
    for line in sections["files"].split("\n"):
        if line.strip():
            source, place = line.split()
            assert (ROOT / source).is_file()
            assert place == f"/opt/splatfix/{source}"
    (needed,) = re.findall(r"^\.venv/installed: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    needed = needed.replace("$(LOCK)", "requirements.lock")
    assert {"Makefile", *needed.split()} == set(sections["files"].split()[::2])
    assert "make -C /opt/splatfix setup\n" in sections["post"]
    assert "PATH=/opt/splatfix/.venv/bin:" in sections["environment"]
    post = sections["post"].replace("\\\n", " ")
    assert {"make", "git", "g++", "python3-venv"} <= set(post.split())
    subprocess.run(["sh", "-n"], input=sections["post"], text=True, check=True)
    (cuda,) = re.findall(r"From: nvidia/cuda:(\d+)\.", recipe)
    runtime = re.search(
        r"^nvidia-cuda-runtime==(\d+)", (ROOT / "requirements.lock").read_text(), re.M
    )
    assert runtime
    assert runtime[1] == cuda, "gsplat needs the compiler of torch's CUDA"


def test_artifacts_are_the_fixers_of_the_graph() -> None:
    from dvc.repo import Repo

    with Repo(ROOT) as repo:
        (declared,) = repo.artifacts.read().values()
        outs = {Path(out.def_path).as_posix() for stage in repo.index.stages for out in stage.outs}
    assert set(declared) == {"fixer-base", "fixer-tuned"}
    for name, artifact in declared.items():
        assert artifact.path in outs, name
        assert (artifact.type, bool(artifact.desc), bool(artifact.labels)) == ("model", True, True)


def test_artifact_can_be_fetched_by_its_name(tmp_path: Path) -> None:
    """By DVC's own command and API, from another repository with the same declarations."""
    from dvc.api import artifacts_show

    source = tmp_path / "source"
    (source / "data" / "difix" / "tuned").mkdir(parents=True)
    (source / "data" / "difix" / "tuned" / "unet.safetensors").write_bytes(b"weights")
    yaml: Any = YAML()
    declared = yaml.load(ROOT / "dvc.yaml")["artifacts"]
    yaml.dump({"artifacts": declared}, source / "dvc.yaml")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    dvc = [sys.executable, "-m", "dvc"]
    for command in (
        ["git", "init", "--quiet"],
        [*dvc, "init", "--quiet"],
        [*dvc, "add", "--quiet", "data/difix/tuned"],
        ["git", "add", "."],
        [*git, "commit", "--quiet", "--message", "fixer"],
        [*git, "tag", "--annotate", "--message", "first", "fixer-tuned@v0.1.0"],
    ):
        subprocess.run(command, cwd=source, check=True)
    shown = artifacts_show("fixer-tuned", version="v0.1.0", repo=str(source))
    assert shown["path"] == "data/difix/tuned"
    for place, words in (("newest", []), ("named", ["--rev", "v0.1.0"])):
        get = [*dvc, "artifacts", "get", str(source), "fixer-tuned", *words, "--out", place]
        subprocess.run(get, cwd=tmp_path, check=True)
        assert (tmp_path / place / "unet.safetensors").read_bytes() == b"weights"


def _rows_between(page: str, start: str) -> list[str]:
    """The body of the first table whose head begins so."""
    table = page[page.index(start) :].split("\n\n")[0].splitlines()
    return table[2:]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]
