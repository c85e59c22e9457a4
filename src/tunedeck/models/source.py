"""Where a base model comes from: a hub id, a folder, a GGUF file, ModelScope or a bundled part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunedeck.core.bundle import folder_of, is_fetched, read_bundles
from tunedeck.core.checks import HUB_ID, HUB_ID_OR_NAME
from tunedeck.core.errors import ModelError
from tunedeck.core.hub import hub_is_reachable, in_hub_cache
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.system_reason import system_reason
from tunedeck.models.convert import fetch_model


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A base model that was found; `location` is a folder or a hub id, as transformers takes it."""

    reference: str
    location: str
    gguf_file: str | None
    bundled: bool


def find_model(reference: str, fetch_missing: bool = True) -> ModelSource:
    """Find what a model reference names: `bundled:NAME`, `hf:` or `ms:` and an id, `org/name`, a folder, a .gguf file.

    What starts with `.`, `/` or `~` or exists on disk is a path. Bundled and ModelScope models are downloaded when they
    are not there yet, unless `fetch_missing` is false. Raises ModelError; StorageError when a download fails.
    """
    name = reference.strip()
    if not name:
        raise ModelError(say("the model reference is empty; give a hub id, a folder, a .gguf file or bundled:NAME"))
    if name.startswith("bundled:"):
        return _bundled(reference, name.removeprefix("bundled:"), fetch_missing)
    if name.startswith("ms:"):
        return _from_modelscope(reference, name.removeprefix("ms:"), fetch_missing)
    if name.startswith("hf:"):
        return _from_hub(reference, name.removeprefix("hf:"))
    if name.startswith((".", "/", "~")) or Path(name).exists():
        return _from_path(reference, Path(name).expanduser())
    if HUB_ID.fullmatch(name) and not name.endswith(".gguf"):
        return _from_hub(reference, name)
    raise ModelError(
        say(
            "no model {name!r}: there is no such file or folder here{hint}; a model on the hub is written org/name, "
            "bundled models are: {bundled}",
            name=name,
            hint=nearest(name, _bundled_references()),
            bundled=listing(_bundled_references()),
        )
    )


def check_model(reference: str) -> None:
    """Raise ModelError for a model that cannot be found, before anything is loaded or fetched."""
    name = reference.strip()
    bundled = name.startswith("bundled:") and name.removeprefix("bundled:") in read_bundles("tunedeck.models")
    if not bundled and not name.startswith("ms:"):
        is_only_cached(find_model(reference))


def is_only_cached(source: ModelSource) -> bool:
    """Tell whether a hub model has to be read from the cache since the hub does not answer; ModelError where it is
    not there either.
    """
    if Path(source.location).is_dir() or hub_is_reachable():
        return False
    if not in_hub_cache(source.location):
        raise ModelError(
            say(
                "cannot reach the model hub for {model!r}; {advice}",
                model=source.reference,
                advice=hub_help(source.reference),
            )
        )
    return True


def hub_help(reference: str) -> str:
    """Return the advice for a hub that does not answer or does not know the model."""
    return say(
        "check the name {reference!r} and the network; without access to huggingface.co, set "
        "HF_ENDPOINT=https://MIRROR, take the model from ModelScope (ms:org/name), give a folder that holds it, or "
        "use a bundled model: {bundled}",
        reference=reference,
        bundled=listing(_bundled_references()),
    )


def _bundled_references() -> list[str]:
    return [f"bundled:{name}" for name in read_bundles("tunedeck.models")]


def _bundled(reference: str, name: str, fetch_missing: bool) -> ModelSource:
    bundles = read_bundles("tunedeck.models")
    if name not in bundles:
        raise ModelError(
            say(
                "no bundled model {name!r}{hint}; there are: {names}",
                name=name,
                hint=nearest(name, bundles),
                names=listing(bundles),
            )
        )
    if not fetch_missing and not is_fetched(bundles[name]):
        raise ModelError(
            say(
                "the bundled model {name} is not in {folder} yet; get it with: tunedeck fetch {name}",
                name=name,
                folder=folder_of(bundles[name]),
            )
        )
    folder = fetch_model(bundles[name])
    gguf_file = next((file.name for file in sorted(folder.glob("*.gguf"))), None)
    return ModelSource(reference, str(folder), gguf_file, bundled=True)


def _from_hub(reference: str, hub_id: str) -> ModelSource:
    if not HUB_ID_OR_NAME.fullmatch(hub_id):
        raise ModelError(say("{reference!r} is not a model on the hub; the form is hf:org/name", reference=reference))
    return ModelSource(reference, hub_id, None, bundled=False)


def _from_modelscope(reference: str, model_id: str, fetch_missing: bool) -> ModelSource:
    if not HUB_ID.fullmatch(model_id):
        raise ModelError(say("{reference!r} is not a ModelScope model; the form is ms:org/name", reference=reference))
    try:
        from modelscope import snapshot_download
    except ImportError as error:
        raise ModelError(
            say("{reference} needs the package modelscope; run: pip install modelscope", reference=reference)
        ) from error
    try:
        folder = snapshot_download(model_id, local_files_only=not fetch_missing)
    except Exception as error:  # modelscope passes on any error of its HTTP client or server
        raise ModelError(
            say(
                "ModelScope did not give {reference}: {reason}; check the name and the network",
                reference=reference,
                reason=next(iter(str(error).splitlines()), type(error).__name__),
            )
        ) from error
    return _from_folder(reference, Path(folder))


def _from_path(reference: str, path: Path) -> ModelSource:
    if path.is_dir():
        return _from_folder(reference, path)
    if not path.exists():
        raise ModelError(say("there is no file or folder {path}; a model on the hub is written hf:org/name", path=path))
    if path.suffix.lower() != ".gguf":
        raise ModelError(
            say("{path} is not a base model; give a folder with a config.json, or a .gguf file", path=path)
        )
    if _first_bytes(path) != b"GGUF":
        raise ModelError(say("{path} is not a GGUF file or is damaged; download it again", path=path))
    return ModelSource(reference, str(path.parent), path.name, bundled=False)


def _from_folder(reference: str, folder: Path) -> ModelSource:
    if (folder / "config.json").is_file():
        return ModelSource(reference, str(folder), None, bundled=False)
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            say("{folder} holds an adapter, not a base model; give the base model it was trained on", folder=folder)
        )
    gguf_files = sorted(file.name for file in folder.glob("*.gguf"))
    if gguf_files:
        raise ModelError(
            say(
                "{folder} has no config.json; name one of its .gguf files: {files}",
                folder=folder,
                files=listing(gguf_files),
            )
        )
    raise ModelError(
        say(
            "{folder} has no config.json, so it is not a base model; it needs config.json, the tokenizer's files and "
            "model.safetensors",
            folder=folder,
        )
    )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise ModelError(say("cannot read {path}: {reason}", path=path, reason=system_reason(error))) from error
