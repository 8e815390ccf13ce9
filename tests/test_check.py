"""`python -m stages.check`: one line of good news, or every fault at once."""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ("tune", "difix", "distill")  # each of which some methods do not use
REPORT = "; import sys; print('LOADED', *sys.modules)"
Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a copy of params.yaml, to run the command in."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    modules = os.pathsep.join([str(ROOT), str(folder / "packages")])
    return subprocess.run(
        [sys.executable, "-m", "stages.check", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": modules, "TORCH_HOME": str(folder / "torch")},
        capture_output=True,
        text=True,
    )


def edit(folder: Path, change: Callable[[dict], None]) -> None:
    """Change params.yaml as a user would, keeping its layout."""
    yaml, path = YAML(), folder / "params.yaml"
    params = yaml.load(path)
    change(params)
    yaml.dump(params, path)


def line_of(folder: Path, text: str, after: str = "") -> int:
    """Number of the first line with a text, behind another text."""
    whole = (folder / "params.yaml").read_text()
    start = whole.index(text, whole.index(after))
    return whole.count("\n", 0, start) + 1


def test_good_params_end_in_a_summary(folder: Path) -> None:
    done = check(folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == (
        "study v0: 7 scenes, methods none, base-post, base-distill, tuned-post, tuned-distill, "
        "headline tuned-post"
    )
    assert "  tuning_scenes        hi4d_pair00_dance, hi4d_pair01_talk" in lines
    (guard,) = [line for line in lines if line.startswith("guard: ")]
    assert guard.startswith("guard: by name nothing is both tuned on and measured, verdict ")
    assert guard.endswith("; images are compared by stage manifest")
    assert "leak" not in done.stdout


def test_parameters_without_effect_are_named_with_their_line(folder: Path) -> None:
    number = line_of(folder, "    prune_scale3d:")
    output = [line for line in check(folder).stdout.splitlines() if "prune_scale3d" in line]
    assert output[0].startswith(f"note: params.yaml:{number}  train.strategy.prune_scale3d ")
    edit(folder, lambda params: params["train"]["strategy"].update(reset_every=100))
    assert "prune_scale3d" not in check(folder).stdout


def test_doubts_of_training_are_named_with_their_line(folder: Path) -> None:
    def doubts() -> list[str]:
        return [line for line in check(folder).stdout.splitlines() if "halve_every: " in line]

    assert not doubts()
    strategy = {"kind": "default", "halve_every": 3}
    edit(folder, lambda params: params["train"]["strategy"].update(strategy))
    number = line_of(folder, "    halve_every:")
    (doubt,) = doubts()
    assert doubt.startswith(f"note: params.yaml:{number}  train.strategy.halve_every: ")
    assert "steps between halvings are few" in doubt
    edit(folder, lambda params: params["train"].update(max_steps=2))
    (note,) = (line for line in check(folder).stdout.splitlines() if "halve_every" in line)
    assert "has no effect" in note


def test_what_needs_a_gpu_is_noted_where_there_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def notes() -> list[str]:
        return [line for line in check(folder).stdout.splitlines() if "needs a GPU" in line]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not notes()
    edit(folder, lambda params: params["train"].update(backend="cuda"))
    edit(folder, lambda params: params["train"]["strategy"].update(kind="mcmc"))
    assert [line.partition("  ")[2] for line in notes()] == [
        "train.backend: cuda needs a GPU, and this machine has none",
        "train.strategy.kind: mcmc needs a GPU, and this machine has none",
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert not notes()


def test_notes_are_printed_beside_errors_of_what_is_not_there(folder: Path) -> None:
    edit(folder, lambda params: params["base"].update(source="nowhere/at_all"))
    done = check(folder)
    assert done.returncode == 2
    assert "base.source" in done.stderr
    assert "train.strategy.prune_scale3d has no effect" in done.stdout
    assert "guard:" not in done.stdout


def test_switches_that_act_in_some_entries_alone_are_named_with_these(folder: Path) -> None:
    def change(params: dict) -> None:
        params["train"].update(warm_start=True, masks=True)
        params["pairs"]["steps"] = []
        params["prepare"]["masks"] = False

    edit(folder, change)
    output = [line for line in check(folder).stdout.splitlines() if "has no effect" in line]
    lines = [line for line in output if "train.warm_start" in line or "train.masks" in line]
    assert [line.split("train.")[1].split(":")[0] for line in lines] == [
        "masks has no effect on scenes",
        "warm_start has no effect in capture_train",
        "warm_start has no effect in static_train",
    ]


def test_fixer_that_is_tuned_at_another_scale_than_it_is_applied_at_is_named(folder: Path) -> None:
    def notes(*settings: str) -> list[str]:
        words = [word for one in settings for word in ("-S", one)]
        return [line for line in check(folder, *words).stdout.splitlines() if "scale" in line]

    assert not [line for line in notes() if "tuned on images" in line]
    (line,) = [line for line in notes("tune.resolution=320") if "tuned on images" in line]
    assert "tuned on images of 320 px and applied to images of their own size" in line
    crops, resizes = line.split("for one scale set ")[1].split(", or ")
    assert crops == "tune.resolution=0 and tune.crop_px=320, which crops"
    assert resizes == "difix.resolution=320, which resizes and loses detail"
    (line,) = [line for line in notes("difix.resolution=64") if "tuned on images" in line]
    assert "tuned on images of their own size and applied to images of 64 px" in line
    both = notes("tune.resolution=320", "difix.resolution=320")
    assert not [line for line in both if "tuned on images" in line]


def test_sections_that_no_method_uses_are_named_with_their_line(folder: Path) -> None:
    def notes() -> list[str]:
        lines = [line for line in check(folder).stdout.splitlines() if "on evaluations" in line]
        return [line.split(" has no effect")[0] for line in lines]

    def change(methods: list[str], fixers: list[str], of_captures: list[str]) -> list[str]:
        def changed(params: dict) -> None:
            params["study"].update(methods=methods, fixers=fixers, subject=methods[-1])
            params["capture_study"]["fixers"] = of_captures
            params["static"]["fixers"] = []

        edit(folder, changed)
        numbers = {name: line_of(folder, f"\n{name}:\n") + 1 for name in SECTIONS}
        return [f"note: params.yaml:{number}  {name}" for name, number in numbers.items()]

    tune, difix, distill = change(["none", "base-post"], ["base"], [])
    assert notes() == [tune, distill]
    tune, difix, distill = change(["none"], [], [])
    assert notes() == [tune, difix, distill]
    tune, difix, distill = change(["none"], [], ["tuned"])
    assert notes() == [distill], "captures are fixed by it"


def test_imports_without_a_role_are_named_with_their_line(folder: Path) -> None:
    def change(params: dict) -> None:
        params["imports"] = {"lab_walk": {"group": "pair07"}}

    edit(folder, change)
    place = f"params.yaml:{line_of(folder, '  lab_walk:')}  imports.lab_walk"
    done = check(folder)
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if "imports." in line]
    assert line.startswith(f"note: {place} has no effect: neither study.tuning_imports nor ")


def test_weights_that_are_not_here_are_named_with_what_depends_on_them(
    folder: Path, lpips_package: Path
) -> None:
    def change(params: dict) -> None:
        params["weights"].update(nets=["alex", "vgg"], download=False)
        params["tune"]["losses"]["net"] = "vgg"

    assert "no LPIPS weights here of alex (stage weights tries to" in check(folder).stdout
    (lpips_package / "alexnet.ckpt").touch()
    assert "LPIPS weights" not in check(folder).stdout, "alex is in the package"
    edit(folder, change)
    assert [line for line in check(folder).stdout.splitlines() if "LPIPS weights" in line] == [
        "note: no LPIPS weights here of vgg (no download): without them the fixer is tuned by "
        "other losses, and no number compares with a run that has it (tune.losses.net)"
    ]
    edit(folder, lambda params: params["evaluate"]["lpips"].update(also=["vgg"]))
    both = "LPIPS is not measured by it (evaluate.lpips.also); the fixer is tuned by other losses"
    assert both in check(folder).stdout
    edit(folder, lambda params: params["weights"].update(path="brought"))
    (folder / "brought").mkdir()
    (folder / "brought" / "vgg16-397923af.pth").touch()
    assert "LPIPS weights" not in check(folder).stdout


def test_memo_is_printed_on_demand(folder: Path) -> None:
    assert "## Key decisions" not in check(folder).stdout
    assert "## Key decisions" in check(folder, "--memo").stdout


def test_all_faults_come_at_once_with_their_lines(folder: Path) -> None:
    def spoil(params: dict) -> None:
        params["train"]["means_lr"] = "fast"
        params["train"]["strategy"]["prune_opac"] = 0.006
        params["study"]["tuning_scenes"][1] = "hi4d_pair15_fight"
        params["study"]["evaluated_scenes"][0] = "hi4d_pair02_dnace"
        params["calibrate"]["method"] = "colmap"
        params["viewer"] = {"port": 3}
        params["scenes"]["hi4d_pair01_talk"]["timestamp"] = 2

    edit(folder, spoil)
    done = check(folder)
    assert done.returncode == 2
    assert done.stdout == ""
    blocks = done.stderr.strip().split("\n\n")
    firsts = {block.splitlines()[0] for block in blocks}
    section = {
        name: line_of(folder, f"\n{name}:") for name in ("train", "calibrate", "study", "scenes")
    }
    assert section["study"] < section["scenes"] < section["calibrate"] < section["train"]
    in_study = line_of(folder, "- hi4d_pair15_fight", "\n  tuning_scenes:")
    evaluated = line_of(folder, "- hi4d_pair02_dnace")
    assert firsts == {
        f"params.yaml:{line_of(folder, 'viewer:')}  viewer: unknown section",
        f"params.yaml:{line_of(folder, '  means_lr:')}  train.means_lr: got 'fast'",
        f"params.yaml:{line_of(folder, 'prune_opac:')}  train.strategy.prune_opac: unknown key",
        f"params.yaml:{line_of(folder, 'method: colmap')}  calibrate.method: got 'colmap'",
        f"params.yaml:{line_of(folder, 'timestamp: 2')}  scenes.hi4d_pair01_talk.timestamp: "
        "unknown key",
        f"params.yaml:{in_study}  study.tuning_scenes.1: hi4d_pair15_fight is reserved",
        f"params.yaml:{evaluated}  study.evaluated_scenes.0: no scene 'hi4d_pair02_dnace'",
    }
    assert "did you mean prune_opa?" in done.stderr
    assert "did you mean hi4d_pair02_dance?" in done.stderr


def test_raw_data_that_was_not_brought_is_missed(folder: Path) -> None:
    def bring(params: dict) -> None:
        params["scenes"]["hi4d_pair19_piggyback"]["source"] = "hi4d"
        params["demo"]["scenes"].remove("hi4d_pair19_piggyback")

    edit(folder, bring)
    done = check(folder)
    assert done.returncode == 2
    assert done.stderr.startswith("data/raw/hi4d_pair19_piggyback: ")
    assert "dvc import-url" in done.stderr


def test_raw_data_that_was_brought_passes(folder: Path, raw_sequence: Callable[..., Path]) -> None:
    raw_sequence(folder / "data/raw/hi4d_pair19_piggyback", (4, 16, 28, 40, 52, 64, 76, 88))

    def bring(params: dict) -> None:
        params["scenes"]["hi4d_pair19_piggyback"]["source"] = "hi4d"
        params["demo"]["scenes"].remove("hi4d_pair19_piggyback")

    edit(folder, bring)
    assert check(folder).stderr == ""


def test_demo_may_not_write_over_data_that_was_brought(folder: Path) -> None:
    edit(folder, lambda params: params["scenes"]["hi4d_pair00_dance"].update(source="hi4d"))
    done = check(folder)
    assert done.returncode == 2
    place = line_of(folder, "- hi4d_pair00_dance", "\ndemo:")
    assert f"params.yaml:{place}  demo.scenes.0: stage demo would overwrite" in done.stderr


def test_demo_scene_must_be_generated(folder: Path) -> None:
    edit(folder, lambda params: params["demo"].update(scenes=[]))
    done = check(folder)
    assert done.returncode == 2
    assert done.stderr.count("is not in `demo.scenes`") == 7


def test_nothing_heavy_is_loaded() -> None:
    code = "import runpy; runpy.run_module('stages.check', run_name='__main__', alter_sys=True)"
    done = subprocess.run(
        [sys.executable, "-c", code + REPORT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.partition("LOADED ")[2].split())
    assert "stages.check" in loaded or "__main__" in loaded
    assert not loaded & {"torch", "numba", "pycolmap", "gsplat", "scipy", "numpy", "dvc"}


def test_it_takes_less_than_two_seconds(folder: Path) -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        check(folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    # Of the processor, since other processes may hold the machine meanwhile.
    assert min(seconds() for _ in range(3)) < 2


def test_captures_that_are_not_there_are_reported(folder: Path) -> None:
    def change(params: dict) -> None:
        params["capture_study"]["captures"] = ["demo_rom", "kitchen"]
        params["capture_study"]["evaluated"] = ["hall"]
        params["captures"]["kitchen"] = {"match_string": "LEFT"}

    edit(folder, change)
    done = check(folder)
    assert done.returncode == 2
    for output in (
        "'demo_rom' is not in `captures`",
        "did you mean demo_room?",
        "no folder data/raw/kitchen",
        "'hall' is not trained",
    ):
        assert output in done.stderr


@pytest.mark.parametrize("name", ["../../precious", "room.v2", 2024, "x; touch F; true", "--help"])
def test_name_that_is_no_folder_and_no_word_is_refused_with_its_line(
    folder: Path, name: object
) -> None:
    def rename(params: dict) -> None:
        params["demo"]["scenes"][-1] = name
        params["study"]["scenes"][-1] = name
        params["scenes"][name] = params["scenes"].pop("hi4d_pair19_piggyback")

    edit(folder, rename)
    done = check(folder)
    assert done.returncode == 2
    in_study = line_of(folder, "- hi4d_pair17_dance", "\n  scenes:") + 1
    assert f"params.yaml:{in_study}  study.scenes.6: got {name!r}\nexpected a name: " in done.stderr
    in_demo = line_of(folder, "- hi4d_pair17_dance", "\ndemo:") + 1
    assert f"params.yaml:{in_demo}  demo.scenes.6: got {name!r}\n" in done.stderr
    assert f"  scenes.{name}: got {name!r}\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_goes_through_dvc_refuses_such_names_first(folder: Path) -> None:
    edit(folder, lambda params: params["static"].update(scenes=["../../precious"]))
    line = line_of(folder, "- ../../precious")
    for words in (["plan"], ["submit", "--local"], ["ablate", "train.max_steps=5"]):
        done = subprocess.run(
            [sys.executable, "-m", f"stages.{words[0]}", *words[1:]],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert f"params.yaml:{line}  static.scenes.0: got '../../precious'\n" in done.stderr
    assert list(folder.iterdir()) == [folder / "params.yaml"]


def test_references_that_no_fixer_takes_are_refused_before_anything_runs(folder: Path) -> None:
    def change(params: dict) -> None:
        params["difix"] |= {"references": 2, "reference_from": "previous"}
        params["pairs"]["reference"]["strategy"] = "temporal"

    edit(folder, change)
    done = check(folder)
    assert done.returncode == 2, done.stderr
    for says in (
        "difix.references: 2\nexpected 1 with a tuned fixer",
        "difix.reference_from: previous, with pairs.reference.strategy: temporal\n"
        "expected same_time",
    ):
        assert says in done.stderr


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("farthest", "got 'farthest'\nexpected nearest, overlap, previous, or a source camera"),
        ({"source": None}, "got {'source': None}\nexpected a text, in quotes: \"source:\""),
        ("source:99", "'99' is no source camera of hi4d_pair00_dance, hi4d_pair01_talk"),
        ("source:28", "'28' is no source camera of hi4d_pair00_dance, hi4d_pair01_talk"),
    ],
)
def test_reference_that_no_scene_has_is_refused(folder: Path, value: object, says: str) -> None:
    edit(folder, lambda params: params["difix"].update(reference_from=value))
    done = check(folder)
    assert done.returncode == 2, done.stdout
    assert f"difix.reference_from: {says}" in done.stderr


def test_source_cameras_that_cannot_be_left_out_are_refused(folder: Path) -> None:
    def change(params: dict) -> None:
        params["pairs"]["leave_out"] = [4, [16, "160"]]
        params["pairs"]["degradation"]["sparse"] = 6

    edit(folder, change)
    done = check(folder)
    assert done.returncode == 2, done.stdout
    for says in (
        "pairs.leave_out.1: '160'\nexpected source cameras of hi4d_pair00_dance: 4, 16, 40",
        "pairs.degradation.sparse: 6 leaves one of 6 source cameras of hi4d_pair01_talk",
    ):
        assert says in done.stderr
    done = check(folder, "-S", "pairs.leave_out=[4,[16,88]]", "-S", "pairs.degradation.sparse=2")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([7, 42], "study.seeds.1: 42 is train.seed"),
        (1, "study.seeds: got 1\nexpected a list in brackets, such as [1]"),
    ],
)
def test_seeds_that_repeat_nothing_are_refused(folder: Path, value: object, says: str) -> None:
    edit(folder, lambda params: params["study"].update(seeds=value))
    done = check(folder)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("base", "source", "shiped", "base.source: no fixer 'shiped'.*did you mean shipped"),
        ("base", "source", "/nope/model.pkl", "base.source: no fixer '/nope/model.pkl'"),
        ("base", "source", "here", "here is no fixer: it has no unet/config.json"),
        ("base", "source", "nvida/difix", "nvida/difix is neither in .*did you mean nvidia/difix"),
        ("tune", "init_from", "/nope", "tune.init_from: /nope: no such folder or file"),
        ("tune", "init_from", "here", "tune.init_from: here is no fixer"),
        ("weights", "path", "/nope", "weights.path: '/nope': no such file or folder"),
        ("static", "lf_calib", "/nope", "static.lf_calib: '/nope': no such file or folder"),
        ("train", "match_string", "left", "train.match_string: 'left' matches no source camera"),
    ],
)
def test_what_params_name_is_looked_for_before_anything_runs(
    folder: Path, section: str, key: str, value: str, says: str
) -> None:
    (folder / "here").mkdir()

    def change(params: dict) -> None:
        params[section][key] = value
        params["runtime"]["base"]["download"] = False

    edit(folder, change)
    done = check(folder)
    assert done.returncode == 2, done.stderr
    assert re.search(says, done.stderr, re.DOTALL), done.stderr
    assert "Traceback" not in done.stderr


def test_one_source_camera_and_one_that_is_held_out_are_refused(folder: Path) -> None:
    def change(params: dict) -> None:
        scenes = params["scenes"]
        scenes["hi4d_pair15_fight"]["source_cameras"] = ["4"]
        params["train"] |= {"match_string": "16", "test_every": 2}

    edit(folder, change)
    output = check(folder).stderr
    assert "hi4d_pair15_fight.source_cameras: only 4" in output
    assert "train.test_every: 2 holds out 16, the only camera of hi4d_pair00_dance" in output


def test_checkpoints_are_not_asked_for_where_no_fixer_is_used(folder: Path) -> None:
    def change(params: dict) -> None:
        params["base"]["source"] = "/nope/model.pkl"
        params["study"] |= {"methods": ["none"], "fixers": [], "subject": "none"}

    edit(folder, change)
    assert check(folder).returncode == 0


@pytest.mark.parametrize("key", ["net", "also"])
def test_a_net_that_is_measured_and_not_fetched_is_named(folder: Path, key: str) -> None:
    value = {"net": "vgg", "also": ["vgg"]}[key]
    edit(folder, lambda params: params["evaluate"]["lpips"].update({key: value}))
    number = line_of(folder, f"    {key}:", after="evaluate:\n  # auto: cuda")
    done = check(folder)
    assert done.returncode == 2
    assert f"params.yaml:{number}  evaluate.lpips.{key}: vgg\n" in done.stderr
    assert "expected one of weights.nets: alex\n" in done.stderr
    assert "fix: add vgg to weights.nets" in done.stderr
    edit(folder, lambda params: params["weights"]["nets"].append("vgg"))
    assert check(folder).returncode == 0


def test_a_study_without_lpips_is_no_error(folder: Path) -> None:
    edit(folder, lambda params: params["weights"].update(nets=[]))
    assert check(folder).returncode == 0


def test_values_of_the_command_line_are_judged_as_those_of_the_file(folder: Path) -> None:
    before = (folder / "params.yaml").read_bytes()
    assert check(folder, "-S", "study.seeds=[1,2]").returncode == 0
    done = check(
        folder, "-S", "study.seeds=1", "-S", "study.subject=tuned", "-S", "train.means_lr=x"
    )
    assert done.returncode == 2
    assert done.stderr.split("\n\n") == [
        "command line  study.seeds: got 1\nexpected a list in brackets, such as [1]\n"
        "fix: write 'study.seeds=[1]', with the quotes",
        "command line  train.means_lr: got 'x'\nexpected a number\nfix: set another value there\n",
    ]
    done = check(folder, "-S", "study.subject=tuned")
    assert done.stderr.startswith("command line  study.subject: 'tuned' is not in `study.methods`")
    assert done.stderr.endswith("fix: set another value there\n")
    assert (folder / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("captures.demo_room.match_string=a/b", "a word in names of images, without / and \\"),
        ("train.match_string=left", "a whole word in one of 4, 16, 40, 52, 76, 88"),
    ],
)
def test_one_bad_value_is_one_error(folder: Path, text: str, says: str) -> None:
    done = check(folder, "-S", text)
    assert done.returncode == 2
    assert done.stderr.count("command line  ") == 1
    assert done.stderr.endswith(f"expected {says}\nfix: set another value there\n")
