"""Dead letters: kept, found, edited, and sent again (R17, R18)."""
