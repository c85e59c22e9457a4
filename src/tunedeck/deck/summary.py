"""What an adapter adds to its base, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from tunedeck.deck.adapter import Adapter
from tunedeck.models.load import LoadedBase
from tunedeck.models.quantize import parameter_count


@dataclass(frozen=True, slots=True)
class Summary:
    """Sites, parameters and bytes of one adapter."""

    name: str
    kind: str
    sites: tuple[str, ...]
    method_parameters: int
    head_parameters: int
    base_parameters: int
    tensor_bytes: int
    """Bytes of the adapter's tensors as they are saved, head included."""

    @property
    def trainable_parameters(self) -> int:
        """All parameters that train: the method's and the head's."""
        return self.method_parameters + self.head_parameters

    @property
    def trainable_share(self) -> float:
        """Trainable parameters over the base's, 0 to 1 (above for more)."""
        return self.trainable_parameters / self.base_parameters


def summarise(base: LoadedBase, adapter: Adapter) -> Summary:
    """The summary of a loaded adapter."""
    own, head = adapter.tensors(), adapter.head_tensors()
    return Summary(
        name=adapter.name,
        kind=adapter.config.kind,
        sites=(*adapter.built.placements, *adapter.built.weights),
        method_parameters=sum(tensor.numel() for tensor in own.values()),
        head_parameters=sum(tensor.numel() for tensor in head.values()),
        base_parameters=parameter_count(base.model),
        tensor_bytes=sum(t.numel() * t.element_size() for t in (*own.values(), *head.values())),
    )
