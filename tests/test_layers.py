"""Imports point one way, and the domain does not know Prefect."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the ground up; a package may import what stands before it, never what stands after.
LAYERS = [
    ["errors"],
    ["clock", "ids", "money", "costs", "home", "resources", "text", "redaction"],
    ["control"],
    ["access"],
    ["keystore", "warehouse.rows", "engine.plan"],
    ["warehouse"],
    ["pricing"],
    ["billing", "ledger"],
    ["endpoint"],
    ["registry"],
    ["datasets"],
    ["grading"],
    ["app"],
    ["engine"],
    ["reporting", "statements"],
    ["runs"],
    ["cli"],
]
ALONE = {"sandbox": {"errors", "clock", "ids", "resources"}}


def _layer(module: str) -> int | None:
    for number, names in enumerate(LAYERS):
        if any(module == f"byok.{name}" or module.startswith(f"byok.{name}.") for name in names if "." in name):
            return number
    for number, names in enumerate(LAYERS):
        if any(module == f"byok.{name}" or module.startswith(f"byok.{name}.") for name in names if "." not in name):
            return number
    return None


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found |= {
                f"{node.module}.{name.name}" for name in node.names if (ROOT / Path(*node.module.split("."), f"{name.name}.py")).exists()
            }
    return found


def _modules() -> list[tuple[str, Path]]:
    paths = sorted((ROOT / "byok").rglob("*.py"))
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path) for path in paths]


@pytest.mark.parametrize(("module", "path"), [pytest.param(*one, id=one[0]) for one in _modules() if one[0] != "byok"])
def test_imports_point_down(module, path):
    top = module.split(".")[1]
    for imported in _imports(path):
        if not imported.startswith("byok."):
            continue
        below = imported.split(".")[1]
        if top in ALONE:
            assert below == top or below in ALONE[top], f"{module} imports {imported}"
        elif below in ALONE:
            assert top == "cli", f"{module} imports {imported}"
        elif below != top:
            mine, theirs = _layer(module), _layer(imported)
            assert mine is not None and theirs is not None, f"{module} or {imported} stands in no layer"
            assert theirs < mine, f"{module} imports {imported}"


@pytest.mark.parametrize("module", [one for one, _ in _modules() if "migrations" not in one and not one.endswith("__main__")])
def test_no_domain_module_names_prefect(module):
    path = dict(_modules())[module]
    assert not {name for name in _imports(path) if name.split(".")[0] in ("prefect", "flows", "tasks", "blocks")}


def test_importing_the_domain_leaves_prefect_out():
    code = (
        "import sys, byok, byok.app, byok.runs, byok.reporting, byok.cli.main, byok.cli.evaluate, byok.cli.up, byok.cli.demo\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'prefect'])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from byok.cli.main import run; run(['--help'])\n"
        "heavy = {'prefect', 'duckdb', 'sqlalchemy', 'scipy', 'altair', 'httpx', 'aiohttp', 'cryptography'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "evaluate" in done.stdout
