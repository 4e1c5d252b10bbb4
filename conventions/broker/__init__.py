"""Messages: their form, and the three places in Redis where a message can be."""
