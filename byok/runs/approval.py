"""When a run needs somebody's agreement to what it may cost."""

from __future__ import annotations

import os
from dataclasses import dataclass
from decimal import Decimal

from byok.errors import InputError
from byok.money import MICRO, ecu, micro_ecu, parse_usd, plain
from byok.runs.estimate import Estimate
from byok.runs.request import EvaluationRequest


class ApprovalNeeded(InputError):
    """A run may cost more than the thresholds, and nobody has agreed to that."""

    code = "approval_needed"


@dataclass(frozen=True)
class Thresholds:
    """What runs may cost without being asked about.

    Attributes:
        usd: US dollars on the providers' bills.
        micro_ecu: Micro-ECU on the platform's bill.
    """

    usd: Decimal = Decimal(10)
    micro_ecu: int = 100 * MICRO

    @classmethod
    def from_environment(cls) -> Thresholds:
        """Those that `BYOK_APPROVE_ABOVE_USD` and `BYOK_APPROVE_ABOVE_ECU` name, or 10 USD and 100 ECU.

        Raises:
            BadAmount: One is no amount.
        """
        usd, ecus = os.environ.get("BYOK_APPROVE_ABOVE_USD"), os.environ.get("BYOK_APPROVE_ABOVE_ECU")
        return cls(
            cls.usd if usd is None else parse_usd(usd, what="BYOK_APPROVE_ABOVE_USD"),
            cls.micro_ecu if ecus is None else micro_ecu(ecus, what="BYOK_APPROVE_ABOVE_ECU"),
        )


def needs_approval(found: Estimate, request: EvaluationRequest) -> bool:
    """Whether somebody has to agree to the worst case of a run.

    A standing approval takes the place of a threshold. A cost that nobody can know is shown, and holds nothing up.

    Raises:
        BadAmount: A threshold or a standing approval is no amount.
    """
    if request.approved:
        return False
    least = Thresholds.from_environment()
    usd = least.usd if request.approve_up_to_usd is None else parse_usd(request.approve_up_to_usd, what="approve_up_to_usd")
    micro = least.micro_ecu if request.approve_up_to_ecu is None else micro_ecu(request.approve_up_to_ecu, what="approve_up_to_ecu")
    return (found.usd is not None and found.usd > usd) or found.micro_ecu > micro


def check_approval(found: Estimate, request: EvaluationRequest) -> None:
    """Refuse a run that nobody has agreed to.

    Raises:
        ApprovalNeeded: It may cost more than the thresholds, or than its standing approval.
    """
    if needs_approval(found, request):
        raise ApprovalNeeded(
            f"the run may cost {found.in_words()}, which somebody has to approve",
            hint="look at it: byok estimate …; then add --yes, or a cap: --max-usd, --max-ecu",
            usd=None if found.usd is None else plain(found.usd),
            ecu=ecu(found.micro_ecu),
            reckoned=reckoned(found),
        )


def reckoned(found: Estimate) -> str:
    """How an estimate was reckoned, as Markdown for a form."""
    rows = [
        f"| {line.role} | {line.model_key} | {line.requests} | {line.prompt_tokens} | {line.completion_tokens} |"
        f" {'unknown' if line.usd is None else plain(line.usd)} | {ecu(line.micro_ecu)} |"
        for line in found.lines
    ]
    head = "| for | model | requests | prompt tokens | answer tokens | USD | ECU |\n|---|---|--:|--:|--:|--:|--:|"
    remarks = "\n".join(f"- {remark}" for remark in found.remarks)
    return f"**Worst case: {found.in_words()}.**\n\n{head}\n" + "\n".join(rows) + f"\n\n{remarks}\n"
