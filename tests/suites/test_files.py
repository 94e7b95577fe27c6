import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from harness.errors import UsageError
from suites.data.files import read_file


def texts(path: Path) -> list[str]:
    return [document.text for document in read_file(path)]


def test_txt_has_a_document_a_paragraph(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\nstill one\r\n\r\ntwo\n \n\n\nthree ñ\n".encode())
    assert [(d.name, d.text) for d in read_file(path)] == [
        ("a.txt:1", "one\nstill one\r"),
        ("a.txt:2", "two"),
        ("a.txt:3", "three ñ\n"),
    ]


def test_json_lines_has_a_document_a_line(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"text": "a\n\nb", "id": 1}, {"text": " "}, {"text": "ж"}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert [(d.name, d.text) for d in read_file(path)] == [
        ("a.jsonl:1", "a\n\nb"),
        ("a.jsonl:3", "ж"),
    ]


def test_parquet_has_a_document_a_row(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["a", "", "ж"], "n": [1, 2, 3]}), path)
    assert texts(path) == ["a", "ж"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"fine\n\nbad \xff\n", r"a\.txt:3 is not UTF-8 \(byte 0xff\).*iconv"),
        ("a.txt", b" \n\n \n", r"a\.txt holds no text"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', r"a\.jsonl:2 is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n\n{"body": "x"}\n', r'a\.jsonl:3 has no string "text"'),
        ("a.jsonl", b'["x"]\n', r'a\.jsonl:1 has no string "text"'),
        ("a.jsonl", b'{"text": 3}\n', r'a\.jsonl:1 has no string "text"'),
        ("a.jsonl", b'{"text": "\\ud800"}\n', r"a\.jsonl:1 holds half a surrogate pair"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xe9"}\n', r"a\.jsonl:2 is not UTF-8"),
        ("a.parquet", b"PAR1 no", r"a\.parquet is not a Parquet file"),
        ("a.parquet", b"", r"a\.parquet is not a Parquet file"),
        ("a.csv", b"text\nx\n", r"suffix '\.csv', readable are \.txt, \.jsonl, \.parquet"),
    ],
)
def test_a_bad_file_is_named_with_place_and_remedy(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_file(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file .*nothing\.txt"):
        read_file(tmp_path / "nothing.txt")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pyarrow.table({"body": ["x"], "n": [1]}), 'no column "text" but body, n'),
        (pyarrow.table({"text": ["x", None]}), "row 1 is None, not a string"),
        (pyarrow.table({"text": [1]}), "row 0 is 1, not a string"),
        (pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), "holds no text"),
    ],
)
def test_a_parquet_without_text_is_refused(tmp_path, table, message):
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path)
    with pytest.raises(UsageError, match=message):
        read_file(path)


def test_parquet_text_that_is_not_utf8_is_named_by_row(tmp_path):
    offsets, data = pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"a\xff")
    bad = pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, offsets, data])
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": bad}), path)
    with pytest.raises(UsageError, match="row 1 is not UTF-8"):
        read_file(path)
