"""Metadata become numbers by what the training rows hold, and by nothing else."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.architectures.metadata import MAX_CATEGORIES, MetadataEncoder
from medtool.errors import InputError, UnknownNameError, UsageError

TRAINING = pl.DataFrame(
    {
        "image": ["a", "b", "c", "d", "e"],
        "age": ["40", " 50.0", "", "70", "NaN"],
        "sex": ["male", "female", "unknown", "male ", "N/A"],
        "pack_years": ["3", "3", "3", "3", "3"],
    }
)


def test_numbers_are_centred_and_scaled_and_what_is_missing_is_marked() -> None:
    encoder = MetadataEncoder.fit(TRAINING, ["age"])

    known = np.array([40.0, 50.0, 70.0])
    scale = (np.percentile(known, 75) - np.percentile(known, 25)) / 1.349
    wanted = [[-10 / scale, 0], [0, 0], [0, 1], [20 / scale, 0], [0, 1]]
    assert encoder.names == ("age", "age=missing")
    np.testing.assert_allclose(encoder.encode(TRAINING), wanted, rtol=1e-6)


def test_robust_scaling_is_scikit_learns() -> None:
    from sklearn.preprocessing import RobustScaler

    values = np.random.default_rng(905).lognormal(size=200)
    table = pl.DataFrame({"x": [repr(float(value)) for value in values]})

    ours = MetadataEncoder.fit(table, ["x"]).encode(table)[:, 0]
    theirs = RobustScaler(unit_variance=True).fit_transform(values[:, None])[:, 0]

    # scikit-learn divides by the normal distribution's range to all its digits, 1.34898.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_a_column_without_spread_is_only_centred() -> None:
    encoded = MetadataEncoder.fit(TRAINING, ["pack_years"]).encode(pl.DataFrame({"pack_years": ["3", "5"]}))
    assert encoded.tolist() == [[0, 0], [2, 0]]


def test_categories_are_one_hot_with_a_place_for_the_unknown_and_the_unseen() -> None:
    encoder = MetadataEncoder.fit(TRAINING, ["sex"])

    later = pl.DataFrame({"sex": ["male", "female", "diverse", "", "UNKNOWN", None]})

    assert encoder.names == ("sex=female", "sex=male", "sex=unknown")
    assert encoder.encode(later).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]]


def test_one_word_among_numbers_makes_a_column_categorical() -> None:
    encoder = MetadataEncoder.fit(pl.DataFrame({"stage": ["1", "2", "inf"]}), ["stage"])
    assert encoder.names == ("stage=1", "stage=2", "stage=inf", "stage=unknown")


def test_the_encoding_of_a_row_does_not_depend_on_the_other_rows() -> None:
    encoder = MetadataEncoder.fit(TRAINING, ["age", "sex"])
    whole = encoder.encode(TRAINING)
    alone = [encoder.encode(TRAINING[row]) for row in range(TRAINING.height)]

    assert whole.dtype == np.float32
    assert encoder.width == whole.shape[1] == 5
    np.testing.assert_array_equal(np.concatenate(alone), whole)


def test_no_row_gives_no_row_of_the_same_width() -> None:
    assert MetadataEncoder.fit(TRAINING, ["age", "sex"]).encode(TRAINING.clear()).shape == (0, 5)


_CELLS = st.one_of(
    st.sampled_from(["", "unknown", "NaN", "a", "B", " a "]),
    st.floats(-1e30, 1e30).map(repr),
    st.text(max_size=4),
)


@given(st.lists(_CELLS, min_size=1, max_size=12).filter(lambda cells: any(cell in ("a", "B") for cell in cells)))
def test_an_encoder_of_text_survives_json_and_encodes_every_table(cells: list[str]) -> None:
    table = pl.DataFrame({"x": cells})
    encoder = MetadataEncoder.fit(table, ["x"])

    again = MetadataEncoder.of(json.loads(json.dumps(encoder.document())))

    assert again == encoder
    assert again.encode(table).sum(axis=1).tolist() == [1.0] * len(cells)


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=12))
def test_an_encoder_of_numbers_survives_json_to_the_last_digit(values: list[float]) -> None:
    table = pl.DataFrame({"x": [repr(value) for value in values]})
    encoder = MetadataEncoder.fit(table, ["x"])

    again = MetadataEncoder.of(json.loads(json.dumps(encoder.document())))

    assert again == encoder


def test_a_word_where_training_held_numbers_is_named_with_its_row() -> None:
    encoder = MetadataEncoder.fit(TRAINING, ["age"])

    with pytest.raises(InputError) as caught:
        encoder.encode(pl.DataFrame({"age": ["40", ">90"]}))

    assert str(caught.value) == "metadata column 'age' held numbers in training; row 2 holds '>90'"


def test_a_number_beyond_float32_is_refused() -> None:
    with pytest.raises(InputError, match="'age' of row 1 is too large"):
        MetadataEncoder.fit(TRAINING, ["age"]).encode(pl.DataFrame({"age": ["1e300"]}))


def test_a_table_without_a_column_is_refused() -> None:
    with pytest.raises(InputError, match="no column 'sex'") as caught:
        MetadataEncoder.fit(TRAINING, ["age", "sex"]).encode(TRAINING.drop("sex"))
    assert "age, sex" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ([], "no column of metadata"),
        (["age", "age"], "'age' is named twice"),
        (["image"], "'image' cannot be metadata"),
        (["label"], "'label' cannot be metadata"),
        (["empty"], "'empty' has no known value in the 300 training rows"),
        (["name"], f"300 values that are no numbers, of {MAX_CATEGORIES} at most"),
    ],
)
def test_columns_that_cannot_serve_are_refused(columns: list[str], complaint: str) -> None:
    rows = [str(number) for number in range(300)]
    table = pl.DataFrame({"image": rows, "age": rows, "empty": ["nan"] * 300, "name": [f"n{row}" for row in rows]})

    with pytest.raises(UsageError, match=complaint):
        MetadataEncoder.fit(table, columns)


def test_an_unknown_column_comes_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'age'"):
        MetadataEncoder.fit(TRAINING, ["agee"])


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"format": "another"},
        {"columns": [{"name": "x", "kind": "odd"}]},
        {"columns": [{"name": "x", "kind": "numeric", "median": 0, "scale": 0}]},
        {"columns": [{"kind": "numeric"}]},
        {"columns": None},
    ],
)
def test_a_document_that_is_none_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        MetadataEncoder.of({**MetadataEncoder.fit(TRAINING, ["age"]).document(), **change})
