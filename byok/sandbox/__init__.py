"""A simulated provider on loopback: it answers from a key file, right for an exactly known set of questions.

For demos, dry runs and tests: what it did is counted, so results can be checked against known truth.
"""

from byok.sandbox.answers import AnswersUnusable, read_answers
from byok.sandbox.dialects import PROFILES, Deviation
from byok.sandbox.faults import Fault
from byok.sandbox.options import BadSandboxOption, features_of
from byok.sandbox.server import Sandbox

__all__ = ["PROFILES", "AnswersUnusable", "BadSandboxOption", "Deviation", "Fault", "Sandbox", "features_of", "read_answers"]
