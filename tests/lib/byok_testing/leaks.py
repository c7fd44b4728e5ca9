"""Look for a secret wherever it may have been left, in each form that a program would write it in."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

import duckdb


def forms(secret: str) -> list[bytes]:
    """A secret raw, in hex, URL-encoded, JSON-escaped, in UTF-16, and in base64 at each of the three alignments."""
    raw = secret.encode()
    found = [raw, raw.hex().encode(), raw.hex().upper().encode(), urllib.parse.quote(secret, safe="").encode()]
    found += ["".join(f"\\u{ord(char):04x}" for char in secret).encode(), secret.encode("utf-16-le"), json.dumps(secret)[1:-1].encode()]
    for shift in range(3):
        # Without the characters at both ends, which its neighbours would decide.
        whole = (len(raw) + shift) // 3 * 4
        text = base64.b64encode(b"\0" * shift + raw)[(0, 2, 3)[shift] : whole]
        found += [text, text.replace(b"+", b"-").replace(b"/", b"_")]
    return list(dict.fromkeys(found))


def hits(data: bytes | str, secrets: Iterable[str]) -> list[str]:
    """Which secrets stand in some bytes, with the form; never the secret itself."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return [
        f"secret {number}, form {place}" for number, secret in enumerate(secrets) for place, form in enumerate(forms(secret)) if form in raw
    ]


def search_files(folder: Path, secrets: Iterable[str]) -> dict[str, list[str]]:
    """Every file under a folder that holds a secret; DuckDB files are also read row by row, since they compress texts."""
    wanted = list(secrets)
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        seen = hits(path.read_bytes(), wanted)
        if path.suffix == ".duckdb":
            seen += hits(all_text(path), wanted)
        if seen:
            found[str(path.relative_to(folder))] = seen
    return found


def all_text(database: Path) -> str:
    """All rows of all tables of a DuckDB file, as text."""
    with duckdb.connect(str(database), read_only=True) as connection:
        tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
        return "\n".join(
            str(row) for schema, table in tables for row in connection.execute(f'SELECT * FROM "{schema}"."{table}"').fetchall()
        )
