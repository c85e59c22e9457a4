"""From an adapter folder to an adapter that fits a base; nothing of the running deck is touched."""

from __future__ import annotations

from pathlib import Path

from tunedeck.core.errors import AdapterFileError, ConfigError, TargetError
from tunedeck.core.i18n import say
from tunedeck.core.patterns import time_limit
from tunedeck.deck.adapter import Adapter
from tunedeck.deck.checks import check_head, check_manifest, check_tensors, stored_labels
from tunedeck.deck.heads import stored_head
from tunedeck.deck.names import bare_labels, method_base, model_names, new_manifest
from tunedeck.deck.task import Task
from tunedeck.formats.folder import read_adapter
from tunedeck.methods.registry import method_of
from tunedeck.models.load import LoadedBase


def adapter_from_folder(base: LoadedBase, task: Task, folder: Path, name: str, *, allow_base_mismatch: bool) -> Adapter:
    """Read a PEFT, AdapterHub or Tunedeck folder and build its layers; see Deck.load_adapter for what it raises.

    Takes no lock and changes nothing, so that any thread may do it while a batch runs.
    """
    with time_limit():
        try:
            return _adapter(base, task, folder, name, allow_base_mismatch=allow_base_mismatch)
        except TargetError as error:
            raise AdapterFileError(say("{path} does not fit this base: {reason}", path=folder, reason=error)) from error
        except (ConfigError, ArithmeticError) as error:
            raise AdapterFileError(say("{path} is damaged: {reason}", path=folder, reason=error)) from error


def _adapter(base: LoadedBase, task: Task, folder: Path, name: str, *, allow_base_mismatch: bool) -> Adapter:
    stored = read_adapter(folder, model_names(base))
    own = task
    if stored.manifest is not None:
        check_manifest(folder, stored.manifest, base, task, allow_base_mismatch=allow_base_mismatch)
        own = task.as_described(stored.manifest.task)
    head = stored_head(base, stored.head)
    method, place = method_of(stored.config), method_base(base, tuple(head))
    check_tensors(
        stored.tensors, method.shapes(place, stored.config)
    )  # the config may ask for far more than the file has
    built = method.build(place, stored.config)
    if task.has_head:
        check_head(folder, head, base)
        own = own.with_labels(stored_labels(folder, stored, head, task.labels, base) or bare_labels(base, task))
    adapter = Adapter(name, stored.config, own, built, head, stored.manifest or new_manifest(base, own, stored.config))
    adapter.fill(stored.tensors)
    return adapter
