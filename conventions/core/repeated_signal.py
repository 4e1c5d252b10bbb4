"""How soon the same signal counts as the one before: a terminal or a supervisor tells the group, and a launcher such as `uv run` tells the process again."""

SAME_PRESS = 0.5  # seconds
