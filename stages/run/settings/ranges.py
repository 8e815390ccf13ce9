"""Ranges of integers in params.yaml: what libraries accept, and what could be meant.

A field with narrower limits is an `int` with both limits: those of a type would take precedence.
"""

from typing import Annotated

from pydantic import Field

MOST = 10**9
# COLMAP's seeds are signed, of 32 bits; numpy's and torch's are not negative.
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
# A side of an image. OpenCV and JPEG end near 2^16, memory before that.
WIDEST = 2**15
Pixels = Annotated[int, Field(ge=0, le=WIDEST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
# Processes or threads of one machine.
Workers = Annotated[int, Field(ge=1, le=4096)]
