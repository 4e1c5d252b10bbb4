"""What we use of Django, and Django does not document, with Django itself. `tests/django/` has what follows from it."""

import subprocess
import sys

PROGRAM = """
import unittest
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
import django
django.setup()
from django.db import connection, transaction
from django.test import TestCase
from conventions.library_internals.django import is_in_testcase, waits_for_commit

def mark():
    pass

class Of(TestCase):
    def runTest(self):
        assert is_in_testcase(connection)
        with transaction.atomic():
            assert not is_in_testcase(connection)
            transaction.on_commit(mark)
            assert waits_for_commit(connection, mark)
            transaction.set_rollback(True)
        assert not waits_for_commit(connection, mark)
        with transaction.atomic():
            transaction.on_commit(mark)
        assert waits_for_commit(connection, mark)

assert not is_in_testcase(connection)
with transaction.atomic():
    assert not is_in_testcase(connection)
result = unittest.TestResult()
unittest.TestSuite([Of()]).run(result)
assert (result.testsRun, result.wasSuccessful()) == (1, True), result.errors + result.failures
print("done")
"""


def test_blocks_of_a_test_and_what_waits_for_a_commit() -> None:
    """In a process of its own, since Django's settings are those of a process."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout.strip()) == (0, "done"), ended.stderr
