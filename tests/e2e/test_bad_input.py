"""What people get wrong: each mistake has a name and a hint, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
from pathlib import Path

import pytest

KEY = "sk-bad-input-4f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c"


@pytest.fixture(scope="module")
def shop(new_installation):
    """An installation of its own, so that counting what is stored is simple."""
    byok = new_installation()
    byok.run("init", "--org", "acme", "--owner", "owner@acme.example")
    return byok


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    path.write_text("".join(json.dumps({"question": f"What is {n} + {n}?", "answer": str(2 * n)}) + "\n" for n in range(20)))
    return path


@pytest.fixture(scope="module")
def sandbox(serve, shop, answers):
    with serve(answers, KEY, "--model-id", "right-model") as told:
        shop.allow(told["host_port"])
        yield told


def stored(byok) -> list[int]:
    """How many rows and folders there are of everything that a command could leave half done."""
    with contextlib.closing(sqlite3.connect(byok.home / "data" / "control.db")) as control:
        counts = [
            control.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("model", "model_secret", "dataset", "dataset_version", "judge", "judge_version")
        ]
    folders = ("datasets", "spool/runs", "spool/segments/waiting", "spool/segments/rejected")
    return counts + [len(list((byok.home / "data" / folder).glob("*"))) for folder in folders]


def refused(byok, *arguments: str, code: int, **environment: str) -> dict:
    """Run a command that must fail; return its error, and check that nothing was stored and a hint given."""
    before = stored(byok)
    error = byok.json(*arguments, code=code, **environment)["error"]
    assert error["hint"], error
    assert KEY not in json.dumps(error)
    assert stored(byok) == before
    return error


def register(url: str, model_id: str = "right-model") -> tuple[str, ...]:
    return ("model", "register", "m", "--name", "M", "--base-url", url, "--model-id", model_id, "--api-key-env", "THE_KEY")


def test_unreachable_url(shop):
    with socket.socket() as taken:  # bound, not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        host_port = f"127.0.0.1:{taken.getsockname()[1]}"
        shop.allow(host_port)
        assert refused(shop, *register(f"http://{host_port}/v1"), code=4, THE_KEY=KEY)["code"] == "endpoint_unreachable"


def test_an_address_that_is_not_allowed(shop):
    for url in (
        "http://127.0.0.1:9/v1",
        "https://10.0.0.1/v1",
        "https://169.254.169.254/v1",
        "https://localhost/v1",
        "http://example.com/v1",
    ):
        assert refused(shop, *register(url), code=3, THE_KEY=KEY)["code"] == "endpoint_forbidden_address", url
    for url in ("ftp://example.com/v1", "https://user:pass@example.com/v1", "example.com/v1"):
        assert refused(shop, *register(url), code=2, THE_KEY=KEY)["code"] == "bad_base_url", url


def test_a_wrong_key(shop, sandbox):
    wrong = "sk-wrong-0a1b2c3d4e5f60718293a4b5c6d7e8f9"
    assert refused(shop, *register(sandbox["base_url"]), code=4, THE_KEY=wrong)["code"] == "endpoint_auth"


def test_a_wrong_model_id(shop, sandbox):
    assert refused(shop, *register(sandbox["base_url"], "other-model"), code=4, THE_KEY=KEY)["code"] == "model_not_found"


def test_html_instead_of_json(shop, httpd):
    shop.allow(httpd)
    assert refused(shop, *register(f"http://{httpd}/v1"), code=4, THE_KEY=KEY)["code"] == "endpoint_not_openai"


def test_a_key_variable_that_is_not_set(shop, sandbox):
    assert refused(shop, *register(sandbox["base_url"]), code=2)["code"]


def test_no_option_takes_the_key_itself(shop):
    done = shop.run("model", "register", "m", "--api-key", KEY, code=2)
    assert "--api-key" not in shop.run("model", "register", "--help").stdout.replace("--api-key-stdin", "").replace("--api-key-env", "")
    assert KEY not in done.stdout


def test_a_registered_model_with_the_same_key_is_kept(shop, sandbox):
    shop.run(*register(sandbox["base_url"]), THE_KEY=KEY)
    assert refused(shop, *register(sandbox["base_url"]), code=2, THE_KEY=KEY)["code"] == "model_exists"


@pytest.mark.parametrize(
    ("name", "content", "codes"),
    [
        ("empty.jsonl", b"", {"dataset_empty"}),
        ("image.jsonl", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", None),
        ("text.parquet", b"question,answer\n1,2\n", None),
        ("missing.jsonl", b'{"text":"hello"}\n{"text":"you"}\n', None),
        ("blank.jsonl", b'{"question":"","answer":"1"}\n', {"dataset_empty"}),
    ],
)
def test_files_that_are_not_data_sets(shop, tmp_path, name, content, codes):
    path = tmp_path / name
    path.write_bytes(content)
    error = refused(shop, "dataset", "add", "bad", str(path), code=2)
    assert codes is None or error["code"] in codes


def test_a_file_that_does_not_exist(shop):
    refused(shop, "dataset", "add", "bad", "/nowhere/file.jsonl", code=2)


def test_duplicate_ids_and_missing_fields_are_quarantined_with_line_and_reason(shop, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"id":"a","question":"1+1?","answer":"2"}\n'
        '{"id":"a","question":"2+2?","answer":"4"}\n'
        '{"id":"b","answer":"6"}\n'
        "not json\n"
        '{"id":"c","question":"4+4?\u2028","answer":"8"}\n'
    )
    told = shop.json("dataset", "add", "mixed", str(path))["dataset"]
    assert (told["rows"], told["quarantined"]) == (2, 3)
    assert [row["line"] for row in told["quarantine"]] == [2, 3, 4]
    assert "duplicate" in told["quarantine"][0]["reason"]


def test_unknown_names_in_an_evaluation(shop, sandbox):
    assert refused(shop, "evaluate", "nobody", "mixed", "--grader", "exact", code=2)["code"]
    assert refused(shop, "evaluate", "m", "nothing", "--grader", "exact", code=2)["code"]
    assert "numeric" in refused(shop, "evaluate", "m", "mixed", "--grader", "telepathy", code=2)["hint"]
    assert refused(shop, "evaluate", "m", "mixed", "--grader", "numeric:wisdom=1", code=2)["code"]
    assert refused(shop, "evaluate", "m", "mixed", "--judge", "nobody", code=2)["code"]
    assert refused(shop, "evaluate", "m", "mixed", "--grader", "exact", "--concurrency", "0", code=2)["code"] == "bad_option"
    assert refused(shop, "evaluate", "m", "mixed", "--grader", "exact", "--min-score", "exact", code=2)["code"] == "bad_option"


def test_no_token_and_a_wrong_token(shop):
    assert shop.json("model", "list", code=3, BYOK_TOKEN_FILE="/nowhere/token")["error"]["hint"]
    assert shop.json("model", "list", code=3, BYOK_TOKEN="byok_wrong_token")["error"]["hint"]


def test_before_init_every_command_says_so(new_installation):
    byok = new_installation()
    for command in (("model", "list"), ("dataset", "list"), ("run", "list"), ("sql", "SELECT 1"), ("evaluate", "a", "b")):
        error = byok.json(*command, code=2)["error"]
        assert error["code"] == "not_initialised" and "byok init" in error["hint"]


def test_usage_errors_leave_with_two(shop):
    assert shop.run("no-such-command", code=2).stdout == ""
    shop.run("model", "register", code=2)


@pytest.fixture(scope="module")
def httpd():
    """A web server that answers everything with HTML."""
    import http.server
    import threading

    class Html(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = b"<!doctype html><html><body>Welcome to nginx!</body></html>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Html)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()
