"""What a contract is: a class whose ``test_*`` methods are run by pytest, or by :func:`run_checks` without it."""

from __future__ import annotations

import enum
import inspect
import unittest
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from medtool import registry
from medtool.errors import reason_of


class BrokenContractError(AssertionError):
    """A plugin does not do what its contract says; the message is one line."""


def expect(is_kept: object, message: str) -> None:
    """Fail the running check with ``message`` unless ``is_kept`` is true; unlike ``assert``, with ``python -O`` too."""
    if not is_kept:
        raise BrokenContractError(message)


def skip(reason: str) -> NoReturn:
    """End the running check as neither passed nor failed; pytest shows it as skipped."""
    raise unittest.SkipTest(reason)


class Contract:
    """Base of the contracts.

    Attributes
    ----------
    kind
        ``dataset``, ``architecture`` or ``segmenter``.
    name
        The plugin's name on the command line; it must be installed.
    plugin
        The object itself, in place of ``name``, for what is not installed.
    """

    kind: ClassVar[str]
    name: ClassVar[str] = ""
    plugin: ClassVar[Any] = None

    def _load(self) -> Any:
        """Return the plugin as medtool's registry would."""
        if type(self).plugin is None:
            return registry.load(self.kind, self.name)
        plugin = type(self).plugin
        return plugin() if self.kind != "segmenter" and inspect.isclass(plugin) else plugin

    def _texts_that_must_not_be_empty(self) -> tuple[str, ...]:
        return ("licence", "citation")

    def test_it_has_the_parts_of_its_contract(self) -> None:
        plugin = self._load()
        lacking = registry.lacking_parts(self.kind, plugin)
        expect(not lacking, lacking)

    def test_licence_and_citation_are_given(self) -> None:
        plugin = self._load()
        for name in self._texts_that_must_not_be_empty():
            value = getattr(plugin, name, None)
            expect(isinstance(value, str) and value.strip(), f"{name} must be a text that is not empty, not {value!r}")


class Outcome(enum.StrEnum):
    """How a check ended; skipped is not passed."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One check that has been run.

    Attributes
    ----------
    name
        A sentence.
    reason
        Why it failed or was skipped, one line; empty if it passed.
    """

    name: str
    outcome: Outcome
    reason: str = ""


def run_checks(contract: Contract, *, given: Mapping[str, object] | None = None) -> Iterator[Check]:
    """Run every check of a contract, one after the other, and yield how each ended. Needs no pytest.

    Parameters
    ----------
    contract
        An instance of a contract class with ``name`` or ``plugin`` set.
    given
        What pytest would pass as fixtures, such as ``root`` for a data set.
    """
    fixtures = given or {}
    for name in _check_names(type(contract)):
        sentence = name.removeprefix("test_").replace("_", " ")
        method = getattr(contract, name)
        arguments = {key: fixtures[key] for key in inspect.signature(method).parameters}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                method(**arguments)
        except unittest.SkipTest as reason:
            yield Check(sentence, Outcome.SKIPPED, str(reason))
        except BrokenContractError as error:
            yield Check(sentence, Outcome.FAILED, " ".join(str(error).split()))
        except (Exception, SystemExit) as error:
            yield Check(sentence, Outcome.FAILED, " ".join(reason_of(error).split()))
        else:
            yield Check(sentence, Outcome.PASSED)


def _check_names(contract: type[Contract]) -> list[str]:
    """Return the names of the checks in the order in which they are written, the base's first."""
    names = [name for cls in reversed(contract.__mro__) for name in vars(cls) if name.startswith("test_")]
    return list(dict.fromkeys(names))
