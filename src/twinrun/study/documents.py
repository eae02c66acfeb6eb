"""Documents with a schema: the strict base class, ranges, and JSON files read whole or refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from twinrun.study.errors import MismatchError
from twinrun.study.files import read_json

# DVC joins the axis values of a stage's name and drops colliding ones silently: nothing else may be in them.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
Share = Annotated[float, Field(gt=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Block(BaseModel):
    """A mapping of known keys, each of exactly its type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Document = TypeVar("Document", bound=BaseModel)


def read_document(path: Path, model: type[Document], what: str, hint: str) -> Document:
    """The document in `path`; InputError when it is no JSON, MismatchError when it is not `what`."""
    return checked(read_json(path), path, model, what, hint)


def checked(content: Any, path: Path, model: type[Document], what: str, hint: str) -> Document:
    """`content`, which was read from `path`, as a document; MismatchError names the first key that is wrong."""
    if not isinstance(content, dict):
        raise MismatchError(f"{path}: not {what}: it holds a {type(content).__name__}, not keys and values", hint)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        said = f"{where} is missing" if first["type"] == "missing" else f"{where} is wrong ({first['msg']})"
        if first["type"] == "value_error":
            said = str(first["ctx"]["error"])
        if where == "schema":
            said = f"schema {content.get('schema')!r}, which this version does not read"
        raise MismatchError(f"{path}: not {what}: {said}", hint) from error
