"""Every error that Polystore Flows raises.

::

    PolystoreError
    ├── URIError (ValueError)                 your URI or address is malformed
    │   └── AddressError                      it names a well, channel or plane that cannot be
    ├── UnknownBackendError (KeyError)        no such scheme or backend; lists the known ones
    ├── MissingDependencyError (ImportError)  an extra is not installed; names the pip line
    ├── NotFoundError (FileNotFoundError)     nothing is stored under the URI
    ├── AlreadyExistsError (FileExistsError)  something is, and ``overwrite`` was not given
    ├── ReadOnlyError (PermissionError)       the target cannot be written
    ├── UnsupportedError (UnsupportedOperation)  this backend cannot do that
    ├── MismatchError (ValueError)            the data does not fit its plate (shape, dtype)
    ├── StoredDataError (ValueError)          what is stored is wrong
    │   ├── CorruptMetadataError              a JSON document does not parse or contradicts itself
    │   ├── CorruptDataError                  a file or a chunk cannot be decoded
    │   ├── AmbiguousPlateError               two files claim one plane
    │   └── UnknownLayoutError                file names fit no known microscope
    ├── NoSpaceError (OSError)                the disk is full; nothing was changed
    ├── TransferError (OSError)               some parts of a copy failed
    ├── StepError (RuntimeError)              a step failed on some wells; names them
    ├── FileLockError (OSError)               a lock cannot be taken at all
    │   └── FileLockTimeoutError (TimeoutError)  its holder did not let go in time
    ├── MetadataWriteError (OSError)          a metadata document could not be written
    ├── ConflictError (OSError)               somebody else changed it since you read it
    ├── AccessDeniedError (PermissionError)   credentials are missing, wrong or not enough
    └── StoreUnavailableError (ConnectionError)  a server does not answer, or not as it should

Each is also the builtin that a Python user would catch. A message is one line
that names the URI and what to do.
"""

from __future__ import annotations

import io


class PolystoreError(Exception):
    """Base of all errors of this package; ``str()`` is one clear line."""

    def __str__(self) -> str:
        # KeyError would print its argument's repr, OSError its errno: users get the sentence.
        return " ".join(str(arg) for arg in self.args)


class URIError(PolystoreError, ValueError):
    """A URI or an address inside a plate is malformed."""


class AddressError(URIError):
    """An address is well formed but names what the plate cannot have."""


class UnknownBackendError(PolystoreError, KeyError):
    """No backend has this scheme or name."""


class MissingDependencyError(PolystoreError, ImportError):
    """A backend or a step needs a package that is not installed."""


class NotFoundError(PolystoreError, FileNotFoundError):
    """Nothing is stored under this URI."""


class AlreadyExistsError(PolystoreError, FileExistsError):
    """Something is stored under this URI, and overwriting was not asked for."""


class ReadOnlyError(PolystoreError, PermissionError):
    """The target, or the handle on it, is read-only."""


class UnsupportedError(PolystoreError, io.UnsupportedOperation):
    """This backend cannot do what was asked."""


class MismatchError(PolystoreError, ValueError):
    """An array does not fit the plate or the other arrays it comes with."""


class StoredDataError(PolystoreError, ValueError):
    """What is stored is wrong; the caller's argument was right."""


class CorruptMetadataError(StoredDataError):
    """A metadata document does not parse or contradicts itself; it was left untouched."""


class CorruptDataError(StoredDataError):
    """A file or chunk cannot be decoded."""


class AmbiguousPlateError(StoredDataError):
    """Two files of a folder claim to be the same plane."""


class UnknownLayoutError(StoredDataError):
    """The file names of a folder fit no known microscope."""


class NoSpaceError(PolystoreError, OSError):
    """The disk is full or a quota is used up; what was stored before is unchanged.

    Made of an ``errno`` and the sentence.
    """

    def __str__(self) -> str:
        return str(self.strerror)


class TransferError(PolystoreError, OSError):
    """Some parts of a copy failed; the others are complete."""


class StepError(PolystoreError, RuntimeError):
    """A step failed on some wells; the others are complete.

    Attributes:
        failed: Well -> what went wrong there.
    """

    def __init__(self, message: str, failed: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.failed = failed or {}


class FileLockError(PolystoreError, OSError):
    """A lock cannot be taken: no permission, no locks on this file system, or re-entrant use."""


class FileLockTimeoutError(FileLockError, TimeoutError):
    """The holder of a lock did not release it within the time-out."""


class MetadataWriteError(PolystoreError, OSError):
    """A metadata document could not be written; the old one is still there."""


class ConflictError(PolystoreError, OSError):
    """What is stored was changed by somebody else since it was read; nothing was written."""


class AccessDeniedError(PolystoreError, PermissionError):
    """A server refuses the credentials, or they are not enough for what was asked."""


class StoreUnavailableError(PolystoreError, ConnectionError):
    """A server does not answer, or answers that it cannot serve; a write may have happened."""
