"""`Preloading`: the first job of a pool process finds read what every process needs."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from conventions.app import ConventionsApp
from conventions.storage.redis_store import Store
from conventions.worker.preloading import Preloading
from tests.support import patient

FIRST_JOB = """
import os, sys
from conventions.worker.preloading import SCRIPTS, Preloading
from conventions.storage.redis_store import Store

{preload}
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
found = []

def hear(event, args):
    if event == "import" or (event == "open" and str(args[0]).endswith(".lua")):
        found.append(args[0])

store = Store({url!r}, "t")
sys.addaudithook(hear)
for name in SCRIPTS:
    store.script(name)
"sms.example".encode("idna")
os._exit(len(found))
"""


def first_job(store: Store, preload: str) -> int:
    """How many modules and scripts the first job of a forked process reads."""
    code = FIRST_JOB.format(url=store.url, preload=preload)
    return subprocess.run([sys.executable, "-c", code], timeout=patient(30), check=False).returncode


@pytest.mark.thorough
def test_a_forked_process_reads_nothing_for_its_first_job(store: Store) -> None:
    """Each of them would read the same."""
    preload = "from unittest.mock import Mock; Preloading(None).create(Mock())"
    assert first_job(store, preload) == 0
    assert first_job(store, "") > 5


def test_two_first_jobs_at_once_share_the_keeper_of_leases(app: ConventionsApp) -> None:
    """It is made before the pool begins: who of two threads asks first for a cached part may get one that nobody else sees."""
    Preloading(None).create(SimpleNamespace(app=app))
    assert "lease_keeper" in vars(app)
