"""Everything medtool raises on purpose, and the exit code each one ends with.

::

    MedtoolError                 exit 1
    ├── UsageError               exit 2   (ValueError)   the command line or an option is wrong
    │   └── UnknownNameError     exit 2   (KeyError)     no plugin, data set or weights of that name
    ├── InputError               exit 1   (ValueError)   an image, manifest or cache cannot be used
    │   ├── ImageError                                   one image cannot be read: one bad row
    │   │   └── SeveralPagesError                        it holds several pages or volumes, and none was chosen
    │   └── ManifestError                                the table is wrong, with its line
    ├── OutputError              exit 1   (OSError)      a result cannot be written
    ├── LineageError             exit 1   (ValueError)   results that must not be mixed
    ├── LeakError                exit 3   (ValueError)   the split leaks, so no score may come from it
    ├── BusyError                exit 1   (OSError)      another process holds this folder
    ├── MissingExtraError        exit 1   (ImportError)  an optional dependency is not installed
    ├── MissingWeightsError      exit 1   (FileNotFoundError)
    ├── PluginError              exit 1   (ImportError)  a plugin is broken or ambiguous
    └── NetworkError             exit 1   (OSError)      a download failed

Each error inherits from the fitting built-in too, so that callers who know nothing of medtool can catch it.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable


class ExitCode(enum.IntEnum):
    """What a medtool process ends with; documented in docs/reference/exit-codes.md."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    FOUND = 3
    PARTIAL = 4
    INTERRUPTED = 130
    TERMINATED = 143


class MedtoolError(Exception):
    """Base of every error medtool raises on purpose.

    Parameters
    ----------
    message
        One line: the value seen, and the value wanted.
    hint
        The next thing to do, preferably a command; shown on a line of its own.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        """Keep message and hint across process borders, whatever a subclass's own ``__init__`` takes."""
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))


def _rebuild(cls: type[MedtoolError], args: tuple[object, ...], state: dict[str, object]) -> MedtoolError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(MedtoolError, ValueError):
    """The command line, a config file or an option's value is wrong."""

    exit_code = ExitCode.USAGE


class UnknownNameError(UsageError, KeyError):
    """A name that is not registered, with the nearest one that is."""

    def __init__(self, kind: str, name: str, *, known: Iterable[str], hint: str | None = None) -> None:
        by_lower = {candidate.lower(): candidate for candidate in sorted(known, reverse=True)}
        asked = name.lower()
        begun = sorted(lower for lower in by_lower if asked and lower.startswith(asked))
        close = begun or difflib.get_close_matches(asked, sorted(by_lower), n=1, cutoff=0.5)
        near = [by_lower[lower] for lower in close]
        article = "an" if kind[0] in "aeiou" else "a"
        guess = f" Did you mean {near[0]!r}?" if near else f" It is not the name of {article} {kind} on this machine."
        super().__init__(f"no {kind} is called {name!r}.{guess}", hint=hint or f"medtool plugins list {kind}s")
        self.name = name


class InputError(MedtoolError, ValueError):
    """Something given to medtool cannot be used as it is."""


class ImageError(InputError):
    """One image cannot be read; the others go on."""


class SeveralPagesError(ImageError):
    """An image file holds several pages or volumes, and which one is meant was not said."""


class ManifestError(InputError):
    """A manifest is wrong; the message gives the file and the line."""


class OutputError(MedtoolError, OSError):
    """A result cannot be written: no space, no permission, not a folder."""


class LineageError(MedtoolError, ValueError):
    """Results made from other images, weights or options; they are not mixed."""


class LeakError(MedtoolError, ValueError):
    """Training and test images are not apart; nothing is trained or scored on them unless an option says so."""

    exit_code = ExitCode.FOUND


class BusyError(MedtoolError, OSError):
    """Another live process works on the same folder."""


class MissingExtraError(MedtoolError, ImportError):
    """An optional dependency is needed and not installed."""

    def __init__(self, extra: str, *, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs medtool's optional part {extra!r}, which is not installed",
            hint=f"pip install 'medtool[{extra}]'",
        )
        self.extra = extra


class MissingWeightsError(MedtoolError, FileNotFoundError):
    """Weights are not on this machine."""


class PluginError(MedtoolError, ImportError):
    """A plugin cannot be loaded, or two distributions claim one name."""


class NetworkError(MedtoolError, OSError):
    """A download failed; only ``medtool weights get`` can raise this."""


def reason_of(error: BaseException) -> str:
    """Return one line that says what went wrong, for a row or a message.

    ``OSError`` gives its text without the path; anything unexpected is named by its type, so that it is not mistaken
    for a message of ours.
    """
    if isinstance(error, MedtoolError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
