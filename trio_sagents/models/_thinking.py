"""How much a model is to think: one setting for all providers."""

from typing import Final, Literal, TypeAlias, get_args

import attrs

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: Final = frozenset(get_args(Effort))


@attrs.frozen(kw_only=True)
class Thinking:
    """How much a model is to think before it answers. Give an effort, a budget, or both; each provider takes what it knows.

    A model refuses, when it is described, a setting that its provider has no words for.
    """

    effort: Effort | None = None
    """From "none" to "max"; None leaves it to the provider. Which efforts a model knows is its provider's to say."""
    budget_tokens: int | None = None
    """The most tokens of thinking in one answer; None sets no such bound."""

    def __attrs_post_init__(self) -> None:
        if self.effort is None and self.budget_tokens is None:
            raise ValueError("Thinking needs an effort, or budget_tokens")
        if self.effort is not None and self.effort not in EFFORTS:
            raise ValueError(f"Thinking.effort must be one of {', '.join(map(repr, get_args(Effort)))}, not {self.effort!r}")
        if self.budget_tokens is not None and (type(self.budget_tokens) is not int or self.budget_tokens < 1):
            raise ValueError(f"Thinking.budget_tokens must be an int of at least 1, not {self.budget_tokens!r}")
