"""Planted bugs, and the tests that find them: `python -m tests.mutation.planted` prints the score; the README has the rest."""

from typing import Final

from tests.mutation.planted.broadcast import BROADCAST
from tests.mutation.planted.cluster import CLUSTER
from tests.mutation.planted.files import FILES
from tests.mutation.planted.leases import LEASES
from tests.mutation.planted.life import LIFE
from tests.mutation.planted.nodes import NODES
from tests.mutation.planted.people import PEOPLE
from tests.mutation.planted.rules import RULES
from tests.mutation.planted.stores import STORES
from tests.mutation.planted.turns import TURNS
from tests.mutation.planted.web import WEB
from tests.mutation.planted.windows import WINDOWS
from tests.support.planting import PlantedBug

BUGS: Final[tuple[PlantedBug, ...]] = (
    *LIFE,
    *TURNS,
    *PEOPLE,
    *STORES,
    *BROADCAST,
    *CLUSTER,
    *FILES,
    *LEASES,
    *NODES,
    *RULES,
    *WEB,
    *WINDOWS,
)
