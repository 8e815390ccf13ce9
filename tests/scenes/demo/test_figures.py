"""People of a pair look unlike each other and unlike other pairs, and have the parts of a body."""

import numpy as np
import pytest

from stages.scenes.demo.people.actor import Actor
from stages.scenes.demo.people.figures import Person
from stages.scenes.demo.people.head import CUTS, Look, head
from stages.scenes.demo.people.skeleton import solve

PRINTS = [np.full((96, 70, 3), value) for value in (0.2, 0.8)]


def person(pair: int, number: int, seed: int = 0) -> Person:
    return Person.of_pair(pair, number, seed, PRINTS)


def standing(who: Person) -> list:
    return who.meshes(solve(who.build, Actor.standing(who.build, (0, 0), 0.0, crouch=0.0).pose))


def test_the_same_person_looks_the_same_again():
    first, second = person(15, 0), person(15, 0)
    assert first.build == second.build
    for name, image in first.textures.items():
        np.testing.assert_array_equal(image, second.textures[name])


@pytest.mark.parametrize("pair", [0, 1, 2, 15, 16, 17, 19])
def test_the_two_of_a_pair_differ_in_clothes_hair_and_skin(pair):
    one, two = person(pair, 0), person(pair, 1)
    assert one.cut != two.cut
    for part in ("shirt", "trousers", "skin", "hair"):
        apart = one.textures[f"{part}0"].mean((0, 1)) - two.textures[f"{part}1"].mean((0, 1))
        assert np.abs(apart).max() > 0.03, part


def test_pairs_and_seeds_differ():
    shirts = [person(*who).textures["shirt0"] for who in ((0, 0), (2, 0), (0, 0, 1))]
    for k in range(3):
        assert not np.array_equal(shirts[k], shirts[k - 1])


def test_a_standing_person_is_as_tall_as_said_and_has_feet_on_the_floor():
    who = person(0, 1)
    vertices = np.concatenate([mesh.vertices for mesh in standing(who)])
    assert vertices[:, 1].min() == pytest.approx(0.0, abs=0.005)
    assert vertices[:, 1].max() == pytest.approx(who.build.height, abs=0.08)
    assert np.ptp(vertices[:, 0]) < 0.75


def test_all_meshes_belong_to_the_person_and_to_known_textures():
    who = person(2, 1)
    meshes = standing(who)
    assert {mesh.person for mesh in meshes} == {1}
    assert {mesh.texture for mesh in meshes} <= set(who.textures)
    for mesh in meshes:
        assert np.isfinite(mesh.vertices).all()
        np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-6)


def test_the_face_looks_ahead():
    face = next(mesh for mesh in standing(person(0, 0)) if mesh.texture == "face0")
    nose = np.argmin(np.linalg.norm(face.uv - [0.5, 0.57], axis=1))
    assert face.vertices[nose, 2] > face.vertices[:, 2].max() - 0.01


@pytest.mark.parametrize("cut", CUTS)
def test_hair_covers_the_crown_and_leaves_the_face(cut):
    meshes = head(np.zeros(3), np.eye(3), Look(cut, 0, "face", "skin", "hair", "trim"))
    skull = meshes[0].vertices
    hair = np.concatenate([m.vertices for m in meshes if m.texture in ("hair", "trim")])
    assert hair[:, 1].max() > skull[:, 1].max()
    in_face = (hair[:, 2] > 0.085) & (hair[:, 1] < 0.03) & (np.abs(hair[:, 0]) < 0.04)
    assert not in_face.any()
