"""Sends that are a row in the caller's transaction until it commits, and that the worker's relay sends then."""
