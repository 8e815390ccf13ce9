"""`-S section.key=value`: read as DVC reads it, typed as params.yaml is."""

import argparse
import random
import shlex
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from stages.run.errors import UserError
from stages.run.settings import readings
from stages.run.settings.overrides import literal, parse
from stages.run.settings.params import Params, Section, add_override_option

TEXT = """
train:
  max_steps: 700
  means_lr: 0.004
  names:
  - a
  match_string: ''
  inner:
    on: true
captures:
  room: {}
"""


class Inner(Section):
    on: bool = False


class Train(Section):
    max_steps: int = 1
    means_lr: float = 1.0
    names: tuple[str, ...] = ()
    match_string: str = ""
    inner: Inner = Inner()


class Entry(Section):
    match_string: str = ""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "params.yaml"
    file.write_text(TEXT)
    return file


def test_overrides_replace_values_of_the_file(path: Path) -> None:
    texts = ["train.max_steps=3", "train.means_lr=1e-4", "train.names=[x,'y z']"]
    texts += ["train.match_string=RIGHT", "train.inner.on=false"]
    train = Params.read(path, texts).section("train", Train)
    assert train == Train(
        max_steps=3, means_lr=1e-4, names=("x", "y z"), match_string="RIGHT", inner=Inner(on=False)
    )
    assert Params.read(path).section("train", Train).max_steps == 700


STRANGE = [
    "/tmp/Zürich (2)/cal.tar",
    "/a,b",
    "~/x",
    "a=b",
    "#1",
    "it's",
    'say "x"',
    "x\\",
    'x\\"',
    "\\\\",
    "[a]",
    "{a}",
    "2",
    "true",
    "null",
    " a ",
    "a\nb",
    "${x}",
    "%(x)s",
    "$(x)",
    "`x`",
    "*",
    "",
    "@:/",
    "'quoted'",
    '"quoted"',
    "\\'",
    "a; rm b",
]


@pytest.mark.parametrize("value", STRANGE)
def test_text_is_taken_literally(path: Path, value: str) -> None:
    parser = argparse.ArgumentParser()
    add_override_option(parser)
    texts = parser.parse_args(["--set-text", f"train.match_string={value}"]).overrides
    train = Params.read(path, texts).section("train", Train)
    assert train.match_string == value


def test_any_text_is_taken_literally(path: Path) -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices("a\\\"' (,={$", k=draw.randint(1, 6))) for _ in range(300)]
    parsed = parse([literal(f"train.match_string={text}") for text in texts])
    assert [value for _, value, _ in parsed] == texts


@pytest.mark.parametrize("value", ["/tmp/Zürich (2)/cal.tar", "/a,b", "~/cal.tar", "it's"])
def test_error_shows_quoting_that_a_shell_and_dvc_accept(path: Path, value: str) -> None:
    with pytest.raises(UserError) as refused:
        Params.read(path, [f"train.match_string={value}"])
    shown = refused.value.fix.removeprefix("for a text write ").partition(";")[0]
    option, word = shlex.split(shown)
    assert option == "-S"
    assert Params.read(path, [word]).section("train", Train).match_string == value
    apply_overrides(path, [word])
    assert Params.read(path).section("train", Train).match_string == value


def test_dvc_reads_the_same_values(path: Path) -> None:
    """Against DVC's own `-S`, which rewrites the file."""
    from dvc.utils.hydra import apply_overrides

    texts = ["train.max_steps=3", "train.means_lr=1e-4", "train.names=[x,'y z',no]"]
    texts += ["train.match_string='a,b'", "train.inner.on=False", "+captures.hall={}"]
    ours = Params.read(path, texts).raw
    apply_overrides(path, texts)
    theirs = YAML(typ="safe").load(path)
    assert YAML(typ="safe").load(path.read_text()) == theirs
    assert ours == theirs


@pytest.mark.parametrize(
    ("texts", "parts"),
    [
        ("train.max_stepz=3", ["command line  train.max_stepz", "did you mean max_steps?"]),
        ("trian.max_steps=3", ["command line  trian", "did you mean train?"]),
        ("train.inner.off=1", ["command line  train.inner.off", "one of on"]),
        ("train.max_steps.x=1", ["command line  train.max_steps:"]),
        ("train.max_steps", ["not an override"]),
        ("max_steps=3", ["not one value for one key"]),
        ("train.max_steps=1,2", ["not one value for one key"]),
        ("~train.max_steps", ["not one value for one key"]),
        ("train.names=[a", ["not an override"]),
    ],
)
def test_invalid_overrides_are_refused(path: Path, texts: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        Params.read(path, [texts])
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 400])
def test_texts_that_crash_hydra_are_refused(path: Path, value: str) -> None:
    with pytest.raises(UserError, match="not an override"):
        Params.read(path, [f"train.max_steps={value}"])


def test_override_has_the_model_s_type_and_errors_name_the_command_line(path: Path) -> None:
    params = Params.read(path, ["train.max_steps=many", "train.names=[1]"])
    with pytest.raises(UserError) as caught:
        params.section("train", Train)
    message = str(caught.value)
    assert "command line  train.max_steps: got 'many'" in message
    assert "command line  train.names.0: got 1" in message
    assert "params.yaml" not in message.replace("command line", "").split("fix")[0]


def test_new_key_needs_a_plus_and_is_still_checked(path: Path) -> None:
    params = Params.read(path, ["+captures.room.match_string=RIGHT"])
    assert params.entry("captures", "room", Entry).match_string == "RIGHT"
    with pytest.raises(UserError, match=r"command line  captures\.room\.match: unknown key"):
        Params.read(path, ["+captures.room.match=RIGHT"]).entry("captures", "room", Entry)


def test_option_collects_every_setting() -> None:
    parser = argparse.ArgumentParser()
    add_override_option(parser)
    assert parser.parse_args([]).overrides == []
    texts = parser.parse_args(["-S", "a.b=1", "--set-param", "c.d=2"])
    assert texts.overrides == ["a.b=1", "c.d=2"]


def test_values_that_no_section_reads_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    texts = ["train.max_steps=3", "train.inner.on=false", "+captures.room.match_string=a"]
    params = Params.read(path, texts)
    assert len(list(params.unread())) == 3
    params.section("train", Train)
    caught = "command line  captures.room.match_string has no effect on this command"
    assert list(params.unread()) == [caught]
    assert list(params.unread(captures=["room"])) == []
    assert [line.split()[2] for line in params.unread(train=["inner"])] == [
        "captures.room.match_string",
        "train.max_steps",
    ]
    params.entry("captures", "room", Entry)
    assert list(params.unread()) == []
    assert params.overridden_keys("train") == {"max_steps", "inner"}


RECIPE = """
# Only what changes.
train:
  max_steps: 30000
  names:
  - b
  - c
  inner:
    on: false
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "full.yaml"
    file.write_text(RECIPE)
    return file


def test_recipe_replaces_values_in_memory_and_settings_go_on_top(path: Path, recipe: Path) -> None:
    parser = argparse.ArgumentParser()
    add_override_option(parser)
    more = recipe.with_name("more.yaml")
    more.write_text("train: {means_lr: 0.5, max_steps: 40}")
    words = ["-S", "train.max_steps=3", "--recipe", str(recipe), "--recipe", str(more)]
    before = path.read_bytes()
    params = Params.read(path, parser.parse_args(words).overrides)
    expected = Train(max_steps=3, means_lr=0.5, names=("b", "c"), inner=Inner(on=False))
    assert params.section("train", Train) == expected
    assert Params.read(path, [recipe, more]).section("train", Train).max_steps == 40
    assert Params.read(path, [more, recipe]).section("train", Train).max_steps == 30000
    assert path.read_bytes() == before
    assert params.overridden_keys("train") == {"max_steps"}


def test_section_of_a_recipe_that_a_command_does_not_read_is_no_matter(
    path: Path, recipe: Path
) -> None:
    params = Params.read(path, [recipe])
    params.entry("captures", "room", Entry)
    assert list(params.unread()) == []


def test_unknown_keys_of_a_recipe_are_refused_with_their_lines(path: Path, recipe: Path) -> None:
    recipe.write_text("train:\n  max_stepz: 3\ntrian:\n  max_steps: 3\n")
    with pytest.raises(UserError) as refused:
        Params.read(path, [recipe])
    message = str(refused.value)
    assert f"{recipe}:2  train.max_stepz: params.yaml has no such key" in message
    assert "did you mean max_steps?" in message
    assert f"{recipe}:3  trian: params.yaml has no such key" in message
    with pytest.raises(UserError, match=r"none\.yaml: no such file\n.*fix: name a file with keys"):
        Params.read(path, [recipe.with_name("none.yaml")])


def test_invalid_value_of_a_recipe_is_reported_where_it_stands(path: Path, recipe: Path) -> None:
    recipe.write_text("train:\n  inner:\n    on: 7\n  names:\n  - a\n  - 1\n")
    with pytest.raises(UserError) as refused:
        Params.read(path, [recipe, "train.means_lr=many"]).section("train", Train)
    message = str(refused.value)
    assert f"{recipe}:3  train.inner.on: got 7" in message
    assert f"{recipe}:6  train.names.1: got 1" in message
    assert "command line  train.means_lr: got 'many'" in message


def test_edit_of_a_recipe_during_a_run_is_reported(
    path: Path, recipe: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    with readings.tracking():
        Params.read(path, [recipe]).section("train", Train)
        recipe.write_text(RECIPE.replace("30000", "40000"))
        readings.check()
        with readings.params_for_children() as handed:
            assert Path(handed[readings.PARAMS_ENV]).read_text() == TEXT
    assert f"{recipe} was edited while this ran: train.max_steps: 30000 -> 40000" in caplog.text


@pytest.mark.parametrize("as_recipe", [True, False])
def test_key_below_an_empty_section_says_where_to_write_it(tmp_path: Path, as_recipe: bool) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("imports: {}\n")
    recipe = tmp_path / "more.yaml"
    recipe.write_text("imports: {mine: 3}\n")
    overrides = [recipe] if as_recipe else ["imports.mine=3"]
    with pytest.raises(UserError, match="where imports is empty") as refused:
        Params.read(path, overrides)
    assert "one of" not in str(refused.value)


def test_key_below_a_value_is_told_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("study: {count: 3}\n")
    with pytest.raises(UserError, match=r"study\.count: is a value or a list, not a section"):
        Params.read(path, ["study.count.more=3"])
