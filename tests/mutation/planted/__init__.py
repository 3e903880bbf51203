"""Planted bugs, kept beside the tests that find them: `python -m tests.mutation.planted` prints the score."""

from typing import Final

from tests.mutation.planted._planting import Mutant
from tests.mutation.planted.broadcast import BROADCAST
from tests.mutation.planted.files import FILES
from tests.mutation.planted.leases import LEASES
from tests.mutation.planted.life import LIFE
from tests.mutation.planted.people import PEOPLE
from tests.mutation.planted.stores import STORES
from tests.mutation.planted.turns import TURNS

MUTANTS: Final[tuple[Mutant, ...]] = (*LIFE, *TURNS, *PEOPLE, *STORES, *BROADCAST, *FILES, *LEASES)
