"""Vectors of three and matrices of three rows as tuples, which the compiler keeps in registers."""

from typing import TypeAlias

from numba import njit

from stages.splat.cpu.compiling import INLINE_STRICT, ONE, TWO, Array

Vector: TypeAlias = tuple[float, float, float]
Matrix: TypeAlias = tuple[Vector, Vector, Vector]  # rows


@njit(**INLINE_STRICT)
def vector(values: Array, i: int) -> Vector:
    """Row i of an array [N, 3 or more]."""
    return values[i, 0], values[i, 1], values[i, 2]


@njit(**INLINE_STRICT)
def rotation_part(view: Array) -> Matrix:
    """The upper left 3x3 of a transform [4, 4]."""
    return vector(view, 0), vector(view, 1), vector(view, 2)


@njit(**INLINE_STRICT)
def add(a: Vector, b: Vector) -> Vector:
    """a + b"""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@njit(**INLINE_STRICT)
def scale(a: Vector, k: float) -> Vector:
    """a k"""
    return a[0] * k, a[1] * k, a[2] * k


@njit(**INLINE_STRICT)
def multiply(a: Vector, b: Vector) -> Vector:
    """a b, element by element"""
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@njit(**INLINE_STRICT)
def dot(a: Vector, b: Vector) -> float:
    """a . b"""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(**INLINE_STRICT)
def cross(a: Vector, b: Vector) -> Vector:
    """a x b"""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@njit(**INLINE_STRICT)
def transform(m: Matrix, a: Vector) -> Vector:
    """M a"""
    return dot(m[0], a), dot(m[1], a), dot(m[2], a)


@njit(**INLINE_STRICT)
def transform_back(m: Matrix, a: Vector) -> Vector:
    """M^T a, which is also the row a M"""
    return add(add(scale(m[0], a[0]), scale(m[1], a[1])), scale(m[2], a[2]))


@njit(**INLINE_STRICT)
def rotation_from_quat(q: tuple[float, float, float, float]) -> Matrix:
    """Rotation of a unit quaternion, wxyz."""
    w, x, y, z = q
    return (
        (ONE - TWO * (y * y + z * z), TWO * (x * y - w * z), TWO * (x * z + w * y)),
        (TWO * (x * y + w * z), ONE - TWO * (x * x + z * z), TWO * (y * z - w * x)),
        (TWO * (x * z - w * y), TWO * (y * z + w * x), ONE - TWO * (x * x + y * y)),
    )


@njit(**INLINE_STRICT)
def quat_gradient(
    q: tuple[float, float, float, float], g: Matrix
) -> tuple[float, float, float, float]:
    """Derivative by a unit quaternion, wxyz, of what has derivative g by its rotation."""
    w, x, y, z = q
    (g00, g01, g02), (g10, g11, g12), (g20, g21, g22) = g
    return (
        TWO * (x * (g21 - g12) + y * (g02 - g20) + z * (g10 - g01)),
        TWO * (w * (g21 - g12) + y * (g01 + g10) + z * (g02 + g20) - TWO * x * (g11 + g22)),
        TWO * (w * (g02 - g20) + x * (g01 + g10) + z * (g12 + g21) - TWO * y * (g00 + g22)),
        TWO * (w * (g10 - g01) + x * (g02 + g20) + y * (g12 + g21) - TWO * z * (g00 + g11)),
    )
