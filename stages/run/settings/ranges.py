"""Ranges of integers in params.yaml: what libraries accept and what is plausible.

A field with narrower limits is an `int` with both limits: those of a type would take precedence.
"""

from typing import Annotated

from pydantic import Field

MOST = 10**9
# COLMAP's seeds are signed 32-bit integers; numpy and torch refuse negative ones.
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
# Width or height of an image. OpenCV and JPEG are limited to about 2^16, memory to less.
WIDEST = 2**15
Pixels = Annotated[int, Field(ge=0, le=WIDEST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
# Processes or threads on one machine.
Workers = Annotated[int, Field(ge=1, le=4096)]
