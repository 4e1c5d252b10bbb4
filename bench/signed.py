"""`python -m bench.signed`: what signed messages cost, by turns with messages that nobody signs."""

import sys

from bench.beside_plain import measure

if __name__ == "__main__":
    sys.exit(measure(None, prog="bench.signed", description=__doc__, subject="messages", word="signed"))
