"""What models, endpoints and files say is inert wherever it is shown; names are names, and no name is a path."""

import asyncio
import csv
import io
import json
import os
import pty
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import duckdb
import orjson
import pytest
from markdown_it import MarkdownIt
from pydantic import ValidationError

from byok.app import open_services
from byok.billing import two_bills
from byok.cli.init import initialise
from byok.cli.main import run as byok
from byok.datasets import (
    BadDatasetName,
    DatasetChanged,
    DatasetNotFound,
    FileUnreadable,
    FormatMismatch,
    FormatUnknown,
    Mapping,
)
from byok.errors import ByokError
from byok.grading import BadJudge
from byok.home import Home
from byok.registry import RegisterRequest
from byok.reporting import RunNotFound, find_run, report_page, run_summary
from byok.runs import Finished, RunUnknown, answer_shard, bill_run
from byok.sandbox import Fault
from byok.text import visible
from byok_testing.bench import Bench
from tasks.artifacts import bill_rows, leaderboard_rows, summary_markdown

TERMINAL = [
    "\x1b[2J\x1b[Hwiped",
    "\x1b]0;owned title\x07",
    "\x1b]52;c;b3duZWQ=\x07 clipboard",
    "\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x1bP$qm\x1b\\ device",
    "\x9b2J one byte \x9d0;owned\x9c",
    "pass\x08\x08\x08\x08fail\x7f",
    "first\rsecond \x00 third",
    "\u202efdp.exe\u202c and \u2066more\u2069\u200f",
]
MARKUP = [
    "[bold red]styled[/bold red] [link=https://evil.example]here[/link] :skull: [/]",
    "<script>document.title='owned'</script>",
    "</dd></details><img src=x onerror=document.title='owned'>",
    "![picture](https://evil.example/x.png) [link](javascript:alert(1)) <https://evil.example>",
    "a | b | c `code` **bold** ~~gone~~ _it_ # head & www.evil.example",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
]
FORMULAS = ["=cmd|'/C calc'!A0", '=HYPERLINK("https://evil.example")', "+1+1", "-2+3", "@SUM(1+1)", "\t=1+1", "\r=1+1", "\x00=1+1"]
QUERIES = ["x'); DROP TABLE model;--", '"; DROP TABLE main.charge; --', "' OR '1'='1", "$org; ATTACH '/etc/passwd' AS x"]
HOSTILE = [*TERMINAL, *MARKUP, *FORMULAS, *QUERIES]

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys instead of showing; line ends and tabs are ours too."""

NAME = "x'); DROP TABLE model;--"
SHOWN_NAME = NAME + " \x1b[2J\x9b1m\u202e<script>"
GRADER = r"regex:pattern=(<script>|\[bold\]|`\||https://evil.example)"


@pytest.fixture
def bench(services, monkeypatch, tmp_path):
    with Bench(services, monkeypatch, tmp_path, [("What is 6 times 7?", "42")]) as made:
        yield made


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run in which every text that somebody else may choose is hostile; gives its installation and its plan."""
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("BYOK_")]:
            patch.delenv(name)
        patch.setenv("BYOK_HOME", str(folder / "home"))
        patch.setenv("COLUMNS", "4000")
        initialise(Home.from_environment(), "acme", "owner@acme.example")
        services = open_services()
        with Bench(services, patch, folder, [("What is 6 times 7?", "42")]) as bench:
            yield bench, run_hostile(bench, folder)
        services.control.close()


def run_hostile(bench, folder):
    services = bench.services
    bench.serve(name=SHOWN_NAME, model_id=NAME)
    bench.serve("judge")
    services.judges.create(services.actor, "one", "judge", "binary", f"Judge {{{{output}}}}. {''.join(TERMINAL + MARKUP[:4])}")
    path = folder / "rows \x1b[2J\u202e<script>.jsonl"
    rows = [{"id": f"{number} {text}", "question": f"{text} ({number})", "answer": text} for number, text in enumerate(HOSTILE)]
    lines = [*map(json.dumps, rows), json.dumps({"id": "\x1b[2J", "question": " "}), json.dumps(rows[0])]
    path.write_text("\n".join(lines))
    services.datasets.add(services.actor, "hostile", path, Mapping(expected="answer"))
    answers = {row["question"]: Fault(text=row["answer"]) for row in rows}
    answers[rows[0]["question"]] = Fault(status=400, message="".join(HOSTILE), code="context_length_exceeded")
    reasons = iter(HOSTILE)
    bench.faults["model"] = lambda number, question: answers.get(question)
    bench.faults["judge"] = lambda number, question: (
        Fault(text=json.dumps({"reasoning": next(reasons, "r"), "verdict": "pass"})) if question.startswith("<<INPUT") else None
    )
    plan, _ = bench.run(dataset="hostile", judges=["one"], graders=[GRADER, "exact:strict=true"], min_scores={GRADER: 1.0})
    return plan


def looks(plan):
    """Commands that show what others chose."""
    everything = "SELECT * FROM v1.samples JOIN v1.verdicts USING (org_id, run_id, sample_id)"
    return [
        ["model", "list"],
        ["model", "show", "model"],
        ["dataset", "list"],
        ["dataset", "show", "hostile", "--rows", "100"],
        ["judge", "list"],
        ["judge", "show", "one"],
        ["run", "list"],
        ["run", "show", plan.run_id],
        ["bill", "show", "latest"],
        ["audit", "list"],
        ["sql", everything],
        ["sql", "SELECT * FROM v1.models"],
        ["sql", "PIVOT v1.samples ON output USING count(*)"],
        ["sql", "SELECT '\x1b[2J\x9b1m' AS \"\x1b]0;owned\x07\x9b1m\""],
        ["dataset", "show", SHOWN_NAME],
        ["run", "show", SHOWN_NAME],
        ["sql", f'SELECT "{SHOWN_NAME}"'],
    ]


def test_39_no_command_lets_data_speak_to_the_terminal(hostile, capfd):
    _, plan = hostile
    shown = ""
    for arguments in looks(plan):
        byok(arguments)
        found = "".join(capfd.readouterr())
        assert found and not OBEYED.search(found), arguments
        shown += found
    for text in MARKUP:
        assert text in shown, "markup stays what it is, to the letter"
    for text in HOSTILE:
        assert visible(text).expandtabs(1).strip() in shown.replace("\t", " "), "nothing is left out"


def test_39_json_is_exact_and_has_no_character_that_a_terminal_obeys(hostile, capfd):
    _, plan = hostile
    for arguments in looks(plan):
        byok([*arguments, "--json"])
        found, _ = capfd.readouterr()
        assert found and not OBEYED.search(found), arguments
        json.loads(found)
    byok(["sql", "SELECT expected FROM v1.samples ORDER BY row_number", "--json"])
    assert [text for (text,) in json.loads(capfd.readouterr().out)["rows"]] == HOSTILE


def test_39_a_real_terminal_gets_no_command_but_those_of_our_own_colours(hostile):
    _, plan = hostile
    commands = [
        *looks(plan),
        ["sql", "SELECT * FROM v1.samples", "--format", "csv"],
        ["sql", "SELECT * FROM v1.samples", "--json"],
    ]
    code = "import json, sys\nfrom byok.cli.main import run\nfor arguments in json.loads(sys.argv[1]): run(arguments)"
    master, slave = pty.openpty()
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(commands)],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            env=os.environ | {"TERM": "xterm-256color"},
        )
    finally:
        os.close(slave)
    raw = b""
    with closing(os.fdopen(master, "rb", buffering=0)) as screen:
        # A terminal whose last writer is gone reports an error instead of an end.
        while more := _read(screen):
            raw += more
    assert child.wait(60) == 0
    shown = raw.decode().replace("\r\n", "\n")
    assert "\x1b[" in shown, "it took this for a terminal"
    bare = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert not OBEYED.search(bare)
    assert bare.count("styled[/bold red]") >= 3


def _read(screen):
    try:
        return screen.read(65536)
    except OSError:
        return b""


@pytest.mark.usefixtures("hostile")
def test_39_a_spreadsheet_finds_no_formula_in_csv(capfd):
    byok(["sql", "SELECT expected, row_number - 100 AS below FROM v1.samples ORDER BY row_number", "--format", "csv"])
    _, *rows = csv.reader(io.StringIO(capfd.readouterr().out, newline=""))
    cells = [text for text, _ in rows]
    assert cells == [f"'{text}" if text in FORMULAS else text for text in HOSTILE]
    assert not [text for text in cells if text[0] in "=+-@\t\r\x00"]
    assert [int(number) for _, number in rows] == list(range(-100, len(HOSTILE) - 100)), "a number below zero stays a number"


@pytest.mark.usefixtures("hostile")
def test_39_a_column_that_is_named_by_data_is_no_formula_either(capfd):
    byok(["sql", "PIVOT (SELECT expected FROM v1.samples) ON expected USING count(*)", "--format", "csv"])
    header, *_ = csv.reader(io.StringIO(capfd.readouterr().out, newline=""))
    assert len(header) == len(HOSTILE)
    assert not [name for name in header if name[0] in "=+-@\t\r\x00"]


def test_39_a_browser_shows_the_report_and_runs_nothing_of_it(hostile, tmp_path):
    bench, plan = hostile
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "this test needs chromium on the PATH (Debian: apt-get install chromium)"
    page = report_page(bench.services.warehouse, bench.services.actor.org_id, plan.run_id)
    assert not OBEYED.search(page)
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
            *("--enable-logging=stderr", "--v=0", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom"),
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr and "Content Security Policy" not in done.stderr
    assert "<title>model on hostile</title>" in done.stdout
    assert done.stdout.count("<script") == 1
    assert not re.search(r"<(?:img|iframe|a|link|object|embed|form|base)[ >]", done.stdout)
    assert len(re.findall(r"<details[ >]", done.stdout)) == len(HOSTILE)
    for text in MARKUP[:3]:
        assert text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in done.stdout


def test_39_the_artifacts_hold_no_markup_but_their_own(hostile):
    bench, plan = hostile
    services = bench.services
    summary = run_summary(services.warehouse, services.actor.org_id, plan.run_id)
    scores = tuple(replace(summary.scores[0], grader=text) for text in HOSTILE) + summary.scores
    worst = replace(summary, model_key="".join(HOSTILE), dataset_name="\n\n# head\n\n".join(HOSTILE), scores=scores)
    page = summary_markdown(worst, Finished(plan.run_id, "completed", tuple(HOSTILE)))
    assert not OBEYED.search(page) and not re.search(r"(?<!\\)://|www\.", page)
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(page)
    kinds = [token.type for token in tokens]
    assert [kinds.count(kind) for kind in ("heading_open", "table_open", "paragraph_open")] == [1, 1, 2]
    assert not [kind for kind in kinds if kind.startswith(("html", "code", "fence", "bullet", "ordered", "blockquote", "hr"))]
    inner = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inner} == {"text", "strong_open", "strong_close"}
    assert [child.type for child in inner].count("strong_open") == 1, "how the run ended, and nothing else"
    rows = [token.content for at, token in enumerate(tokens) if kinds[at - 1] in ("td_open", "th_open")]
    assert len(rows) == 9 * (1 + len(scores)), "no cell is cut in two"
    for cells in (
        leaderboard_rows(services.warehouse, services.actor.org_id, worst),
        bill_rows(two_bills(services.warehouse, services.actor.org_id, plan.run_id)),
    ):
        assert cells and not OBEYED.search(str(cells)) and not [text for row in cells for text in row.values() if "\n" in text]


TABLES = "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'main'"


def test_39_a_name_that_is_a_statement_stays_a_name(hostile, capfd):
    bench, plan = hostile
    services = bench.services
    with closing(sqlite3.connect(services.home.data / "control.db")) as control:
        tables = {name for (name,) in control.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"model", "model_secret", "audit", "dataset", "judge"} <= tables
    model = services.registry.get(services.actor, "model")
    assert (model.name, model.remote_id) == (SHOWN_NAME, NAME)
    assert bench.query("SELECT name, remote_id FROM v1.models WHERE key = 'model'") == [(SHOWN_NAME, NAME)]
    assert bench.query(TABLES) == [(14,)]
    assert [row.id for row in services.datasets.rows(plan.dataset.version)] == [f"{n} {text}" for n, text in enumerate(HOSTILE)]
    for text in HOSTILE:
        for name, value in (("--model", text), ("--dataset", text)):
            assert byok(["run", "list", f"{name}={value}", "--json"]) == 0
            assert json.loads(capfd.readouterr().out) == {"runs": []}
        with pytest.raises(RunNotFound):
            find_run(services.warehouse, services.actor.org_id, text)
        with pytest.raises(ValidationError):
            RegisterRequest(key=text, name="n", base_url="https://api.example/v1", remote_id="r")
        with pytest.raises(BadJudge):
            services.judges.create(services.actor, text, "judge", "binary", "Is it right?")
        for wrong, code in (("model", "model_not_registered"), ("dataset", "dataset_not_found"), ("judges", "judge_not_found")):
            with pytest.raises(ByokError) as caught:
                bench.start(**{wrong: [text] if wrong == "judges" else text})
            assert caught.value.code == code
    assert bench.query(TABLES) == [(14,)]
    assert len(services.registry.list(services.actor)) == 2


NOT_NAMES = [
    *("../questions", "..", ".", "../../data/control.db", "questions/../questions", "questions/", "/etc/passwd", "//etc/passwd"),
    *("file:///etc/passwd", "https://evil.example/rows.jsonl", "s3://bucket/rows.jsonl", "~/.ssh/id_rsa", "$HOME/x", "-", "/dev/zero"),
    *("questions\x00", "questions\n", " questions", "QUESTIONS", "", "%2e%2e%2fquestions", "..\\questions"),
]


def test_39_a_run_takes_the_name_of_a_data_set_and_never_a_path(bench, tmp_path):
    """What a form of the Prefect UI holds is such a name too: nobody who can start a flow reads a file with it."""
    server = bench.serve()
    before, held = server.stats()["requests"], sorted(bench.services.home.datasets.iterdir())
    for name in NOT_NAMES:
        with pytest.raises(DatasetNotFound):
            bench.start(dataset=name)
        with pytest.raises(BadDatasetName):
            bench.services.datasets.add(bench.services.actor, name, tmp_path / "questions.jsonl", Mapping())
    assert list(bench.services.home.runs.glob("*")) == []
    assert server.stats()["requests"] == before
    assert sorted(bench.services.home.datasets.iterdir()) == held


def test_39_the_id_of_a_run_is_no_path(bench):
    bench.serve()
    plan = bench.start()
    for run_id in ("..", f"../runs/{plan.run_id}", f"{plan.run_id}/", "/etc", "latest", QUERIES[0], plan.run_id.upper()):
        with pytest.raises(RunUnknown):
            bill_run(bench.services, run_id)
    assert bill_run(bench.services, plan.run_id) == 0


def _fifo(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


FILES = {
    "a folder": (lambda path: path.mkdir(), "x.jsonl", FileUnreadable),
    "a pipe": (_fifo, "x.jsonl", FileUnreadable),
    "a pipe by the name of a table": (_fifo, "x.parquet", FileUnreadable),
    "a socket": (_socket, "x.csv", FileUnreadable),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "x.jsonl", FileUnreadable),
    "a loop": (lambda path: path.symlink_to(path), "x.jsonl", FileUnreadable),
    "nothing": (lambda path: None, "x.jsonl", FileUnreadable),
    "an address": (lambda path: None, "https://evil.example/rows.jsonl", FileUnreadable),
    "another format": (lambda path: path.write_text("root:x:0:0\n"), "passwd", FormatUnknown),
    "a database": (lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(100)), "x.jsonl", FormatMismatch),
}


@pytest.mark.parametrize(("make", "name", "error"), FILES.values(), ids=FILES)
def test_39_what_is_no_file_of_rows_is_refused_at_once(services, tmp_path, monkeypatch, make, name, error):
    monkeypatch.chdir(tmp_path)  # the name of a socket has to be short
    make(tmp_path / name)
    with pytest.raises(error):
        services.datasets.add(services.actor, "d", tmp_path / name, Mapping())
    assert services.datasets.list(services.actor) == []
    assert [path for path in services.home.datasets.glob("*") if path.is_dir()] == []


@pytest.mark.parametrize("name", ["a*.parquet", "a?.parquet", "[ab]1.parquet", "**.parquet"])
def test_39_a_file_whose_name_is_a_pattern_is_that_file_alone(services, tmp_path, name):
    with duckdb.connect() as connection:
        for file in ("a1.parquet", "a2.parquet", name):
            connection.execute("CREATE OR REPLACE TABLE t AS SELECT ? AS question", [file])
            connection.execute("COPY t TO '" + str(tmp_path / "made") + "' (FORMAT parquet)")
            os.rename(tmp_path / "made", tmp_path / file)
    report = services.datasets.add(services.actor, "d", tmp_path / name, Mapping())
    assert [row.input for row in services.datasets.rows(report.info.version)] == [name]


def _swap(how, folder, outside):
    rows = folder / "rows.jsonl"
    outside.mkdir()
    match how:
        case "a link to other rows" | "a link to the same rows":
            shutil.copy(rows, outside / "rows")
            if how == "a link to other rows":
                (outside / "rows").write_bytes(b'{"id":"a","input":"the secret","expected":"1","context":null}\n')
            rows.unlink()
            rows.symlink_to(outside / "rows")
        case "a folder elsewhere":
            shutil.move(folder, outside / "moved")
            folder.symlink_to(outside / "moved")
        case "a pipe":
            rows.unlink()
            os.mkfifo(rows)
        case "an edited row":
            rows.write_bytes(rows.read_bytes().replace(b"42", b"43"))
        case "one more row":
            rows.write_bytes(rows.read_bytes() * 2)
        case "other offsets":
            (folder / "offsets").write_bytes(orjson.dumps(0) * 8)
        case "a link in place of the offsets":
            shutil.move(folder / "offsets", outside / "offsets")
            (folder / "offsets").symlink_to(outside / "offsets")


@pytest.mark.parametrize(
    "how",
    [
        *("a link to other rows", "a link to the same rows", "a folder elsewhere", "a pipe", "an edited row", "one more row"),
        *("other offsets", "a link in place of the offsets"),
    ],
)
def test_39_the_stored_rows_cannot_be_swapped_unnoticed(bench, tmp_path, how):
    services = bench.services
    server = bench.serve()
    plan = bench.start()
    assert len(list(services.datasets.rows(plan.dataset.version))) == 1
    before = server.stats()["requests"]
    _swap(how, services.home.datasets / plan.dataset.version, tmp_path / "outside")
    with pytest.raises(DatasetChanged) as caught:
        asyncio.run(answer_shard(services, plan.run_id, 0))
    assert caught.value.hint and "secret" not in str(caught.value)
    assert server.stats()["requests"] == before
    for numbers in (None, [0]):
        with pytest.raises(DatasetChanged):
            next(services.datasets.rows(plan.dataset.version, numbers))
