"""The mutants that survive, and may: each is equivalent to what stands there, or told apart by nothing that is promised.

By the key of the mutant (`Mutant.key`), the reason. A key that no mutant has any more is a mistake; a test says so.
"""

from typing import Final

EXPLAINED: Final[dict[str, str]] = {}
