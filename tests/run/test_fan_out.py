"""Lists that become folders of DVC: judged before DVC sees them."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.run.errors import UserError
from stages.run.settings.fan_out import DATA, LISTS, collisions, require_names
from stages.run.settings.params import Params

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def params() -> Params:
    """The committed params, to be changed."""
    return Params.read(ROOT / "params.yaml")


def put(params: Params, keys: tuple[str, str], value: Any) -> None:
    params.raw[keys[0]][keys[1]] = value


def errors_of(params: Params) -> str:
    return "\n".join(str(error) for error in collisions(params))


def test_committed_names_are_fit(params: Params) -> None:
    require_names(params)


@pytest.mark.parametrize("keys", LISTS, ids=".".join)
@pytest.mark.parametrize("name", ["../x", 2024, None])
def test_item_of_any_list_that_is_no_name_is_refused(
    params: Params, keys: tuple[str, str], name: object
) -> None:
    params.raw[keys[0]][keys[1]].append(name)
    index = len(params.raw[keys[0]][keys[1]]) - 1
    with pytest.raises(UserError) as caught:
        require_names(params)
    line = params.raw[keys[0]].lc.key(keys[1])[0] + 1
    place = f"{params.path}:{line}  {'.'.join(keys)}.{index}"
    assert str(caught.value).startswith(f"{place}: got {name!r}\nexpected a name: letters, digits")


@pytest.mark.parametrize("seed", ["../x", -1, 1.5, True])
def test_seed_that_is_no_number_is_refused(params: Params, seed: object) -> None:
    put(params, ("study", "seeds"), [1, seed])
    with pytest.raises(UserError, match=r"study\.seeds\.1: got .*\nexpected an integer"):
        require_names(params)


@pytest.mark.parametrize(
    ("keys", "value"), [(("study", "seeds"), 1), *((keys, "scene_1") for keys in LISTS)]
)
def test_value_in_the_place_of_a_list_is_refused(
    params: Params, keys: tuple[str, str], value: object
) -> None:
    put(params, keys, value)
    with pytest.raises(UserError) as caught:
        require_names(params)
    assert f"got {value!r}\nexpected a list in brackets, such as [{value}]" in str(caught.value)


@pytest.mark.parametrize("catalogue", ["scenes", "captures"])
@pytest.mark.parametrize("key", ["../x", "room.v2", 2024])
def test_key_of_a_catalogue_is_a_name(params: Params, catalogue: str, key: object) -> None:
    params.raw[catalogue][key] = {}
    with pytest.raises(UserError, match=f"{catalogue}.*: got {key!r}"):
        require_names(params)


def test_one_value_in_the_place_of_a_list_is_judged_as_one(params: Params) -> None:
    put(params, ("demo", "scenes"), "../x")
    with pytest.raises(UserError, match=r"demo\.scenes: got '\.\./x'"):
        require_names(params)


def test_params_without_these_sections_have_no_names() -> None:
    require_names(Params(YAML().load("plus: 1"), ROOT / "params.yaml"))


@pytest.mark.parametrize("keys", [keys for keys in DATA if keys[0] != "study"], ids=".".join)
def test_name_that_stands_twice_is_reported(params: Params, keys: tuple[str, str]) -> None:
    put(params, keys, ["a_room", "b_room", "a_room"])
    assert f"{'.'.join(keys)}.0: a_room is listed 2 times" in errors_of(params)


def test_two_stages_that_make_one_folder_are_reported(params: Params) -> None:
    put(params, ("demo_capture", "captures"), ["hi4d_pair00_dance"])
    assert (
        "data/raw/hi4d_pair00_dance is generated for hi4d_pair00_dance of demo.scenes"
        in errors_of(params)
    )
    put(params, ("demo_capture", "captures"), ["room", "room_eval"])
    assert "data/raw/room_eval is generated for room of demo_capture.captures already" in errors_of(
        params
    )


def test_names_that_differ_by_case_alone_are_reported(params: Params) -> None:
    params.raw["scenes"]["Demo_Room"] = {}
    assert "demo_room differs from Demo_Room only in case" in errors_of(params)
    put(params, ("static", "scenes"), ["Static_pair02_talk"])
    assert "Static_pair02_talk differs from static_pair02_talk only in case" in errors_of(params)
