"""The embedded servers of `up` and `demo`."""
