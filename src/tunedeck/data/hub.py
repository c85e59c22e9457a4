"""Rows out of a data set of the `datasets` library: saved in a folder or on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, say
from tunedeck.data.files import is_known
from tunedeck.data.rows import Columns, Rows


def read_saved(folder: Path, split: str) -> tuple[Columns, Rows]:
    """Return rows of a folder written by `save_to_disk`; one with several splits gives the named split.

    Raises DataError.
    """
    is_dict = (folder / "dataset_dict.json").is_file()
    if not is_dict and not ((folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()):
        raise DataError(
            say(
                "the folder {folder} is neither a data set saved by `datasets` nor has it folders of .txt files, one "
                "for each class; name a file instead (in this folder: {files})",
                folder=folder,
                files=listing(sorted(file.name for file in folder.iterdir() if is_known(file))),
            )
        )
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # a damaged folder: any error of Arrow or the JSON reader
        raise DataError(say("cannot read {path}: {reason}", path=folder, reason=_first_line(error))) from error
    if is_dict and split not in saved:
        raise DataError(
            say(
                "{folder} has no split {split!r}; it has: {splits}; write {folder}:SPLIT",
                folder=folder,
                split=split,
                splits=listing(saved),
            )
        )
    return _rows(saved[split] if is_dict else saved)


def check_hub(name: str, split: str) -> None:
    """Raise DataError where the hub does not answer and its cache does not have the data set either."""
    from tunedeck.core.hub import data_in_hub_cache, hub_is_reachable

    if not data_in_hub_cache(name) and not hub_is_reachable():
        raise _not_given(name, split, say("the hub does not answer"))


def read_hub(name: str, split: str) -> tuple[Columns, Rows]:
    """Return rows of one split of a data set on the hub; DataError when the hub does not give it."""
    check_hub(name, split)
    import datasets

    try:
        dataset = datasets.load_dataset(name, split=split)
    except Exception as error:  # datasets passes on any error of its HTTP client, cache or builders
        raise _not_given(name, split, _first_line(error)) from error
    return _rows(dataset)


def _not_given(name: str, split: str, reason: str) -> DataError:
    return DataError(
        say(
            "cannot get the data set {name!r} (split {split!r}): {reason}. There is no file or folder of this "
            "name; on the hub, check the name, the split (NAME:SPLIT) and the network, or set "
            "HF_ENDPOINT=https://MIRROR; without a hub use a file or bundled:NAME",
            name=name,
            split=split,
            reason=reason,
        )
    )


def _rows(dataset: Any) -> tuple[Columns, Rows]:
    """Return rows with class numbers replaced by the class names that the data set knows."""
    import datasets

    rows: Rows = dataset.to_list()
    for column, feature in dataset.features.items():
        item = feature.feature if isinstance(feature, datasets.List) else feature
        if isinstance(item, datasets.ClassLabel):
            for row in rows:
                row[column] = _class_names(item.names, row[column])
    return tuple(dataset.column_names), rows


def _class_names(names: list[str], value: Any) -> object:
    if isinstance(value, list):
        return [_class_names(names, item) for item in value]
    return names[value] if value is not None and value >= 0 else None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
