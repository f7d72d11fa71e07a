"""CSV text: one parser, and every error with its physical line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medtool.errors import ManifestError
from medtool.tables import read_text_table


def _written(tmp_path: Path, data: bytes | str) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_numbers_dates_and_spaces_stay_the_text_they_were(tmp_path: Path) -> None:
    table = read_text_table(_written(tmp_path, "id,b\n007,1e5\n12345678901234567890, x \nTrue,2024-01-01\nNA,\n"))
    assert table.frame.to_dict(as_series=False) == {
        "id": ["007", "12345678901234567890", "True", "NA"],
        "b": ["1e5", " x ", "2024-01-01", ""],
    }


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_gives_the_same_rows_and_lines(tmp_path: Path, ending: str) -> None:
    text = ending.join(["a,b", "1,2", "", '"x', 'y",3', "4,5"])
    table = read_text_table(_written(tmp_path, text))
    assert list(table.rows()) == [{"a": "1", "b": "2"}, {"a": f"x{ending}y", "b": "3"}, {"a": "4", "b": "5"}]
    assert list(table.lines) == [2, 4, 6]


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path: Path) -> None:
    assert read_text_table(_written(tmp_path, b"\xef\xbb\xbfa,b\n1,2\n")).frame.columns == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"a,b\n", "has a header and no rows"),
        (b"\na,b\n1,2\n", "line 1: the line is blank"),
        (b"a,a\n1,2\n", "line 1: columns 1 and 2 are both called 'a'"),
        (b"a,\n1,2\n", "line 1: column 2 has no name"),
        (b"a,b\n1,2\n1\n", "line 3: 1 field where the header has 2"),
        (b"a,b\n1,2\n\n1,2,3\n", "line 4: 3 fields where the header has 2"),
        (b'a,b\n"x\ny",2\n1,2,3\n', "line 4: 3 fields"),
        (b'a,b\n1,2\n"3,4\n5,6\n', "line 3: a quote that is opened in this row is never closed"),
        (b'a,b\n1,"2"3\n', "line 2: text after a closing quote"),
        (b'a,b\n1,"' + b"x" * 200_000, "line 2: a value of more than 131,072 characters"),
        (b"a,b\n1,\x00\n", "line 2: a NUL byte"),
        (b"a,b\n1,2\n3,\xe4\n", "line 3: byte 0xe4 is not UTF-8"),
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n3,\xe4\r\n", "line 3: byte 0xe4 is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "line 1: the file is UTF-16"),
        ("a,b\n1,2\n".encode("utf-16-le"), "line 1: a NUL byte"),
        ("a,b\n1,2\n".encode("utf-32"), "line 1: the file is UTF-32"),
    ],
)
def test_a_malformed_table_is_refused_with_its_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = _written(tmp_path, data)
    with pytest.raises(ManifestError) as caught:
        read_text_table(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_byte_far_down_is_named_by_its_own_line(tmp_path: Path) -> None:
    path = _written(tmp_path, b"a,b\n" + b"1,2\n" * 60_000 + b"3,\xff\n")
    with pytest.raises(ManifestError, match="line 60002: byte 0xff"):
        read_text_table(path)


def test_rows_keep_their_order_across_chunks(tmp_path: Path) -> None:
    n = 120_001
    path = _written(tmp_path, "a\n" + "".join(f"{index}\n" for index in range(n)))
    table = read_text_table(path)
    assert table.frame["a"].to_list() == [str(index) for index in range(n)]
    assert table.where(n - 1) == f"{path}, line {n + 1}"


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"cannot read .*nothing\.csv: no such file"):
        read_text_table(tmp_path / "nothing.csv")
    with pytest.raises(ManifestError, match="cannot read"):
        read_text_table(tmp_path)


def test_a_first_column_without_a_name_is_an_index_only_where_one_may_be(tmp_path: Path) -> None:
    path = _written(tmp_path, ",a\n0,x\n")
    assert list(read_text_table(path, may_have_index=True).rows()) == [{"": "0", "a": "x"}]
    with pytest.raises(ManifestError, match="line 1: column 1 has no name"):
        read_text_table(path)
    with pytest.raises(ManifestError, match="line 1: column 2 has no name"):
        read_text_table(_written(tmp_path, ",,a\n0,1,x\n"), may_have_index=True)


_pieces = st.sampled_from(
    [b"a", b"image", b",", b'"', b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\xe4", b"=", b" "]
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_pieces | st.binary(max_size=4), max_size=24).map(b"".join))
def test_whatever_the_bytes_they_are_a_table_or_one_line_that_names_the_file(tmp_path: Path, data: bytes) -> None:
    path = _written(tmp_path, data)
    message = ""
    try:
        table = read_text_table(path)
    except ManifestError as error:
        message = str(error)
    if message:
        assert message.startswith(str(path))
        assert len(message.splitlines()) == 1
    else:
        assert table.frame.height == len(table.lines) > 0
        assert list(table.lines) == sorted(set(table.lines))
        assert all(isinstance(value, str) for row in table.rows() for value in row.values())


def test_texts_that_programs_take_for_numbers_or_orders_stay_as_they_are(tmp_path: Path) -> None:
    texts = [
        "12345678901234567890123",
        "0x1F",
        "1_000",
        "1.0",
        "-0",
        "inf",
        "=1+1",
        "@x",
        "\x1b[2J",
        "\x9b31m",
        "\u202ex",
    ]
    table = read_text_table(_written(tmp_path, "id\n" + "\n".join(texts) + "\n"))
    assert table.frame["id"].to_list() == texts
