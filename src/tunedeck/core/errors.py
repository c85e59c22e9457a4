"""Every error a user can cause, in one tree.

TunedeckError
├── ConfigError            a setting has a value it cannot have
├── DataError              a data file, a column or a label is not usable
├── ModelError             a base model cannot be found or loaded
├── TargetError            the target modules do not fit the model
│   └── ArchitectureError  the method is not supported on this architecture
├── AdapterError           an adapter cannot be used as asked
│   ├── UnknownAdapterError
│   ├── NoNearAdapterError  no adapter's training texts are like the text
│   ├── UnsupportedKindError
│   ├── AdapterFileError   an adapter folder is missing, damaged or incomplete
│   └── BaseMismatchError  the adapter was trained on another base
├── StorageError           a file could not be written; the previous content is kept
├── TrainingError          a run could not continue
├── UsageError             the command line is not understood
└── ServingError           a running server cannot take or finish a request now
    ├── OverloadedError    too much is waiting; says when to come back
    ├── DrainingError      the server is shutting down
    ├── UnavailableError   the disk or the memory failed; the same request may succeed later
    ├── StoppedError       the engine has ended because of a fault; the server must be started again
    └── DeadlineError      the request's time was up before its answer

Each class has a `code`, which the command line shows and `tunedeck explain CODE` explains (glossary.toml).
"""

from __future__ import annotations

from typing import ClassVar


class TunedeckError(Exception):
    """Base of all errors a user can cause; the text says what, the value seen, what is allowed and what to do."""

    code: ClassVar[str] = "TD-E001"


class ConfigError(TunedeckError):
    """A setting has a value it cannot have."""

    code = "TD-E002"


class DataError(TunedeckError):
    """A data file, a column or a label is not usable."""

    code = "TD-E003"


class ModelError(TunedeckError):
    """A base model cannot be found or loaded."""

    code = "TD-E004"


class TargetError(TunedeckError):
    """The target modules do not fit the model."""

    code = "TD-E005"


class ArchitectureError(TargetError):
    """The method is not supported on this architecture with any settings."""

    code = "TD-E006"


class AdapterError(TunedeckError):
    """An adapter cannot be used as asked."""

    code = "TD-E007"


class UnknownAdapterError(AdapterError):
    """No adapter of that name is loaded."""

    code = "TD-E008"


class NoNearAdapterError(AdapterError):
    """No adapter was trained on texts like the one that an adapter is to be chosen for."""

    code = "TD-E021"


class UnsupportedKindError(AdapterError):
    """The adapter is of a kind that is not supported."""

    code = "TD-E009"


class AdapterFileError(AdapterError):
    """An adapter folder is missing, damaged or incomplete."""

    code = "TD-E010"


class BaseMismatchError(AdapterError):
    """The adapter was trained on another base model."""

    code = "TD-E011"


class StorageError(TunedeckError):
    """A file could not be written; the previous content is kept."""

    code = "TD-E012"


class TrainingError(TunedeckError):
    """A training run could not continue."""

    code = "TD-E013"


class ServingError(TunedeckError):
    """A running server cannot take or finish a request now."""

    code = "TD-E014"


class OverloadedError(ServingError):
    """Too much is waiting; come back in `retry_after_s` seconds."""

    code = "TD-E015"

    def __init__(self, text: str, retry_after_s: float) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class DrainingError(ServingError):
    """The server is shutting down and takes no new requests."""

    code = "TD-E016"


class UnavailableError(ServingError):
    """The disk or the memory failed while an adapter was loaded; the same request may succeed later."""

    code = "TD-E017"


class StoppedError(ServingError):
    """The engine has ended because of a fault; the server must be started again."""

    code = "TD-E018"


class DeadlineError(ServingError):
    """The request's time was up before its answer."""

    code = "TD-E019"


class UsageError(TunedeckError):
    """The command line is not understood."""

    code = "TD-E020"
