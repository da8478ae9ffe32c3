"""empapers: electron-microscopy restoration papers as runnable Keras code. This package is what they share."""

from .micrograph import Micrograph, load_micrograph, save_micrograph
from .papers import Paper, paper, papers
from .restoring import restore

__all__ = ["Micrograph", "Paper", "load_micrograph", "paper", "papers", "restore", "save_micrograph"]
