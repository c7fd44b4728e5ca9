"""Check an endpoint against the wire facts: what is asked, what is judged, and the report."""

from byok.endpoint.checking.check import Progress, check
from byok.endpoint.checking.facts import FACTS, Fact
from byok.endpoint.checking.judge import Finding
from byok.endpoint.checking.plan import LIMIT, announced, planned
from byok.endpoint.checking.report import MEANING, OUTCOMES, Report
from byok.endpoint.checking.session import Target

__all__ = ["FACTS", "LIMIT", "MEANING", "OUTCOMES", "Fact", "Finding", "Progress", "Report", "Target", "announced", "check", "planned"]
