"""`PlainTask`: the base of functions, and of Celery's own tasks."""

import celery


class PlainTask(celery.Task):
    """A task that is none of ours, whose messages are held like ours."""

    abstract = True
    Request = "conventions.request:PlainRequest"
    Strategy = "conventions.lane_strategy:strategy"
