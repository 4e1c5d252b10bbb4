"""celery-conventions with a tracer provider: each send and each job is a span, which is handed to an exporter that keeps none."""

from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from bench.program import Program
from bench.systems import conventions


class Nowhere(SpanExporter):
    """Keeps nothing: what a network costs is the exporter's."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002  # of `SpanExporter`
        """Nothing."""
        return SpanExportResult.SUCCESS


def program(url: str) -> Program:
    """The program of this system."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)
    return conventions.program(url)
