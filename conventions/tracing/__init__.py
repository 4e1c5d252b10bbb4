"""Spans of sends and jobs, where a process has told OpenTelemetry where to send them."""
