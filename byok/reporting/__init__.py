"""Reports: a run in numbers, and its page."""

from byok.reporting.summary import RunAmbiguous, RunNotFound, RunSummary, Score, find_run, run_summary
from byok.warehouse import Warehouse


def report_page(warehouse: Warehouse, org_id: str, run_id: str) -> str:
    """The report page of a run as HTML; see `byok.reporting.page` (imported when it is used: plots are heavy)."""
    from byok.reporting.page import report_page as render

    return render(warehouse, org_id, run_id)


__all__ = ["RunAmbiguous", "RunNotFound", "RunSummary", "Score", "find_run", "report_page", "run_summary"]
