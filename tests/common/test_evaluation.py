"""What evaluations write."""

import numpy as np

from common.evaluation import drop_undefined, item


def test_items_without_a_number_are_taken_out_and_named():
    items = {"a": item(1.0), "b": item(np.nan, "", 2.0), "c": item(1.0, "", np.inf), "d": item(np.float32(3), "", 0.0)}
    assert drop_undefined(items) == ["b", "c"] and list(items) == ["a", "d"]
