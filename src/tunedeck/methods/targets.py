"""Which linear layers `target_modules` means. Matching nothing, or only some layers, is an error."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunedeck.core.errors import TargetError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.patterns import fullmatch


def select_targets(
    target_modules: tuple[str, ...] | str,
    linears: Sequence[str],
    *,
    layers_to_transform: tuple[int, ...] | None = None,
) -> list[str]:
    """Return the module paths that `target_modules` selects, in model order.

    `linears` are the paths of the linear layers inside the model's layers (no head, no output layer). Names must match
    in every layer, or in every layer of `layers_to_transform`; a regular expression may choose layers itself.
    Raises TargetError that says what was seen and what the model has.
    """
    candidates = list(linears)
    if layers_to_transform is not None:
        missing = sorted(set(layers_to_transform) - _layers(linears))
        if missing:
            raise TargetError(
                say("layers_to_transform names layers {missing} that the model lacks", missing=listing(missing))
            )
        candidates = [path for path in linears if _layer(path) in layers_to_transform]
    if target_modules == "all-linear" and candidates:
        return candidates
    if isinstance(target_modules, str):
        return _matching_expression(target_modules, candidates)
    names = list(dict.fromkeys(target_modules))
    for name in names:
        _check_name(name, candidates)
    return [path for path in candidates if any(_ends_with(path, name) for name in names)]


def _matching_expression(expression: str, linears: Sequence[str]) -> list[str]:
    found = [path for path in linears if fullmatch(expression, path)]
    if not found:
        raise TargetError(
            say(
                "target_modules {expression!r} matches no linear layer; a path looks like {example}",
                expression=expression,
                example=linears[0] if linears else say("none"),
            )
        )
    return found


def _check_name(name: str, linears: Sequence[str]) -> None:
    found = [path for path in linears if _ends_with(path, name)]
    if not found:
        known = sorted({path.rsplit(".", 1)[-1] for path in linears})
        raise TargetError(
            say("target module {name!r} matches no linear layer", name=name)
            + nearest(name, known)
            + say("; this model has: {known}", known=listing(known))
        )
    layers, matched = _layers(linears), _layers(found)
    if re.search(r"(^|\.)\d+\.", name):
        return  # the name says its layer
    if matched and matched != layers:
        raise TargetError(
            say(
                "target module {name!r} matches only {count} of {total} layers (not in: {missing}); "
                "to mean just these, set layers_to_transform to {matched}",
                name=name,
                count=len(matched),
                total=len(layers),
                missing=listing(sorted(layers - matched)),
                matched=sorted(matched),
            )
        )


def _ends_with(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _layers(paths: Sequence[str]) -> set[int]:
    return {layer for path in paths if (layer := _layer(path)) is not None}


def _layer(path: str) -> int | None:
    """Return the layer index in a path: its first numbered part, as PEFT reads it."""
    match = re.search(r"\.(\d+)\.", path)
    return int(match.group(1)) if match else None
