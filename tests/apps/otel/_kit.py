"""Spans in memory, and how to look at them."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@attrs.define(init=False)
class Spans:
    """The spans that were recorded."""

    provider: TracerProvider
    _exporter: InMemorySpanExporter

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def ended(self) -> Sequence[ReadableSpan]:
        """The spans that have ended, in the order of their ends."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the spans of that name."""
        return [span for span in self.ended if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Return the span with a name."""
        (span,) = self.named(name)
        return span

    def parent(self, span: ReadableSpan) -> ReadableSpan | None:
        """Return the parent, which has to have ended, too."""
        if span.parent is None:
            return None
        (found,) = [other for other in self.ended if other.context.span_id == span.parent.span_id]
        assert found.context.trace_id == span.context.trace_id
        return found

    def way(self, span: ReadableSpan) -> list[str]:
        """Return the names from the root to this span."""
        parent = self.parent(span)
        return [*([] if parent is None else self.way(parent)), span.name]

    def tree(self) -> list[str]:
        """Return all ways, sorted."""
        return sorted(" > ".join(self.way(span)) for span in self.ended)


def told(span: ReadableSpan) -> Mapping[str, Any]:
    """Return a span's attributes."""
    return dict(span.attributes or {})


def status(span: ReadableSpan) -> tuple[str, Any]:
    """Return a span's status, and the type of its error."""
    return span.status.status_code.name, told(span).get("error.type")
