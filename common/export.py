"""Export a paper's network as a SavedModel or ONNX model that takes raw intensities and gives raw intensities, checked before it is called done."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from .papers import Paper
from .papers import paper as paper_by_name
from .restoring import compiled, load_network

FORMATS = ("savedmodel", "onnx")
TOLERANCE = 1e-5  # of the image's range, between the exported model and the network here


def raw_to_raw(paper: Paper, network, pixels: str):
    """The whole way as one tf.function: (batch, height, width, 1) float32 raw intensities -> {"restored": the same, `scale` times as large}."""
    import tensorflow as tf

    run = compiled(paper, network)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1), tf.float32, name="image")])
    def serve(image):
        restored = run(mirrored(image, paper.multiple), paper.statistics(image, pixels))
        height, width = (tf.shape(image)[axis] * paper.scale for axis in (1, 2))
        return {"restored": restored[:, :height, :width]}

    return serve


def mirrored(images, multiple: int):
    """(batch, height, width, 1), mirrored at the lower and right border up to sides that `multiple` divides, as restoring does."""
    import tensorflow as tf

    for axis in (1, 2) if multiple > 1 else ():
        length = tf.shape(images)[axis]
        place = tf.range((length + multiple - 1) // multiple * multiple) % (2 * length)  # ONNX divides towards 0, so no -(-a // b)
        images = tf.gather(images, tf.minimum(place, 2 * length - 1 - place), axis=axis)
    return images


def export(
    paper: str | Paper,
    format: str,
    out: str | Path,
    weights: str | Path = "small",
    pixels: str = "float32",
    step: int | None = None,
    force: bool = False,
) -> Path:
    """Write a float32 model with dynamic batch, height and width; returns its path.

    format: "savedmodel" (a folder; endpoint `serve`, input `image`, output `restored`) or "onnx" (a file, the same names; needs tf2onnx and onnxruntime).
    pixels: the type of the images that the model will be fed (as float32 numbers); "uint8" may mean another black and white than the image's own.
    step, force: as in `common.restore`; the model is for this one step.
    The written model is run on images of two sizes and compared with the network here; RuntimeError if they differ by more than 1e-5 of the range.
    Raises ValueError for an unknown format or a wrong step, FileExistsError if `out` exists, ImportError saying what to install.
    """
    paper = paper_by_name(paper) if isinstance(paper, str) else paper
    out = Path(out)
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; choose one of {', '.join(FORMATS)}")
    if out.exists():
        raise FileExistsError(f"{out} exists; choose another --out or remove it")
    network, config = load_network(paper, weights)
    paper = paper.scaled(step, config, force)
    serve = raw_to_raw(paper, network, pixels)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        written = Path(temporary) / "model"
        run = {"savedmodel": _write_saved_model, "onnx": _write_onnx}[format](network, serve, written)
        for shape in ((37, 53), (64, 48)):
            image = np.random.default_rng(0).gamma(4.0, 500.0, (2, *shape, 1)).astype(np.float32)
            expected = serve(image)["restored"].numpy()
            error = float(np.abs(run(image) - expected).max() / np.ptp(expected))
            if not error <= TOLERANCE:
                raise RuntimeError(f"the exported model differs from the network by {error:.1e} of the range; nothing was written")
        os.replace(written, out) if written.is_file() else shutil.move(written, out)
    return out


def _write_saved_model(network, serve, path: Path):
    import keras
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint("serve", serve)
    archive.write_out(str(path), verbose=False)
    loaded = tf.saved_model.load(str(path))
    return lambda image: loaded.serve(image)["restored"].numpy()


def _write_onnx(network, serve, path: Path):
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise ImportError(f"ONNX export needs {error.name}; pip install tf2onnx onnxruntime") from error
    tf2onnx.convert.from_function(serve, serve.input_signature, opset=17, output_path=str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: session.run(["restored"], {"image": image})[0]
