"""A process that does the jobs it is told on standard input, a line of JSON each, and answers each with a line.

It ends when its input does. If that happens during a job, as after SIGTERM, the job writes a checkpoint and stops.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from queue import SimpleQueue

from stochnorm.comparison.executors.job import Job, perform

__all__: list[str] = []


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # where training does not take it, unwinds the job
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to the log
    lines: SimpleQueue[str] = SimpleQueue()
    busy = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put("")
        if busy.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=listen, daemon=True).start()
    import stochnorm.training.finetune  # noqa: F401 (before the first job comes, to share the time)

    while line := lines.get():
        busy.set()
        outcome = perform(Job.from_json(line))
        busy.clear()
        try:
            print(outcome.as_json(), file=answers, flush=True)
        except BrokenPipeError:  # nobody listens any more
            break


if __name__ == "__main__":
    main()
