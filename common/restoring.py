"""Restore a micrograph of any size with a paper's network: by tiles, in the image's own units, with its calibration."""

from __future__ import annotations

import hashlib
import importlib
import json
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .micrograph import Micrograph
from .papers import Paper, config_from_dict
from .papers import paper as paper_by_name

TILE = 512  # input pixels; overlaps then cost a third, and peak memory stays below 2 GB
HALO = 32  # input pixels; beyond it a restoration changes by less than a grey level of 8 bit


# --- Weights ---


def weights_folder(paper: Paper) -> Path:
    """Where a paper's shipped weights lie."""
    return Path(importlib.import_module(f"paper_{paper.name}").__file__).parent / "weights"


def find_weights(paper: Paper, weights: str | Path) -> tuple[Path, dict]:
    """The weights file and its card for a shipped name ("small"), a .weights.h5 file (its card or config.json beside it) or a run folder.

    FileNotFoundError or ValueError say in one line what is missing, damaged or of another paper.
    """
    path = Path(weights)
    if path.is_dir():
        path = path / "final.weights.h5"
    elif not path.name.endswith(".weights.h5"):
        path = weights_folder(paper) / f"{weights}.weights.h5"
    if not path.is_file():
        shipped = sorted(p.name.removesuffix(".weights.h5") for p in weights_folder(paper).glob("*.weights.h5"))
        known = ", ".join(shipped) or "none"
        raise FileNotFoundError(f"no weights {str(weights)!r} for {paper.name}; use a shipped name ({known}), a run folder or a .weights.h5 file")
    cards = [path.with_name(path.name.removesuffix(".weights.h5") + ".json"), path.with_name("config.json")]
    card = next((c for c in cards if c.is_file()), None)
    if card is None:
        raise FileNotFoundError(f"{path} has neither a card ({cards[0].name}) nor a config.json beside it, so its network is unknown")
    description = json.loads(card.read_text())
    if description.get("paper") != paper.name:
        raise ValueError(f"{path} holds weights of {description.get('paper')!r}, not of {paper.name!r}")
    if "sha256" in description and hashlib.sha256(path.read_bytes()).hexdigest() != description["sha256"]:
        raise ValueError(f"{path} is damaged: its sha256 is not the one in {card.name}; get the file again")
    return path, description


def load_network(paper: Paper, weights: str | Path = "small", precision: str = "float32"):
    """A paper's trained network and its Config: (keras.Model, Config). Errors as in `find_weights`."""
    path, description = find_weights(paper, weights)
    return _load(paper, path, path.stat().st_mtime_ns, json.dumps(description["config"]), precision)


@lru_cache(maxsize=4)
def _load(paper_: Paper, path: Path, modified: int, config_json: str, precision: str):
    from .precision import building

    config = config_from_dict(type(paper_.presets["paper"]), json.loads(config_json))
    with building(precision):
        network = paper_.build_generator(config)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Keras only warns when it leaves a layer with the weights it was born with
            network.load_weights(path)
    except (ValueError, KeyError, OSError, UserWarning) as error:
        raise ValueError(f"{path} does not fit the network of its card: {str(error).splitlines()[0]}") from error
    return network, config


# --- Tiles ---


def tile_starts(length: int, tile: int, overlap: int, multiple: int = 1) -> list[int]:
    """First pixels of tiles that cover `length` pixels, neighbours sharing at least `overlap`, the last one ending with the image.

    All are divisible by `multiple` where length and tile are: a network that halves its input must see each tile on the grid of the whole image.
    """
    if length <= tile:
        return [0]
    count = int(np.ceil((length - overlap) / ((tile - overlap) // multiple * multiple)))
    return [k * (length - tile) // (count - 1) // multiple * multiple for k in range(count)]


def tile_weights(start: int, tile: int, hard: bool, neighbours: tuple[int | None, int | None]) -> np.ndarray:
    """How much each pixel of a tile counts along one axis, (tile,) float32; the weights of all tiles sum to one where two of them meet.

    Blended: a linear ramp over the middle half of the pixels shared with a neighbour, because a tile's outermost pixels have seen the least around them.
    Hard: 1 in the nearer half of the shared pixels, 0 beyond. Image borders have no ramp.
    neighbours: first pixels of the tile before and after, None at the border.
    """
    position = start + np.arange(tile) + 0.5

    def rise(low, high):
        if hard:
            return position >= (low + high) / 2
        margin = (high - low) / 4
        return np.clip((position - low - margin) / (high - low - 2 * margin), 0, 1)

    before, after = neighbours
    weights = np.ones(tile)
    if before is not None:
        weights *= rise(start, before + tile)
    if after is not None:
        weights *= 1 - rise(after, start + tile)
    return weights.astype(np.float32)


def restore_array(
    image: np.ndarray, paper: Paper, network, config, *, dtype="float32", tile: int | None = None, exact: bool = False, progress: bool = False
) -> np.ndarray:
    """Restore (height, width) finite float32 intensities with a given network; returns float32, `paper.scale` times as large.

    dtype: of the file's pixels, which may say what black and white are. tile: side of a tile in input pixels, None for 512 or more; must exceed twice the
    halo. exact: a halo as wide as the network sees, so that tiles equal the whole image to rounding (ValueError where no finite halo exists).
    """
    halo = paper.halo(config) if exact else HALO
    if halo is None:
        raise ValueError(f"{paper.name} sees the whole image at once (instance statistics), so no tiling is exact; leave exact off")
    height, width = image.shape
    tile = -(-(tile or max(TILE, 4 * halo)) // paper.multiple) * paper.multiple
    if tile <= 2 * halo and (height > tile or width > tile):
        raise ValueError(f"tile {tile} is too small: it must exceed twice the halo of {halo} pixels")
    scale, run = paper.scale, compiled(paper, network)
    state = paper.statistics(image[None, ..., None], dtype)
    image = np.pad(image, [(0, -n % paper.multiple) for n in image.shape], mode="symmetric")
    total = np.zeros([n * scale for n in image.shape], np.float32)
    share = np.zeros_like(total)
    rows, columns = (tile_starts(n, tile, 2 * halo, paper.multiple) for n in image.shape)
    spans = [(i, j) for i in range(len(rows)) for j in range(len(columns))]
    for i, j in tqdm(spans, desc=paper.name, unit="tile", disable=not progress or len(spans) == 1, leave=False):
        part = image[rows[i] : rows[i] + tile, columns[j] : columns[j] + tile]
        output = run(part[None, ..., None], state).numpy()[0, ..., 0]
        wy, wx = (
            np.repeat(tile_weights(starts[k], n, exact, (starts[k - 1] if k else None, starts[k + 1] if k + 1 < len(starts) else None)), scale)
            for starts, k, n in ((rows, i, part.shape[0]), (columns, j, part.shape[1]))
        )
        where = np.s_[rows[i] * scale : rows[i] * scale + len(wy), columns[j] * scale : columns[j] * scale + len(wx)]
        weight = wy[:, None] * wx[None]
        total[where] += weight * output
        share[where] += weight
    return (total / share)[: height * scale, : width * scale]


@lru_cache(maxsize=4)
def compiled(paper: Paper, network):
    """(images, state) -> restored images, all (batch, height, width, 1) raw intensities: prepare, network, finish as one graph for any size."""
    import tensorflow as tf

    channels = network.input_shape[-1]

    @tf.function(reduce_retracing=True)
    def run(images, state):
        output = network(tf.repeat(paper.prepare(images, state), channels, -1), training=False)
        return paper.finish(output, state)[..., :1]

    return run


# --- The call that users make ---


def restore(
    image: np.ndarray | Micrograph,
    paper: str | Paper,
    *,
    weights: str | Path = "small",
    tile: int | None = None,
    exact: bool = False,
    step: int | None = None,
    return_trust: bool = False,
    precision: str = "float32",
    progress: bool = False,
) -> np.ndarray | Micrograph:
    """Restore one image with a paper's network.

    image: (height, width) of any real dtype, or a Micrograph. An array gives an array, a Micrograph gives a Micrograph whose pixel size is divided by
    the scale; both in the input's units and dtype (integers are rounded and clipped). NaN and infinite pixels become the median, with a warning.
    paper: name or Paper. weights: a shipped name, a .weights.h5 file or a run folder. tile, exact: see `restore_array`. step: for papers whose scale is the
    user's to choose. return_trust: not available yet, a ValueError. precision: "float32", "mixed_bfloat16", ... progress: show a bar.
    Raises ValueError for complex, constant-size-zero, coloured or stacked input, FileNotFoundError for missing weights.
    """
    paper = paper_by_name(paper) if isinstance(paper, str) else paper
    if return_trust:
        raise ValueError("trust maps are not available yet; leave return_trust off")
    if isinstance(image, Micrograph):
        data = restore(image.data, paper, weights=weights, tile=tile, exact=exact, step=step, precision=precision, progress=progress)
        size = None if image.pixel_size is None else image.pixel_size / paper.scale
        metadata = {key: value for key, value in image.metadata.items() if key != "axes"}  # the file's own axes, whose scale is no longer true
        if "pixel_size_xy" in metadata:
            metadata["pixel_size_xy"] = [n / paper.scale for n in metadata["pixel_size_xy"]]
        return image.replace(data=data, pixel_size=size, metadata={**metadata, "restored": {"paper": paper.name, "weights": str(weights)}})
    image = np.asarray(image)
    if image.ndim != 2 or not image.size:
        raise ValueError(f"expected one grey image of shape (height, width), got {image.shape}; choose a frame or a channel first")
    if image.dtype.kind not in "uif":
        raise ValueError(f"cannot restore pixels of type {image.dtype}; convert them to real numbers first")
    if step is not None and paper.scale is not None:
        raise ValueError(f"{paper.name} always enlarges by {paper.scale}; step is for papers that supersample sparse scans")
    values = image.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        if not finite.any():
            raise ValueError("the image holds no finite pixel, so there is nothing to restore")
        warnings.warn(f"{(~finite).sum()} pixels are not finite; they were replaced by the median before restoring", stacklevel=2)
        values = np.where(finite, values, np.median(values[finite])).astype(np.float32)
    network, config = load_network(paper, weights, precision)
    restored = restore_array(values, paper, network, config, dtype=image.dtype, tile=tile, exact=exact, progress=progress)
    if image.dtype.kind in "ui":
        limits = np.iinfo(image.dtype)
        restored = np.clip(np.rint(restored.astype(np.float64)), limits.min, limits.max)
    return restored.astype(image.dtype)
