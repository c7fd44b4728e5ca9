"""The FinOps Foundation's own validator, in a virtual environment of its own (`make test-focus`)."""

import os
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

VENV = os.environ.get("BYOK_FOCUS_VENV")

# What applies to us: there are accounts of two types, unit prices, usage, resources with types, tags, and a virtual currency. There are no
# regions, zones, sub-accounts, reservations, commitments or price lists of several categories.
CRITERIA = (
    "ACCOUNT_NAMING_SUPPORTED",
    "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED",
    "NEGOTIATED_PRICING_SUPPORTED",
    "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED",
    "PUBLIC_PRICE_LIST_SUPPORTED",
    "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED",
    "TAGGING_SUPPORTED",
    "UNIT_PRICING_SUPPORTED",
    "USAGE_MEASUREMENT_SUPPORTED",
    "VIRTUAL_CURRENCY_SUPPORTED",
)


@pytest.fixture(scope="session")
def validator():
    """Validate a file; gives the names of the rules that failed, and how many were checked."""
    if VENV is None:
        pytest.fail("BYOK_FOCUS_VENV names no virtual environment: run make test-focus")
    program = Path(VENV) / "bin" / "focus-validator"
    (packages,) = (Path(VENV) / "lib").glob("python3*/site-packages")

    def validate(path):
        report = path.with_name(f"{path.name}.xml")
        words = ["--data-file", path, "--validate-version", "1.2.0.1", "--block-download", "--applicability-criteria", ",".join(CRITERIA)]
        # It opens its rules by a path that is relative to its own packages.
        done = subprocess.run(
            [program, *words, "--output-type", "unittest", "--output-destination", report],
            cwd=packages,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert report.exists(), done.stderr[-2000:]
        # Its exit code says nothing: it is 0 with failures too.
        cases = list(ET.parse(report).getroot().iter("testcase"))
        failed = {case.get("name").split(" ")[0] for case in cases if case.find("failure") is not None or case.find("error") is not None}
        skipped = sum(case.find("skipped") is not None for case in cases)
        return failed, len(cases) - skipped

    return validate
