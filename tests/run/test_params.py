import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from stages.run.errors import UserError, UserErrors
from stages.run.settings.params import Params, Section, did_you_mean

Write = Callable[[str], Params]


class Strategy(Section):
    """A nested section."""

    prune_opa: float = 0.005
    kind: Literal["default", "mcmc"] = "default"


class Capture(Section):
    """An item of a list of sections."""

    data_dir: str


class Train(Section):
    """A section with every kind of field."""

    steps: int = Field(ge=1)
    lr: float = 1e-3
    mixed_precision: str = "no"
    masks: bool = False
    eval_steps: tuple[int, ...] = ()
    strategy: Strategy = Strategy()
    captures: tuple[Capture, ...] = ()
    spare: Strategy | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "Train":
        if list(self.eval_steps) != sorted(self.eval_steps):
            raise ValueError("eval_steps must rise")
        return self


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Parse an indented text as params.yaml."""

    def parsed(text: str) -> Params:
        path = tmp_path / "params.yaml"
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return Params.read(path)

    return parsed


def error_lines(params: Params, tmp_path: Path, name: str = "train") -> list[str]:
    """First lines of every error of a section, without the folder."""
    with pytest.raises(UserError) as caught:
        params.section(name, Train)
    error = caught.value
    errors = error.errors if isinstance(error, UserErrors) else [error]
    return [str(error).splitlines()[0].removeprefix(f"{tmp_path}/") for error in errors]


def test_value_is_one_key_of_a_checked_section(write: Write) -> None:
    assert write("strategy:\n  prune_opa: 0.2\n").value("strategy", "prune_opa", Strategy) == 0.2
    assert write("other: {}\n").value("strategy", "prune_opa", Strategy) == 0.005
    with pytest.raises(UserError, match="strategy"):
        write("strategy:\n  kind: wrong\n").value("strategy", "prune_opa", Strategy)


def test_section_is_typed_and_frozen(write: Write) -> None:
    train = write("""
        train:
          steps: 30
          lr: 1e-4
          eval_steps:
          - 10
          - 30
          strategy:
            prune_opa: 0.006
          captures:
          - data_dir: a
        """).section("train", Train)
    assert train == Train(
        steps=30,
        lr=0.0001,
        eval_steps=(10, 30),
        strategy=Strategy(prune_opa=0.006),
        captures=(Capture(data_dir="a"),),
    )
    with pytest.raises(ValidationError):
        train.steps = 1


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("2e-05", 2e-5), ("010", 10.0), ("1_000", 1000.0), (".5", 0.5), ("3", 3.0)],
)
def test_numbers_are_those_of_yaml_1_2(write: Write, text: str, value: float) -> None:
    train = write(f"train:\n  steps: 1\n  lr: {text}\n").section("train", Train)
    assert train.lr == value
    assert type(train.lr) is float


@pytest.mark.parametrize("text", ["no", "off", "yes", "fp16"])
def test_words_that_yaml_1_1_took_for_booleans_are_text(write: Write, text: str) -> None:
    params = write(f"train:\n  steps: 1\n  mixed_precision: {text}\n")
    assert params.section("train", Train).mixed_precision == text


def test_anchored_boolean_stays_a_boolean(write: Write) -> None:
    params = write("train:\n  steps: 1\n  masks: &on true\n")
    assert params.section("train", Train).masks is True


def test_value_of_none_of_several_types_is_one_error(write: Write) -> None:
    class Rates(Section):
        rate: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
        scale: float = 1.0

    assert write("train:\n  rate: 0.5\n").section("train", Rates).rate == 0.5
    params = write("""
        train:
          rate: fast
          scale: x
        """)
    with pytest.raises(UserErrors) as caught:
        params.section("train", Rates)
    first, second = caught.value.errors
    assert "train.rate: got 'fast'" in str(first)
    assert "expected 'auto' or a number" in str(first)
    assert "train.scale: got 'x'" in str(second)


def test_several_errors_come_at_once_each_with_its_line(write: Write, tmp_path: Path) -> None:
    params = write("""
        # a comment
        demo:
          seed: 0

        train:
          steps: 0
          # about lr
          lr: fast
          masks: 1
          eval_steps:
          - 10
          - ten
          strategy:
            prune_opac: 0.006
            kind: adam
          captures:
          - data_dir: a
          - data_dri: b
        """)
    assert error_lines(params, tmp_path) == [
        "params.yaml:6  train.steps: got 0",
        "params.yaml:8  train.lr: got 'fast'",
        "params.yaml:9  train.masks: got 1",
        "params.yaml:12  train.eval_steps.1: got 'ten'",
        "params.yaml:14  train.strategy.prune_opac: unknown key",
        "params.yaml:15  train.strategy.kind: got 'adam'",
        "params.yaml:18  train.captures.1.data_dir: missing",
        "params.yaml:18  train.captures.1.data_dri: unknown key",
    ]


def test_unknown_key_names_the_known_and_the_nearest(write: Write) -> None:
    params = write("train:\n  steps: 1\n  strategy:\n    prune_opac: 0.1\n")
    with pytest.raises(UserError) as caught:
        params.section("train", Train)
    assert str(caught.value).splitlines()[1:] == [
        "expected one of prune_opa, kind",
        "did you mean prune_opa?",
        "fix: edit the line, then run `python -m stages.check`",
    ]


@pytest.mark.parametrize("place", ["captures:\n  - data_dri: b", "spare:\n    data_dri: b"])
def test_unknown_key_inside_a_list_or_an_optional_section_names_the_known(
    write: Write, place: str
) -> None:
    params = write(f"train:\n  steps: 1\n  {place}\n")
    with pytest.raises(UserError, match=r"expected one of (data_dir|prune_opa, kind)\n"):
        params.section("train", Train)


@pytest.mark.parametrize("value", ["true", "1.5", "'1'", "null", "[1]", "{a: 1}"])
def test_no_value_is_silently_converted_to_an_integer(
    write: Write, tmp_path: Path, value: str
) -> None:
    lines = error_lines(write(f"train:\n  steps: {value}\n"), tmp_path)
    assert [line.partition(": ")[0] for line in lines] == ["params.yaml:2  train.steps"]


def test_missing_key_is_reported_at_its_section(write: Write, tmp_path: Path) -> None:
    assert error_lines(write("a: {}\ntrain:\n  lr: 1\n"), tmp_path) == [
        "params.yaml:2  train.steps: missing"
    ]


def test_rule_over_several_keys_is_reported_without_the_whole_section(
    write: Write, tmp_path: Path
) -> None:
    params = write("train:\n  steps: 1\n  eval_steps:\n  - 2\n  - 1\n")
    assert error_lines(params, tmp_path) == ["params.yaml:1  train: eval_steps must rise"]


def test_lines_are_right_after_dvc_rewrote_the_file(write: Write, tmp_path: Path) -> None:
    from dvc.utils.hydra import apply_overrides

    params = write("""
        study:
          # a flow list becomes a block list, one line per item
          scenes: [a, b, c]
          # dropped by the rewrite, as every comment after a block list
          version: v0
        train:
          # steps
          steps: 1
          lr: 1e-3
          masks: false
        """)
    path = str(params.path)
    apply_overrides(path, ["train.lr=2e-5", "train.masks=maybe"])
    apply_overrides(path, ["study.scenes=[a]"])
    again = Params.read(path)
    lines = params.path.read_text().splitlines()
    number = lines.index("  masks: maybe") + 1
    assert error_lines(again, tmp_path) == [f"params.yaml:{number}  train.masks: got 'maybe'"]
    apply_overrides(path, ["train.masks=true"])
    assert Params.read(path).section("train", Train) == Train(steps=1, lr=2e-5, masks=True)


def test_catalogue_entries(write: Write) -> None:
    params = write("captures:\n  dog:\n    data_dir: a\n  cat:\n    data_dir: b\n")
    assert params.names("captures") == ["dog", "cat"]
    assert params.entry("captures", "cat", Capture).data_dir == "b"
    assert params.names("absent") == []
    with pytest.raises(UserError, match=r"params\.yaml:1  captures\.dig: missing") as caught:
        params.entry("captures", "dig", Capture)
    assert "did you mean dog?" in str(caught.value)


def test_check_all_collects_errors_of_every_section_and_catalogue(
    write: Write, tmp_path: Path
) -> None:
    params = write("""
        trian:
          steps: 1
        train:
          steps: no
        captures:
          dog:
            data_dir: a
          cat:
            data_dir: 3
        spare: 5
        """)
    sections = {"train": Train, "strategy": Strategy, "spare": Strategy}
    values, errors = params.check_all(sections, {"captures": Capture, "rigs": Capture})
    assert values == {"captures": {"dog": Capture(data_dir="a")}}
    assert [str(error).splitlines()[0].rpartition("/")[2] for error in errors] == [
        "params.yaml:1  trian: unknown section",
        "params.yaml:4  train.steps: got 'no'",
        "params.yaml  strategy: missing",
        "params.yaml:10  spare: 5",
        "params.yaml:9  captures.cat.data_dir: got 3",
        "params.yaml  rigs: missing",
    ]
    assert errors[0].hint == "did you mean train?"


def test_check_all_returns_every_valid_value(write: Write) -> None:
    params = write("train:\n  steps: 1\ncaptures:\n  dog:\n    data_dir: a\n")
    values, errors = params.check_all({"train": Train}, {"captures": Capture})
    assert errors == []
    assert values == {"train": Train(steps=1), "captures": {"dog": Capture(data_dir="a")}}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\nb: [1, 2\n", r"params\.yaml:\d"),
        ("a:\n  b: 1\n  b: 2\n", r"params\.yaml:3"),
        ("a:\n\tb: 1\n", r"params\.yaml:2"),
        ("a: \x00\n", r"params\.yaml"),
    ],
)
def test_invalid_yaml_is_reported(write: Write, text: str, place: str) -> None:
    with pytest.raises(UserError, match=place + ": not YAML"):
        write(text)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[" * 400 + "]" * 400, "nested too deep"),
        ("!!int x", "invalid literal"),
        ("!!float x", "could not convert"),
        ("2001-99-99", "month"),
        ("9" * 5000, "limit"),
        ('"\\U00110000"', "range"),
        ("[" * 60 + "]" * 60, "levels"),
    ],
)
def test_values_that_crash_the_loader_or_the_models_are_reported(
    write: Write, value: str, message: str
) -> None:
    with pytest.raises(UserError, match=rf"params\.yaml.*not YAML: .*{message}"):
        write(f"train:\n  steps: {value}\n")


def test_aliases_that_expand_beyond_memory_are_reported(write: Write) -> None:
    lines = ["a0: &a0 x"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 11)]
    with pytest.raises(UserError, match="not YAML: more than 100000 values"):
        write("\n".join(lines))
    assert write("\n".join(lines[:4])).raw["a3"][9][9][9] == "x"


def test_bytes_that_are_not_text_are_reported(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(UserError, match="not YAML"):
        Params.read(tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["", "- a\n", "word\n"])
def test_file_without_sections(write: Write, text: str) -> None:
    with pytest.raises(UserError, match="no sections"):
        write(text)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Params.read(tmp_path / "params.yaml")


def test_no_hint_for_a_name_unlike_all_others() -> None:
    assert did_you_mean("zebra", ["steps", "lr"]) == ""
