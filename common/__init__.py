"""empapers: electron-microscopy restoration papers as runnable Keras code. This package is what they share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up notes would bury our own lines; set it to 0 to see them
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # one kind of kernels, also without AVX-512: a training step then takes about half the time

from .micrograph import Micrograph, load_micrograph, save_micrograph  # noqa: E402
from .papers import Paper, paper, papers  # noqa: E402
from .restoring import restore  # noqa: E402

__all__ = ["Micrograph", "Paper", "load_micrograph", "paper", "papers", "restore", "save_micrograph"]
