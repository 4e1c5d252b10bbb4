"""What the processes of a pool share: read once by their parent, not by each of them in its first job."""

import importlib
from typing import Any

from celery import bootsteps

from conventions.core.extras import is_installed
from conventions.storage.redis_store import script_source

MODULES = ("encodings.idna",)  # which the first connection to a named host imports
SEALS = (
    "cryptography.exceptions",
    "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.hazmat.primitives.kdf.hkdf",
)  # a tenth of a second
PARTS = ("release", "claims", "lease_keeper")  # in a pool of threads two first jobs at once would make one each
SCRIPTS = ("claim", "claim_new", "settle", "short_start", "succeed", "short_outcomes_recorded", "claim_renew")


class Preloading(bootsteps.Step):
    """Reads modules and scripts before the pool forks."""

    def create(self, worker: Any) -> None:
        """Import the modules, read the scripts, make the parts. Connect to nothing."""
        seals = worker.app.payload_keys is not None and is_installed("cryptography")  # embedded stacks have keys anyway
        for module in (*MODULES, *(SEALS if seals else ())):
            importlib.import_module(module)
        for script in SCRIPTS:
            script_source(script)
        for part in PARTS:
            getattr(worker.app, part)  # kept from now on
