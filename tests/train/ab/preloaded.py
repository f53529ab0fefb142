"""Print what of PRELOADED a child of the fork server has from its start: python -m tests.train.ab.preloaded."""

import multiprocessing
import sys
from multiprocessing.connection import Connection

from train.ab.arm_config import PRELOADED


def report(pipe: Connection) -> None:
    pipe.send([name for name in PRELOADED if name in sys.modules])


if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    ours, theirs = context.Pipe()
    child = context.Process(target=report, args=(theirs,))
    child.start()
    print(*ours.recv())
    child.join()
