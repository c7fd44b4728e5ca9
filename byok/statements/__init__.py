"""Statements of months, their closing, consumption and forecast; FOCUS export and reconciliation are packages below."""

from byok.statements.close import close_month
from byok.statements.consumption import Consumption, consumption
from byok.statements.credit import CreditMonth, StatementDoesNotTie
from byok.statements.forecast import Forecast, forecast
from byok.statements.lines import By, Statement, StatementLine, Totals
from byok.statements.members import member_names
from byok.statements.months import BadMonth, Month
from byok.statements.statement import month_statement, month_totals

__all__ = [
    "BadMonth",
    "By",
    "Consumption",
    "CreditMonth",
    "Forecast",
    "Month",
    "Statement",
    "StatementDoesNotTie",
    "StatementLine",
    "Totals",
    "close_month",
    "consumption",
    "forecast",
    "member_names",
    "month_statement",
    "month_totals",
]
