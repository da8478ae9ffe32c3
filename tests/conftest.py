"""What every test relies on: a quiet TensorFlow, and the same numbers on every run."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as `common` has it, but before Keras begins

import keras
import pytest

import common.training  # noqa: F401  (before TensorFlow begins to work: it makes runs repeat bit for bit)


def pytest_collection_modifyitems(items):
    """Lessons first: they are few and take longest, and where files are shared out the last one to begin is what everything waits for."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)
