"""What images are called: paths in their simplest form, endings, channels."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.split.exchange.names import can_be_file_name, channel_of, normal_path

path_text = st.text(alphabet="ab./\\:\0 ", max_size=12)


@given(path_text)
def test_a_normal_path_stays_below_its_folder_and_normalising_it_again_changes_nothing(text):
    normal = normal_path(text)
    if normal is not None:
        assert normal == posixpath.normpath(text.replace("\\", "/"))
        assert not normal.startswith(("/", "../"))
        assert normal != ".."
        assert normal_path(normal) == normal


@pytest.mark.parametrize("text", ["", "/a", "\\a", "C:/a", "c:a", "../a", "a/../../b", "..", "a\0b"])
def test_what_leads_out_of_the_folder_is_no_path_in_it(text):
    assert normal_path(text) is None


@pytest.mark.parametrize(
    ("text", "normal"),
    [("a/b", "a/b"), ("./a", "a"), ("a//b", "a/b"), ("a/x/../b", "a/b"), ("a\\b", "a/b"), ("..a", "..a")],
)
def test_a_path_has_one_form(text, normal):
    assert normal_path(text) == normal


@pytest.mark.parametrize(
    ("stem", "found"),
    [
        ("la_003_0000", ("la_003", "0000")),
        ("a_0001", ("a", "0001")),
        ("a_001", None),
        ("a_00001", None),
        ("_0000", None),
        ("a0000", None),
        ("a_" + "\N{ARABIC-INDIC DIGIT ZERO}" * 4, None),
    ],
)
def test_a_channel_is_four_digits_behind_an_underscore(stem, found):
    assert channel_of(stem) == found


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("P1_a", True),
        ("1.2.840", True),
        ("a.png", False),
        ("a.nii.gz", False),
        ("a/b", False),
        ("a\\b", False),
        ("..", False),
    ],
)
def test_an_image_id_can_be_a_file_name_unless_it_is_a_path_or_has_an_ending(text, is_one):
    assert can_be_file_name(text) == is_one
