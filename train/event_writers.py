"""Threads of TensorBoard's event writers: their errors are reported once, by the main thread."""

import threading


def silence_event_writer_threads() -> None:
    """Keep the threads that write TensorBoard's event files from printing tracebacks.

    The error that such a thread met, a full disk for example, is raised again by the next write, flush or close of the
    event file (tensorboard.summary.writer.event_file_writer), where it is reported in one line.
    """
    threading.excepthook = _print_unless_event_writer


def _print_unless_event_writer(failure: threading.ExceptHookArgs) -> None:
    if not type(failure.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(failure)
