"""What the blocks of a params file are made of: the strict base class, and ranges of numbers and names."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# DVC joins the axis values of a stage's name and drops colliding ones silently: nothing else may be in them.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Block(BaseModel):
    """A mapping of known keys, each of exactly its type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
