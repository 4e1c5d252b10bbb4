"""The base of all other folders: errors, settings, priorities, the actor, bounds, text of errors. It calls no server."""
