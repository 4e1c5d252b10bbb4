"""The base of functions in a Django process: they have Celery's `delay_on_commit`, too."""

from celery.contrib.django.task import DjangoTask

from conventions.tasks.plain_task import PlainTask


class DjangoFunction(PlainTask, DjangoTask):
    """`delay_on_commit` sends when Django's transaction has committed. A process that is killed between the two sends nothing, as in Celery."""

    abstract = True
