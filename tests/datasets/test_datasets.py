"""Data sets: what comes in, what is set aside, what comes back."""

import gzip
import json

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byok.datasets import DatasetEmpty, DatasetNotFound, FieldMissing, FormatMismatch, Mapping
from byok.errors import InputError


@pytest.fixture
def add(services, tmp_path):
    """Add a file of some bytes; returns the report."""

    def run(content, name="file.jsonl", dataset="d", **mapping):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return services.datasets.add(services.actor, dataset, path, Mapping(**mapping))

    return run


@pytest.fixture
def rows(services):
    return lambda report: list(services.datasets.rows(report.info.version))


def test_only_a_newline_ends_a_line(add, rows):
    texts = ["a\u2028b", "c\u2029d", "e\u0085f", "g\rh", "i\x0bj\x0ck", "l\x1cm"]
    lines = [json.dumps({"id": str(n), "question": text}, ensure_ascii=False).replace("\\r", "\r") for n, text in enumerate(texts)]
    lines[3] = json.dumps({"id": "3", "question": texts[3]})
    lines[4], lines[5] = (json.dumps({"id": str(n), "question": texts[n]}) for n in (4, 5))
    report = add("\n".join(lines))
    assert report.quarantine == [] and [row.input for row in rows(report)] == texts


@pytest.mark.parametrize("content", ['\ufeff{"question":"q"}\n', '{"question":"q"}\r\n', '{"question":"q"}', '\n\n{"question":"q"}\n\n'])
def test_what_editors_do_to_files_is_tolerated(add, rows, content):
    report = add(content)
    assert [row.input for row in rows(report)] == ["q"] and report.quarantine == []


def test_values_stay_as_they_are_written(add, rows):
    report = add('{"id":1,"question":"q","answer":1.10}\n{"id":"x","question":{"b":1,"a":[2]},"answer":true}\n')
    assert [(row.id, row.input, row.expected) for row in rows(report)] == [("1", "q", "1.10"), ("x", '{"a":["2"],"b":"1"}', "true")]


def test_rows_that_cannot_be_used_are_set_aside_with_line_and_reason(add, rows):
    report = add(
        '{"id":"a","question":"q1","answer":"1"}\n'
        '{"id":"a","question":"q2","answer":"2"}\n'
        '{"id":"b","question":"   ","answer":"3"}\n'
        '{"id":"c","answer":"4"}\n'
        "not json\n"
        '{"id":"d","question":"q","answer":NaN}\n'
        '{"id":"e","id":"f","question":"q"}\n'
        '["a","list"]\n'
        '{"id":"g","question":"q","answer":["a","list"]}\n'
        '{"question":"no id"}\n'
        '{"id":"z","question":"q9","answer":null}\n'
    )
    assert [one.line for one in report.quarantine] == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert "duplicate id 'a' (first on line 1)" in report.quarantine[0].reason
    assert all(one.reason for one in report.quarantine)
    assert [(row.number, row.id) for row in rows(report)] == [(0, "a"), (1, "z")]
    assert report.info.quarantined == 9


def test_bytes_that_are_no_text_are_set_aside(add):
    assert add(b'{"question":"good"}\n{"question":"\xff\xfe"}\n').quarantine[0].line == 2


def test_csv_with_quoted_newlines_and_ragged_rows(add, rows):
    report = add('id,question,answer\n1,"two\nlines",x\n2,short\n3,"a ""quote""",y\n', "file.csv")
    assert [(row.id, row.input, row.expected) for row in rows(report)] == [("1", "two\nlines", "x"), ("3", 'a "quote"', "y")]
    assert [(one.line, one.reason) for one in report.quarantine] == [(4, "2 fields where the header has 3")]


def test_parquet(add, rows, tmp_path):
    path = tmp_path / "made.parquet"
    duckdb.sql("SELECT * FROM (VALUES ('a', 'q1', 1), ('b', NULL, 2)) t(id, prompt, target)").write_parquet(str(path))
    report = add(path.read_bytes(), "file.parquet")
    assert [(row.id, row.input, row.expected) for row in rows(report)] == [("a", "q1", "1")]
    assert report.quarantine[0].line == 2


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.jsonl", b"\x89PNG\r\n\x1a\n\0\0", FormatMismatch),
        ("a.csv", gzip.compress(b"question\nq\n", mtime=0), FormatMismatch),
        ("a.jsonl", b"PAR1....PAR1", FormatMismatch),
        ("a.parquet", b"question\nq\n", FormatMismatch),
        ("a.parquet", b"PAR1 but then nothing", FormatMismatch),
        ("a.jsonl", b'[{"question":"q"}]', FormatMismatch),
        ("a.csv", b"question,question\nq,q\n", FormatMismatch),
        ("a.csv", b'question\n"unclosed\n', FormatMismatch),
        ("a.csv", b"question\n\xff\n", FormatMismatch),
        ("a.txt", b"question", InputError),
        ("a.jsonl", b"", DatasetEmpty),
        ("a.csv", b"question\n", DatasetEmpty),
        ("a.jsonl", b'{"question":""}\n', DatasetEmpty),
        ("a.jsonl", b'{"text":"q"}\n', InputError),
    ],
)
def test_files_that_are_no_data_sets_store_nothing(add, services, name, content, error):
    with pytest.raises(error) as caught:
        add(content, name)
    assert caught.value.hint
    assert list(services.home.datasets.iterdir()) == [] and services.datasets.list(services.actor) == []


def test_a_named_field_that_is_nowhere_lists_those_that_are(add):
    with pytest.raises(FieldMissing) as caught:
        add('{"question":"q","answer":"a"}\n', expected="solution")
    assert "answer, question" in caught.value.hint


def test_named_fields_win_over_usual_ones(add, rows):
    record = {"question": "not this", "task": "this", "ref": "r", "ctx": "c", "key": "k"}
    (row,) = rows(add(json.dumps(record), input="task", expected="ref", id="key", context="ctx"))
    assert (row.id, row.input, row.expected, row.context) == ("k", "this", "r", "c")


def test_the_pattern_takes_the_last_match(add, rows):
    report = add('{"question":"q","answer":"#### 1 then #### 2"}\n{"question":"p","answer":"none"}\n', expected_pattern=r"#### (\d+)")
    assert [row.expected for row in rows(report)] == ["2"] and report.quarantine[0].line == 2


def test_bad_and_endless_patterns(add):
    with pytest.raises(InputError):
        add('{"question":"q","answer":"a"}\n', expected_pattern="(")
    report = add('{"question":"p","answer":"b"}\n{"question":"q","answer":"' + "a" * 60 + 'b"}\n', expected_pattern=r"^(?:a|aa)+$|^b$")
    assert report.quarantine[0].reason == "the expected pattern takes too long on this row"


def test_versions_are_contents(add, services):
    one = '{"id":"1","question":"q","answer":"a"}\n'
    first = add(one)
    assert add(one, "renamed.ndjson").unchanged
    second = add(one.replace('"a"', '"b"'))
    assert (second.info.number, second.unchanged) == (2, False) and second.info.version != first.info.version
    assert services.datasets.get(services.actor, "d").number == 2
    assert services.datasets.get(services.actor, "d", first.info.version).number == 1
    assert services.warehouse.query("SELECT number, rows FROM v1.datasets ORDER BY 1").rows == [(1, 1), (2, 1)]
    assert len(list(services.home.datasets.iterdir())) == 2
    with pytest.raises(DatasetNotFound):
        services.datasets.get(services.actor, "other")


def test_a_rows_hash_is_of_its_content_alone(add, rows):
    one = rows(add('{"id":"1","question":"q","answer":"a"}\n'))[0]
    moved = rows(add('{"id":"0","question":"x"}\n{"id":"2","question":"q","answer":"a"}\n'))[1]
    edited = rows(add('{"id":"1","question":"q","answer":"b"}\n'))[0]
    assert one.hash == moved.hash != edited.hash


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=20, unique=True), data=st.data())
def test_any_rows_are_found_by_their_numbers(add, services, texts, data):
    report = add("".join(json.dumps({"question": text}) + "\n" for text in texts))
    every = list(services.datasets.rows(report.info.version))
    usable = [text for text in texts if not any(0xD800 <= ord(char) < 0xE000 for char in text)]
    assert [row.input for row in every] == usable
    numbers = sorted(data.draw(st.sets(st.integers(0, len(every) - 1))))
    assert list(services.datasets.rows(report.info.version, numbers)) == [every[number] for number in numbers]


@pytest.mark.parametrize("name", ["", "Upper", "../up", "a b", "a" * 65])
def test_names_that_cannot_be_used(add, name):
    with pytest.raises(InputError):
        add('{"question":"q"}\n', dataset=name)
