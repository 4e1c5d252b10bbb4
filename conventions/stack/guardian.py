"""The process that ends all services of a stack when the `up` or `demo` that started them is gone.

It runs as a file, with the standard library only. It leads the process group of all services.
"""

import os
import signal
import sys
import time

GRACE_SECONDS = 3.0


def main(pipe: int) -> None:
    """Wait until the other end of the pipe is closed, then end the whole process group, with this process.

    A byte in the pipe means that the services ended in order. The remaining processes are then killed without a grace
    period.
    """
    if os.getpgrp() != os.getpid():
        raise SystemExit("the guardian must lead a process group of its own")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    in_good_order = os.read(pipe, 1)
    if not in_good_order:
        os.killpg(os.getpgrp(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
