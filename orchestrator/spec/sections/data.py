"""The ``data`` section: the photos and their splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, ValidationError, model_validator

from orchestrator.spec.mistakes import Mistake, Mistakes, mistakes_of, nearest, quoted
from orchestrator.spec.sections.base import LARGEST_SEED, Section
from trainers.data.sources.builtins import BUILTIN, BUILTINS
from trainers.errors import TrainerError
from trainers.files.encodings import check_encoding
from trainers.files.suffixes import TABLES

AUTO = "auto"
KEEP_WORDS = (AUTO, "none", "")
"""Values of ``keep_splits`` that are no path; "" is none in files written before 2026-12."""
FEWEST_FOLDS, MOST_FOLDS = 2, 20
"""Minimum and maximum folds of cross-validation."""


class SplitRatios(Section):
    """Fraction of the images in each split."""

    train: float = Field(default=0.7, gt=0, lt=1, description="Fraction of the images to train on.")
    validation: float = Field(
        default=0.15, gt=0, lt=1, description="Fraction on which trials are compared and the winner is chosen."
    )
    test: float = Field(
        default=0.15, gt=0, lt=1, description="Fraction held out, and read once, for the final leaderboard."
    )

    @model_validator(mode="after")
    def _add_up(self) -> SplitRatios:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test add up to {total:g}; they must add up to 1.")
        return self


def _read_splits(value: Any) -> SplitRatios | str:
    if value in ("own", "auto") or isinstance(value, SplitRatios):
        return value
    if not isinstance(value, Mapping):
        allowed = "{train: 0.7, validation: 0.15, test: 0.15}, own for the data's own splits, or auto for either"
        raise ValueError(f"found {quoted(value)}; allowed: {allowed}.")
    try:
        return SplitRatios.model_validate(value)
    except ValidationError as error:
        raise Mistakes(mistakes_of(error, SplitRatios)) from error


def _read_source(value: Any) -> str | tuple[str, ...]:
    if not isinstance(value, list | tuple):
        _check_source(value, ())
        return value
    if not value:
        raise ValueError("found an empty list; name at least one folder, table or archive.")
    found: list[Mistake] = []
    for i, each in enumerate(value):
        try:
            _check_source(each, (i,))
        except Mistakes as mistakes:
            found += mistakes.mistakes
        else:
            if each in value[:i]:
                found.append(Mistake((i,), f"found {quoted(each)} twice in the list."))
            elif each.startswith(BUILTIN) and len(value) > 1:
                found.append(Mistake((i,), f"{each} cannot be merged with other data; remove it from the list."))
    if found:
        raise Mistakes(found)
    return str(value[0]) if len(value) == 1 else tuple(value)


def _check_source(value: Any, keys: tuple[int, ...]) -> None:
    """Raise Mistakes unless ``value`` names one source."""
    if not isinstance(value, str):
        allowed = "a path" if keys else "a path, a list of paths, or builtin:digits"
        raise Mistakes([Mistake(keys, f"found {quoted(value)}; allowed: {allowed}.")])
    if not value:
        raise Mistakes([Mistake(keys, "is empty; name a folder, a table or an archive.")])
    if value.startswith(BUILTIN) and value not in BUILTINS:
        text = f"found {quoted(value)}{nearest(value, BUILTINS)} Built in: {', '.join(BUILTINS)}."
        raise Mistakes([Mistake(keys, text)])


def _read_encoding(value: str) -> str:
    try:
        return value if value == "auto" else check_encoding(value)
    except TrainerError as error:
        allowed = "auto, or a text encoding such as gb18030, shift_jis, cp949 or cp1252"
        raise ValueError(f"found {quoted(value)}; allowed: {allowed}.") from error


def _read_folds(value: Any) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and (value == 0 or FEWEST_FOLDS <= value <= MOST_FOLDS):
        return value
    allowed = f"0 for one validation split, or a whole number from {FEWEST_FOLDS} to {MOST_FOLDS}"
    raise ValueError(f"found {quoted(value)}; allowed: {allowed}.")


class DataSpec(Section):
    """The photos and their splits."""

    source: Annotated[
        str | tuple[str, ...],
        PlainValidator(_read_source, json_schema_input_type=str | list[str]),
        PlainSerializer(lambda source: source if isinstance(source, str) else list(source)),
    ] = Field(
        description="Where the photos are: a folder with one subfolder per class, a .csv or .parquet table, an "
        "archive, or builtin:digits; or a list of folders, tables and archives to merge. Relative paths start at the "
        "current folder; environment variables such as ${ORCH_DATA} are expanded.",
    )
    splits: Annotated[
        SplitRatios | Literal["own", "auto"],
        PlainValidator(_read_splits, json_schema_input_type=SplitRatios | Literal["own", "auto"]),
        PlainSerializer(lambda splits: splits if isinstance(splits, str) else splits.model_dump()),
    ] = Field(
        default="auto",
        description="Fractions of train, validation and test; or own, to keep the splits that the data has: a split "
        "column, or folders train, val and test; or auto: own if the data has train and test, else {train: 0.7, "
        "validation: 0.15, test: 0.15}.",
    )
    folds: Annotated[int, PlainValidator(_read_folds, json_schema_input_type=int)] = Field(
        default=0,
        description="Number of cross-validation folds. Train and validation are pooled and divided into folds; each "
        "trial is trained once per fold and judged by all of them. 0: a single validation split.",
    )
    encoding: Annotated[str, AfterValidator(_read_encoding)] = Field(
        default="auto",
        description="Encoding of file names in zip archives and of tables that are not UTF-8, such as gb18030; auto: "
        "guessed, with a warning.",
    )
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of the splits and of the augmented copies.")
    duplicates: Literal["group", "drop", "keep"] = Field(
        default="group",
        description="What to do with duplicates: keep them in one split (group), use only the first (drop), or let "
        "near duplicates fall into different splits (keep). Photos that merely look alike are never dropped.",
    )
    keep_splits: str = Field(
        default=AUTO,
        description="Whose splits photos keep, also where they were exported again at another size or quality; a new "
        "photo follows what it is a copy of. auto: the newest manifest of the same registered model (tracking.model) "
        "with this seed and these splits, one of the same source first, of the sweeps in runs/ and of this user's in "
        "the same MLflow store. Or the folder of an earlier sweep, or its manifest.parquet. none: all photos are "
        "divided anew, by a hash. Not used with splits: own.",
    )

    @property
    def names_kept_splits(self) -> bool:
        """Whether ``keep_splits`` is a path."""
        return self.keep_splits not in KEEP_WORDS

    @property
    def sources(self) -> tuple[str, ...]:
        """All sources, as a tuple even if there is only one."""
        return (self.source,) if isinstance(self.source, str) else self.source

    @model_validator(mode="after")
    def _source_fits(self) -> DataSpec:
        """Reject ``splits: own`` for built-in data, which has none. Folders and archives are checked when read."""
        lacking = [source for source in self.sources if source.startswith(BUILTIN)]
        if self.splits == "own" and lacking:
            text = (
                f"own needs a table with a split column ({', '.join(TABLES)}), or a folder or an archive that is "
                f"divided into train, validation and test; the source is {quoted(lacking[0])}."
            )
            raise Mistakes([Mistake(("splits",), text)])
        return self
