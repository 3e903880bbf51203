"""For tests of your own agents: a scripted model, a simulator, sweeps, faults, crashes, and the invariants that must hold.

simulate, simulate_many            a Trio program on seeded, adversarial schedules, in virtual time
sweep_cancels, _faults, _crashes   the same program once for each place where something can go wrong
ScriptedModel, FaultyModel, ...    stand-ins for what an agent depends on
EventSpy                           what a viewer saw, checked
invariants                         what must hold after any run
conformance_store, _lease, _cluster  the tests that every store, every `Leases` and every `Cluster` must pass (need pytest)
providers                          servers that speak the protocols of providers, each in its dialect
machines                           Hypothesis state machines over Trio (needs hypothesis)
mcp_server                         an MCP server with the quirks of real ones, as a child process (needs mcp)
"""

from trio_sagents.testing._crash import CrashStore
from trio_sagents.testing._faults import Faults, FaultyLeases, FaultyModel, FaultyStore, InjectedFault, deaf_tool, faulty_tool
from trio_sagents.testing._faulty_cluster import FaultyCluster
from trio_sagents.testing._habits import Habit
from trio_sagents.testing._plan import CancelAt, CrashAt, FaultAt, Plan
from trio_sagents.testing._scripted import Call, Hang, Reply, ScriptedModel
from trio_sagents.testing._simulation import Deadlock, Runaway, Simulation, SimulationError
from trio_sagents.testing._simulator import run_plain, run_plan, simulate, simulate_many
from trio_sagents.testing._spy import EventSpy
from trio_sagents.testing._sweeps import sweep_cancels, sweep_crashes, sweep_faults
from trio_sagents.testing._tally import Finding, Tally
from trio_sagents.testing.invariants import Violation

__all__ = (
    "Call",
    "CancelAt",
    "CrashAt",
    "CrashStore",
    "Deadlock",
    "EventSpy",
    "FaultAt",
    "Faults",
    "FaultyCluster",
    "FaultyLeases",
    "FaultyModel",
    "FaultyStore",
    "Finding",
    "Habit",
    "Hang",
    "InjectedFault",
    "Plan",
    "Reply",
    "Runaway",
    "ScriptedModel",
    "Simulation",
    "SimulationError",
    "Tally",
    "Violation",
    "deaf_tool",
    "faulty_tool",
    "run_plain",
    "run_plan",
    "simulate",
    "simulate_many",
    "sweep_cancels",
    "sweep_crashes",
    "sweep_faults",
)
