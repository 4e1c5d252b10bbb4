"""A message, what it looks like, and the three places in Redis where it can be."""
