"""`python -m bench.sealed`: what sealed and signed messages cost, by turns with messages that are neither."""

import sys

from bench.beside_plain import measure

if __name__ == "__main__":
    sys.exit(measure(None, prog="bench.sealed", description=__doc__, subject="messages", word="sealed"))
