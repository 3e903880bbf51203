"""OpenTelemetry spans, looked at through the SDK's exporter in memory."""
