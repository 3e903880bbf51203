"""The simulator without jumps of the clock, for programs that measure time."""

import functools
from typing import Final

from trio_sagents.testing._plan import CancelAt
from trio_sagents.testing._simulation import Simulation
from trio_sagents.testing._simulator import simulate as _simulate

__all__ = ("CancelAt", "Simulation", "simulate")

simulate: Final = functools.partial(_simulate, jumps=False)
