"""A worker process: it reads jobs from standard input, one line of JSON each, and answers each with one line.

It ends when its input ends. If that happens during a job, the job writes a checkpoint and stops, as after SIGTERM.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from queue import SimpleQueue

from stochnorm.comparison.executors.job import Job, perform

__all__: list[str] = []


def main() -> None:
    """Do jobs until standard input ends."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # outside of training, SIGTERM raises in the job
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # all that libraries print goes to the log
    lines: SimpleQueue[str] = SimpleQueue()
    busy = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put("")
        if busy.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=listen, daemon=True).start()
    import stochnorm.training.finetune  # noqa: F401 (slow; done while the first job is prepared)

    gc.freeze()  # modules stay: no collection looks at their hundred thousands of objects again

    while line := lines.get():
        busy.set()
        outcome = perform(Job.from_json(line))
        busy.clear()
        try:
            print(outcome.as_json(), file=answers, flush=True)
        except BrokenPipeError:  # the comparison has ended
            break


if __name__ == "__main__":
    main()
