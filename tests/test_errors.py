"""Errors: what they say, and that they survive a process border."""

from __future__ import annotations

import pickle

import pytest

from medtool import errors
from medtool.errors import MedtoolError, MissingExtraError, UnknownNameError, reason_of


def all_errors() -> list[type[MedtoolError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MedtoolError)]


@pytest.mark.parametrize("kind", [k for k in all_errors() if k not in (UnknownNameError, MissingExtraError)])
def test_every_error_keeps_its_message_hint_and_type_through_pickling(kind: type[MedtoolError]) -> None:
    back = pickle.loads(pickle.dumps(kind("the value seen", hint="the next step")))
    assert (type(back), str(back), back.hint) == (kind, "the value seen", "the next step")


def test_errors_with_their_own_arguments_survive_pickling_too() -> None:
    for error in (
        UnknownNameError("segmenter", "sam", known=["sam-vit-b"]),
        MissingExtraError("nifti", needed_for="x"),
    ):
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), back.hint) == (type(error), str(error), error.hint)


def test_every_error_can_be_caught_by_a_built_in_type_as_well() -> None:
    for kind in all_errors():
        if kind is not MedtoolError:
            built_in = {base for base in kind.__mro__ if base.__module__ == "builtins"}
            assert built_in - {Exception, BaseException, object}, kind


def test_an_unknown_name_comes_with_the_nearest_known_one() -> None:
    error = UnknownNameError("architecture", "resnet5O", known=["resnet50", "vit-b16"])
    assert str(error) == "no architecture is called 'resnet5O'. Did you mean 'resnet50'?"
    assert error.hint == "medtool plugins list architectures"
    assert error.exit_code == 2
    known = ["sam-vit-b", "sam-vit-h", "sam-vit-l", "mobile-sam"]
    for name in ("sam", "sam-vit-B"):
        assert "Did you mean 'sam-vit-b'?" in str(UnknownNameError("segmenter", name, known=known))
    assert "Did you mean" not in str(UnknownNameError("segmenter", "unet", known=known))


def test_a_reason_is_one_line_and_names_the_type_of_what_is_not_ours() -> None:
    assert reason_of(MedtoolError("ours")) == "ours"
    assert reason_of(ValueError("two\nlines")) == "ValueError: two lines"
    assert reason_of(PermissionError(13, "Permission denied", "/secret/path")) == "permission denied"
    assert reason_of(MemoryError()) == "MemoryError"
