"""What several tests of the commands and of restoring start from."""

import numpy as np
import pytest

from common import Micrograph, paper, save_micrograph
from tests.helpers import publish_untrained


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A folder with SEMNet's tiny network as it was initialised."""
    return publish_untrained(paper("semnet"), paper("semnet").presets["tiny"], tmp_path_factory.mktemp("weights"))


@pytest.fixture
def good(tmp_path):
    """A micrograph of 20 x 24 pixels that nothing is wrong with."""
    return save_micrograph(tmp_path / "good.tif", Micrograph(np.arange(480, dtype=np.uint16).reshape(20, 24), 2.0))
