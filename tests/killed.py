"""The command line in a process that kills itself some time after a step: `python -m tests.killed STEP SECONDS train ...`."""

import os
import signal
import sys
import threading

import common.training
from common.__main__ import main


class Bar(common.training.tqdm):
    def update(self, n=1):
        super().update(n)
        if self.n >= int(sys.argv[1]):
            threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), signal.SIGKILL)).start()


common.training.tqdm = Bar
raise SystemExit(main(sys.argv[3:]))
