"""docs/cli.md names every command and every option that there is, and none that there is not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOC = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
COMMANDS = [
    "init",
    *(f"member {one}" for one in ("add", "list", "role", "suspend", "restore")),
    *(f"token {one}" for one in ("issue", "list", "rotate", "revoke")),
    *("audit list", "audit verify"),
    *(f"vault {one}" for one in ("setup", "status", "rewrap", "migrate", "dev")),
    *("key seal", "grant register", "grant rotate", "grant list", "grant revoke"),
    *(f"model {one}" for one in ("register", "list", "show", "rotate", "update", "probe", "disable")),
    "provider list",
    "provider show",
    "endpoint check",
    *(f"dataset {one}" for one in ("add", "list", "show")),
    *(f"judge {one}" for one in ("create", "list", "show")),
    "estimate",
    "evaluate",
    *(f"run {one}" for one in ("list", "show", "resume", "watch", "pause", "continue", "cancel")),
    *(f"price {one}" for one in ("show", "set", "history", "apply")),
    *(f"bill {one}" for one in ("show", "balance", "topup", "ledger", "verify", "reverse", "refund", "settings")),
    *(f"bill {one}" for one in ("statement", "consumption", "close", "export", "reconcile")),
    *("report", "sql", "schema show", "sandbox serve", "sandbox profiles", "up", "demo", "doctor"),
]


@pytest.fixture(scope="module")
def options():
    """The long options of each command, as its own help tells them."""
    code = "import sys; from byok.cli.main import run\nfor words in sys.argv[1:]: print('@@', words); run([*words.split(), '--help'])"
    text = subprocess.run([sys.executable, "-c", code, *COMMANDS], capture_output=True, text=True, check=True).stdout
    found = {}
    for part in text.split("@@ ")[1:]:
        command, _, shown = part.partition("\n")
        found[command] = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", shown)) - {"--json", "--help", "--version"}
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented(options, command):
    missing = {option for option in options[command] if option not in DOC and option.replace("--no-", "--") not in DOC}
    # An option that can be switched off is documented by the form that changes something.
    missing = {option for option in missing if f"--no-{option[2:]}" not in DOC}
    assert missing == set()


def test_every_documented_option_is_there(options):
    known = set().union(*options.values()) | {"--json", "--help", "--version"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", DOC)) - known == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command):
    group, _, verb = command.partition(" ")
    assert re.search(rf"`byok {group}", DOC) and (not verb or re.search(rf"`(?:byok {group} )?{verb}[ `]", DOC))
