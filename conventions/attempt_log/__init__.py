"""The log lines of an attempt: collected while its code runs, kept where it fails or takes long."""
