"""For tests of your own agents: a scripted model, and the conformance kit for stores (`trio_sagents.testing.conformance_store`)."""

from trio_sagents.testing._scripted import Call, Hang, Reply, ScriptedModel

__all__ = ("Call", "Hang", "Reply", "ScriptedModel")
