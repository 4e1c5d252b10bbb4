"""What everything stands on: errors, settings, priorities, the actor, bounds, text of errors. No I/O with a server."""
