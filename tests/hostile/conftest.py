"""The fixtures of the scenarios, for the attacks on decisions."""

from tests.scenarios.conftest import backend, instants

__all__ = ["backend", "instants"]
