"""Exported models: raw intensities in and out, any size, the same numbers in a process that knows nothing of this project."""

import subprocess
import sys

import numpy as np
import pytest

from common import restore
from common.export import export

READ = {
    "savedmodel": "import tensorflow as tf; model = tf.saved_model.load({path!r}); run = lambda x: model.serve(tf.constant(x))['restored'].numpy()",
    "onnx": "import onnxruntime; session = onnxruntime.InferenceSession({path!r}); run = lambda x: session.run(['restored'], {{'image': x}})[0]",
}


@pytest.mark.parametrize("form", ["savedmodel", "onnx"])
def test_another_process_gets_the_same_restoration(form, weights, tmp_path):
    path = export("semnet", form, tmp_path / f"model.{form}", weights)
    image = np.random.default_rng(1).integers(0, 60_000, (41, 58)).astype(np.float32)
    np.save(tmp_path / "image.npy", image[None, ..., None])
    code = f"""
import sys
import numpy as np
{READ[form].format(path=str(path))}
np.save("restored.npy", run(np.load("image.npy")))
assert not [m for m in sys.modules if m.startswith(("common", "paper_"))]
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    restored = np.load(tmp_path / "restored.npy")[0, ..., 0]
    expected = restore(image, "semnet", weights=weights)
    assert restored.shape == (82, 116)
    assert np.abs(restored - expected).max() < 1e-5 * np.ptp(expected)


def test_a_batch_keeps_each_image_to_itself(weights, tmp_path):
    import tensorflow as tf

    model = tf.saved_model.load(str(export("semnet", "savedmodel", tmp_path / "m", weights)))
    images = np.stack([np.random.default_rng(k).normal(100 * k, 1 + k, (30, 30, 1)) for k in range(3)]).astype(np.float32)
    together = model.serve(images)["restored"].numpy()
    for k in range(3):
        np.testing.assert_allclose(together[k], model.serve(images[k : k + 1])["restored"].numpy()[0], rtol=1e-4, atol=1e-3)


def test_model_for_8_bit_images(weights, tmp_path):
    import tensorflow as tf

    image = np.random.default_rng(2).integers(40, 200, (30, 33)).astype(np.uint8)
    model = tf.saved_model.load(str(export("semnet", "savedmodel", tmp_path / "m", weights, pixels="uint8")))
    restored = model.serve(image[None, ..., None].astype(np.float32))["restored"].numpy()[0, ..., 0]
    np.testing.assert_allclose(np.clip(np.rint(restored), 0, 255), restore(image, "semnet", weights=weights), atol=1)


def test_refusals(weights, tmp_path):
    with pytest.raises(ValueError, match="unknown format"):
        export("semnet", "pickle", tmp_path / "x", weights)
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="exists"):
        export("semnet", "onnx", tmp_path / "there", weights)
