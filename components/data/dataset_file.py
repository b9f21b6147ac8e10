"""``datasets/<name>/dataset.yaml``: what may stand in it, and errors that say what to write instead.

What belongs here: the fields, their checks, and addresses with ``${VAR}``. What does not: reading rows
(``components.data.catalog``).
"""

from __future__ import annotations

import difflib
import os
import re
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from components.contracts import Frozen

from .sources import CaptionRule

NAME = r"^[a-z0-9][a-z0-9_-]*$"
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class DatasetError(ValueError):
    """A data set is described wrongly or lies elsewhere; the message names file, field and remedy."""


class TableColumnNames(Frozen):
    """Columns that are not found by their usual names."""

    image: str | None = Field(
        default=None,
        description="Column of encoded pictures: bytes, struct{bytes, path}, or names below source.images.",
    )
    caption: str | None = Field(default=None, description="Column of captions.")
    key: str | None = Field(default=None, description="Column of keys that are unique in the data set.")


class CaptionName(Frozen):
    """Where the caption is, if not under its usual name."""

    caption: str | None = Field(default=None, description="Suffix (cls) or field of the .json that holds the caption.")


class StoredSource(Frozen):
    """What every source that lies in files has."""

    name: str | None = Field(
        default=None, description="Prefix of keys; needed where there are several sources.", pattern=NAME
    )
    uri: str = Field(description="Any fsspec URI or glob; ${VAR} is taken from the environment.")
    captions: CaptionRule = Field(
        default="first",
        description="Of several captions of a picture: the first, the longest, or one drawn by the key's hash.",
    )


class TableSource(StoredSource):
    """What sources have whose rows stand in tables."""

    columns: TableColumnNames = Field(default=TableColumnNames(), description="Names of columns.")
    images: str | None = Field(
        default=None,
        description="Folder or URI below which pictures lie that the table only names; nothing else is read.",
    )


class ParquetSource(TableSource):
    """Parquet files, img2dataset's or any other with a column of pictures."""

    format: Literal["parquet"] = Field(description="How the source is stored.")


class HuggingFaceSource(TableSource):
    """Folders that Hugging Face datasets wrote with save_to_disk."""

    format: Literal["huggingface"] = Field(description="How the source is stored.")
    split: str | None = Field(default=None, description="Which split of a DatasetDict; needed where it has several.")


class WebdatasetSource(StoredSource):
    """Tars in webdataset form."""

    format: Literal["webdataset"] = Field(description="How the source is stored.")
    columns: CaptionName = Field(default=CaptionName(), description="Names of members and fields.")


class FolderSource(StoredSource):
    """Pictures as files, with sidecars, with Hugging Face's metadata files or with COCO's captions."""

    format: Literal["folder"] = Field(description="How the source is stored.")
    columns: CaptionName = Field(default=CaptionName(), description="Names of sidecars and fields.")
    captions_file: str | None = Field(
        default=None,
        description="A .jsonl, .csv or COCO .json, relative to the folder; null: metadata.jsonl, metadata.csv or "
        "captions.json in the folder, else a .txt or .json beside each picture.",
    )
    rows_per_shard: int = Field(default=1000, description="Pictures in one shard at most, about.", gt=0)


class ScenesSource(Frozen):
    """The procedural world ``scenes``."""

    format: Literal["scenes"] = Field(description="How the source is stored.")
    name: str | None = Field(
        default=None, description="Prefix of keys; needed where there are several sources.", pattern=NAME
    )
    rows: int = Field(description="Number of scenes.", gt=0)
    rows_per_shard: int = Field(description="Scenes in one shard.", gt=0)
    seed: int = Field(default=0, description="Which world.", ge=0)
    noise: Literal["low", "web", "high"] = Field(default="web", description="How bad the raw captions are.")
    styles: bool = Field(default=False, description="Objects are filled, outlined or striped; made for 64 px and more.")
    text: bool = Field(
        default=False, description="One object in five is one to three letters; made for 64 px and more."
    )


Source = ParquetSource | WebdatasetSource | FolderSource | HuggingFaceSource | ScenesSource
SOURCES: Mapping[str, type[Source]] = {
    "parquet": ParquetSource,
    "webdataset": WebdatasetSource,
    "folder": FolderSource,
    "huggingface": HuggingFaceSource,
    "scenes": ScenesSource,
}


class ExampleSet(Frozen):
    """The small set of good captions of one kind: a file of them, or columns of rows that carry human descriptions."""

    file: str | None = Field(default=None, description="JSON lines of key and text, relative to the data set's folder.")
    columns: tuple[str, ...] = Field(default=(), description="Columns that the template uses.")
    template: str | None = Field(default=None, description="Text with {column} placeholders.")
    rows: int | None = Field(
        default=None, description="Take the first so many rows of the train split; null: all.", gt=0
    )
    where: dict[str, str | bool | int | float] = Field(
        default_factory=dict, description="Take only rows whose columns have these values, compared as text."
    )

    @model_validator(mode="after")
    def _one_way(self) -> ExampleSet:
        if (self.file is None) == (self.template is None):
            raise ValueError('give either the path of a .jsonl file or {columns: [..], template: "..", rows: ..}')
        if self.template is not None:
            names = [(name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(self.template)]
            placeholders = {name for name, _, _ in names if name is not None}
            if not placeholders or any(spec or conversion for _, spec, conversion in names):
                raise ValueError(f"template {self.template!r} must hold plain {{column}} placeholders")
            if placeholders != set(self.columns):
                raise ValueError(f"template uses {sorted(placeholders)}, but columns is {list(self.columns)}")
        return self


class Examples(Frozen):
    """Example sets by kind of caption."""

    ssc: ExampleSet | None = Field(default=None, description="Short captions: the main subject.")
    dsc: ExampleSet | None = Field(default=None, description="Descriptive captions: subject, surroundings, background.")

    @field_validator("ssc", "dsc", mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value


class Splits(Frozen):
    """How rows are split, by the hash of their keys."""

    evaluation: float = Field(default=0.05, description="Share of rows that nothing is trained on.", ge=0, lt=1)


class DatasetFile(Frozen):
    """All that a ``dataset.yaml`` says."""

    name: str = Field(description="The folder's name.", pattern=NAME)
    description: str = Field(description="One sentence.", min_length=1)
    license: str = Field(description="Licence of pictures and texts, for rows that name none.", min_length=1)
    homepage: str | None = Field(default=None, description="Where the data comes from.")
    source: tuple[Annotated[Source, Field(discriminator="format")], ...] = Field(
        description="Where the rows lie: one source, or a list.", min_length=1
    )
    examples: Examples = Field(default=Examples(), description="Small sets of good captions.")
    opt_out: str | None = Field(default=None, description="Opt-out list: path or URI of JSON lines; see the README.")
    golden: str | None = Field(
        default=None, description="JSON lines of pictures with facts that captions must say, and must not."
    )
    splits: Splits = Field(default=Splits(), description="How rows are split.")

    @field_validator("source", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, Mapping) else value


def read_dataset_file(file: Path) -> DatasetFile:
    """The checked contents of a ``dataset.yaml``; DatasetError names the field and what is allowed."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: it is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{file}: it must hold fields, {', '.join(DatasetFile.model_fields)}")
    try:
        facts = DatasetFile.model_validate(content)
    except ValidationError as error:
        lines = [_explain(each, is_list=isinstance(content.get("source"), list)) for each in error.errors()]
        raise DatasetError("\n  ".join([f"{file}: {lines[0]}", *lines[1:]])) from error
    if facts.name != file.parent.name:
        raise DatasetError(f"{file}: name: {facts.name!r} must be the folder's name, {file.parent.name!r}")
    names = [source.name for source in facts.source]
    if len(names) > 1 and (None in names or len(set(names)) < len(names)):
        raise DatasetError(f"{file}: source: each of several sources needs a name of its own, they have {names}")
    return facts


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: a hint at the nearest known one, or a full stop."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else "."


def _explain(error: ErrorDetails, *, is_list: bool) -> str:
    """One of pydantic's errors as ``field: what is wrong and what is allowed``."""
    field, kind, message = list(error["loc"]), error["type"], error["msg"].removeprefix("Value error, ")
    shown, model = field, DatasetFile
    if len(field) > 1 and field[0] == "source":  # source, its number, its format, the field
        shown = [*field[: 2 if is_list else 1], *field[3:]]
        if len(field) > 2:
            model, field = SOURCES[str(field[2])], field[3:]
    if kind == "extra_forbidden":
        allowed = list(_model_at(model, field[:-1]).model_fields)
        message = f"unknown field{did_you_mean(str(field[-1]), allowed)} Allowed here: {', '.join(allowed)}"
    elif kind == "missing":
        message = f"missing. It says: {_model_at(model, field[:-1]).model_fields[str(field[-1])].description}"
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        shown = [*shown, "format"]
        tag = error.get("ctx", {}).get("tag")
        unknown = "missing." if tag is None else f"unknown value {tag!r}{did_you_mean(str(tag), SOURCES)}"
        message = f"{unknown} Allowed: {', '.join(SOURCES)}"
    return f"{'.'.join(map(str, shown))}: {message}"


def _model_at(model: type[BaseModel], path: Iterable[int | str]) -> type[BaseModel]:
    """The model whose fields stand at a place of the file."""
    for part in path:
        annotation = model.model_fields[str(part)].annotation
        nested = (each for each in (annotation, *get_args(annotation)) if isinstance(each, type))
        model = next(each for each in nested if issubclass(each, BaseModel))
    return model


def absolute_uri(uri: str, file: Path, field: str) -> str:
    """The address with ``${VAR}`` filled in from the environment; a relative path becomes an absolute one.

    A path that begins with a variable is relative to the working directory, any other to the file's folder. Raises
    DatasetError naming a variable that is not set.
    """
    for variable in VARIABLE.findall(uri):
        if not os.environ.get(variable):
            raise DatasetError(
                f"{file}: {field}: the environment variable {variable} is not set; set it to where the data lies, for "
                f"example export {variable}=/data/{file.parent.name} (the README beside that file says how to get it)"
            )
    filled = VARIABLE.sub(lambda match: os.environ[match[1]], uri)
    if "://" in filled:
        return filled
    start = Path.cwd() if uri.startswith("${") else file.parent
    return str((start / Path(filled).expanduser()).resolve())
