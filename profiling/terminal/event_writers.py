"""The threads of TensorBoard's event writers: only the main thread reports their errors."""

import threading


def silence_event_writer_threads() -> None:
    """Suppress the tracebacks of the threads that write TensorBoard's event files.

    The error of such a thread, a full disk for example, is raised again in the main thread by the next write, flush or
    close of the event file (tensorboard.summary.writer.event_file_writer). There it is reported in one line.
    """
    threading.excepthook = _print_unless_event_writer


def _print_unless_event_writer(failure: threading.ExceptHookArgs) -> None:
    if not type(failure.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(failure)
