"""OpenTelemetry spans: `Agent(..., middleware=[Tracing()])`, by the GenAI semantic conventions.

Only the API of OpenTelemetry is used; the application's SDK decides what happens to the spans.
"""

try:
    import opentelemetry.trace as _api
except ImportError as _exc:
    if _exc.name not in {"opentelemetry", "opentelemetry.trace"}:
        raise
    raise ImportError('trio_sagents.otel needs the package "opentelemetry-api": pip install "trio-sagents[otel]"', name=_exc.name) from _exc

from trio_sagents.otel._tracing import Tracing

del _api

__all__ = ("Tracing",)
