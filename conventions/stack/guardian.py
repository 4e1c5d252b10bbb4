"""The process that ends every service of a stack when the `up` or `demo` that started them is gone.

Run as a file of its own, by the plain standard library: it leads the process group that all services are in.
"""

import os
import signal
import sys
import time

GRACE_SECONDS = 3.0


def main(pipe: int) -> None:
    """Wait until the other end of the pipe is closed, then end the whole process group, this process included.

    A byte read from the pipe says that the services ended in good order; what is left then has no claim to time.
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
