import pytest

from stages.run.errors import UserError, UserErrors, raise_all


def test_message_has_one_line_for_each_part_in_a_fixed_order() -> None:
    error = UserError(
        "a.yaml:3  x.y", "unknown key", expected="one of p, q", hint="did you mean p?", fix="edit"
    )
    assert str(error).splitlines() == [
        "a.yaml:3  x.y: unknown key",
        "expected one of p, q",
        "did you mean p?",
        "fix: edit",
    ]


def test_absent_parts_leave_no_empty_lines() -> None:
    assert str(UserError("here", "broken")) == "here: broken"


def test_nothing_is_raised_without_errors() -> None:
    raise_all(iter([]))


def test_one_error_is_raised_as_itself() -> None:
    error = UserError("here", "broken")
    with pytest.raises(UserError) as caught:
        raise_all([error])
    assert caught.value is error


def test_several_errors_are_raised_together_with_a_blank_line_between() -> None:
    errors = [UserError("a", "1", fix="fix a"), UserError("b", "2")]
    with pytest.raises(UserErrors) as caught:
        raise_all(iter(errors))
    assert caught.value.errors == errors
    assert str(caught.value) == "a: 1\nfix: fix a\n\nb: 2"
