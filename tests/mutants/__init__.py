"""Planted bugs, kept beside the tests that find them: `python -m tests.mutants` prints the score."""

from typing import Final

from tests.mutants._planting import Mutant
from tests.mutants.broadcast import BROADCAST
from tests.mutants.files import FILES
from tests.mutants.leases import LEASES
from tests.mutants.life import LIFE
from tests.mutants.people import PEOPLE
from tests.mutants.stores import STORES
from tests.mutants.turns import TURNS

MUTANTS: Final[tuple[Mutant, ...]] = (*LIFE, *TURNS, *PEOPLE, *STORES, *BROADCAST, *FILES, *LEASES)
