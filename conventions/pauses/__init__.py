"""Queues, tasks and workers that people have paused: workers begin nothing of them."""
