"""Names of methods: each is parsed into its parts."""

import pytest

from stages.run.methods import METHODS, Method


@pytest.mark.parametrize("name", METHODS)
def test_names_survive_parsing(name: str) -> None:
    assert str(Method.parse(name)) == name


def test_methods_of_the_study() -> None:
    assert METHODS == ("none", "base-post", "base-distill", "tuned-post", "tuned-distill")


def test_only_tuned_methods_have_an_untuned_form() -> None:
    untuned = {name: Method.parse(name).untuned for name in METHODS}
    assert untuned == {
        "none": None,
        "base-post": None,
        "base-distill": None,
        "tuned-post": "base-post",
        "tuned-distill": "base-distill",
    }
