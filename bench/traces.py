"""`python -m bench.traces`: what spans of OpenTelemetry cost, by turns with a process that makes none."""

import sys

from bench.beside_plain import measure

if __name__ == "__main__":
    sys.exit(measure(None, prog="bench.traces", description=__doc__, subject="spans", word="traced"))
