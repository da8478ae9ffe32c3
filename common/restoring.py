"""Restore a micrograph of any size with a paper's network: by tiles, in the image's own units, with its calibration."""

from __future__ import annotations

import hashlib
import importlib
import json
import warnings
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import memory
from .classical import estimate_noise
from .micrograph import Micrograph
from .papers import Paper, config_from_dict
from .papers import paper as paper_by_name
from .tiling import bands
from .trust import PROBE, Probe, doubt, group, probe

TILE = 1024  # restored pixels; overlaps then cost a third
HALO = 64  # restored pixels; beyond it a restoration changes by less than a grey level of 8 bit
FEW_LEVELS = 64  # between black and white: results of integers so coarse lose by being rounded
SHOWS = ("restored intensities", "trust map: how much each restored intensity is to be doubted, in the same units; a ranking, no error bar")


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
    try:
        description = json.loads(card.read_text(encoding="utf-8"))
        if (owner := description["paper"]) == paper.name:
            config_from_dict(type(paper.presets["paper"]), description["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{card} does not describe a network of {paper.name} ({type(error).__name__}: {error}); get it again") from error
    if owner != paper.name:
        raise ValueError(f"{path} holds weights of {owner!r}, not of {paper.name!r}")
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


# --- Arrays ---


def restore_array(
    image: np.ndarray,
    paper: Paper,
    network,
    config,
    *,
    dtype="float32",
    result_dtype="float32",
    tile: int | None = None,
    exact: bool = False,
    strength: float = 1.0,
    ensemble: bool = False,
    return_trust: bool = False,
    progress: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Restore (height, width) real intensities with a given network; returns an array `paper.scale` times as large.

    dtype: of the file's pixels, which may say what black and white are. result_dtype: of the result, integers are rounded and clipped.
    Pixels that are not finite become the median, and the trust map has the range of all others there.
    tile: side of a tile in input pixels, None for 1024 restored pixels or more; must exceed twice the halo.
    exact: a halo as wide as the network sees, so that tiles equal the whole image to rounding (ValueError where no finite halo exists).
    strength: share of the network in the result, the rest is the paper's classical method. ensemble: the mean over the image and its mirror images, as far as
    the acquisition knows them (`paper.symmetries`), each restored and mirrored back: geometric self-ensemble, Timofte et al. (2016), at as many times the work.
    return_trust: also the trust map of `common.trust`, float32.
    progress: show a bar with the tile size, the memory needed and the time left.
    Memory: the image, the result and one row of tiles. Where that is more than there is, tiles are made smaller, with a warning; MemoryError if nothing helps.
    """
    halo = paper.halo(config) if exact else -(-HALO // paper.scale)
    if halo is None:
        raise ValueError(f"{paper.name} sees the whole image at once (instance statistics), so no tiling is exact; leave exact off")
    if tile is not None and tile < 1:
        raise ValueError(f"tile must be at least 1 pixel, got {tile}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength}; give a number from 0 (classical) to 1 (network)")
    tile = -(-(tile or max(-(-TILE // paper.scale), 4 * halo)) // paper.multiple) * paper.multiple
    smallest = -(-2 * halo // paper.multiple) * paper.multiple + paper.multiple  # tiles must move on by `multiple` at least
    if tile < smallest and max(image.shape) > tile:
        raise ValueError(f"tile {tile} is too small: with a halo of {halo} pixels on every side it needs {smallest}")
    shape = [n * paper.scale for n in image.shape]
    result = [np.empty(shape, kind) for kind in (result_dtype, np.float32)[: 1 + return_trust]]  # costs nothing until it is filled
    run = compiled(paper, network)
    restorer = _Restorer(image, paper, run, dtype, strength, ensemble, halo)
    sides = [min(tile, -(-max(image.shape) // paper.multiple) * paper.multiple)]  # the one wanted, and ever smaller ones
    while sides[-1] > smallest:
        sides.append(max(smallest, -(-sides[-1] // 2 // paper.multiple) * paper.multiple))
    # First float32 copies of the image for its statistics, one of which stays; then one pass over a tile, and rows of tiles: waiting, finished, being cast.
    kept = sum(a.nbytes for a in result) + 4 * image.size + memory.FIXED
    row = 20 * len(result) * paper.scale * shape[1]
    needs = {n: max(13 * image.size, kept + memory.per_pixel(run, paper.multiple) * n**2 + row * n) for n in sides}
    free = memory.free()
    fitting = [n for n in sides if needs[n] < free]
    wanted, available = f"tiles of {sides[0]} pixels would take {needs[sides[0]] / 1e9:.2g} GB", f"{free / 1e9:.2g} GB are free"
    if not fitting:
        raise MemoryError(f"{wanted}, the smallest possible {needs[sides[-1]] / 1e9:.2g} GB, and {available}; close other programs or crop the image")
    if fitting[0] < sides[0]:
        warnings.warn(f"{wanted} and {available}: tiles of {fitting[0]} pixels are used", stacklevel=2)
    for side, smaller in pairwise([*fitting, None]):
        try:
            restorer.fill(result, side, exact, f"{paper.name}, tiles of {side}, {needs[side] / 1e9:.1f} GB" if progress else None)
            return (result[0], result[1]) if return_trust else result[0]
        except memory.exhausted() as error:
            if smaller is None:
                raise MemoryError(f"memory ran out with tiles of {side} pixels, the smallest possible; close other programs or crop the image") from error
            warnings.warn(f"memory ran out: tiles of {smaller} pixels instead of {side} are used from here on", stacklevel=2)


class _Restorer:
    """One image on its way: what is known once per image, and the function that restores a tile of it."""

    def __init__(self, image: np.ndarray, paper: Paper, run: Callable, dtype, strength: float, ensemble: bool, halo: int):
        self.image, self.paper, self.strength, self.halo = image, paper, strength, halo
        values = image.astype(np.float32, copy=False)
        finite = np.isfinite(values)
        self.filling, self.unknown = np.float32(0), None  # unknown: the doubt where the image holds no number, all that there is
        if not finite.all():
            self.filling, self.unknown = np.median(values[finite]), np.ptp(values[finite])
            values = np.where(finite, values, self.filling)
        self.state = np.asarray(paper.statistics(values[None, ..., None], dtype))
        self.noise = estimate_noise(values) if strength < 1 else 0.0
        self.network = lambda part: run(part[None, ..., None], self.state).numpy()[0, ..., 0]
        self.ensemble = ensemble
        self.shape = tuple(-(-n // paper.multiple) * paper.multiple for n in image.shape)

    def part(self, rows: slice, columns: slice) -> np.ndarray:
        """A tile of the image as finite float32; what lies beyond the image (up to `multiple`) mirrors it."""
        part = self.image[rows, columns].astype(np.float32)
        part = np.where(np.isfinite(part), part, self.filling)
        return np.pad(part, [(0, s.stop - s.start - n) for s, n in zip((rows, columns), part.shape, strict=True)], mode="symmetric")

    def restored(self, part: np.ndarray) -> np.ndarray:
        return mirrored(self.once, self.paper)(part) if self.ensemble else self.once(part)

    def once(self, part: np.ndarray) -> np.ndarray:
        """The restoration of a tile as it lies. Second looks for the trust map take this one: mirror images that disagree are a reason to doubt."""
        if self.strength == 0:
            return self.paper.classical(part, self.state, self.noise)
        restored = self.network(part)
        return restored if self.strength == 1 else self.strength * restored + (1 - self.strength) * self.paper.classical(part, self.state, self.noise)

    def probe(self) -> Probe:
        """The image's noise, from its middle: from no more than a tile."""
        most = min(PROBE, -(-TILE // self.paper.scale)) // self.paper.multiple * self.paper.multiple
        sides = [min(n, most) for n in self.shape]
        starts = [(n - side) // 2 // self.paper.multiple * self.paper.multiple for n, side in zip(self.shape, sides, strict=True)]
        part = self.part(*(slice(start, start + side) for start, side in zip(starts, sides, strict=True)))
        return probe(part, self.restored(part), self.paper)

    def fill(self, result: list[np.ndarray], tile: int, exact: bool, label: str | None) -> None:
        """Restore into `result`: the image and, if it has two, the trust map. label: of the progress bar, None for no bar."""
        height, width = result[0].shape
        look = self.probe() if len(result) > 1 else None

        def restore_tile(rows: slice, columns: slice) -> np.ndarray:
            part = self.part(rows, columns)
            restored = self.restored(part)
            if look is None:
                return restored[None]
            map_ = doubt(part, restored, rows, columns, self.once, look, self.paper)
            if self.unknown is not None:
                missing = ~np.isfinite(self.image[rows, columns])
                for axis in (0, 1):
                    missing = np.repeat(missing, self.paper.scale, axis)
                map_[: len(missing), : missing.shape[1]][missing] = self.unknown
            return np.stack([restored, map_])

        with tqdm(desc=label, unit="tile", disable=label is None or max(self.shape) <= tile, leave=False) as bar:

            def show(done: int, count: int) -> None:
                bar.total = count
                bar.update()

            plan = {"tile": tile, "overlap": 2 * self.halo, "multiple": self.paper.multiple, "scale": self.paper.scale, "hard": exact}
            for first, block in bands(restore_tile, self.shape, **plan, progress=show):
                for target, rows in zip(result, block[:, : height - first, :width], strict=True):
                    if target.dtype.kind in "iu":
                        limits = np.iinfo(target.dtype)
                        rows = rows.astype(np.float64 if limits.bits > 16 else np.float32, copy=False)  # float32 would round 2^31 - 1 up
                        np.clip(np.rint(rows, out=rows), limits.min, limits.max, out=rows)
                    target[first : first + len(rows)] = rows


def mirrored(function: Callable, paper: Paper) -> Callable:
    """The mean of a function of (height, width) images over the flips that the acquisition allows, each undone again."""
    flips = group(paper.symmetries)

    def mean(part: np.ndarray) -> np.ndarray:
        total = np.float32(0)
        for forward, backward in flips:
            total = total + backward(function(np.ascontiguousarray(forward(part))))
        return total / np.float32(len(flips))

    return mean


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
    force: bool = False,
    strength: float = 1.0,
    ensemble: bool = False,
    return_trust: bool = False,
    precision: str = "float32",
    progress: bool = False,
) -> np.ndarray | Micrograph | tuple:
    """Restore one image with a paper's network.

    image: (height, width) of any real dtype, or a Micrograph. An array gives an array, a Micrograph gives a Micrograph whose pixel size is divided by
    the scale; both in the input's units and dtype (integers are rounded and clipped, with a warning where they span few levels). NaN and infinite pixels
    become the median, with a warning.
    paper: name or Paper. weights: a shipped name, a .weights.h5 file or a run folder. tile, exact: see `restore_array`. step: pixels per scan point, for
    papers whose scale is the user's to choose; force: also one that the network was not trained for. strength: from 0 (the paper's classical method) to 1
    (the network). ensemble: average over mirror images, see `restore_array`. precision: "float32", "mixed_bfloat16", ... progress: show a bar.
    return_trust: give (result, trust), where trust is float32 in the image's units, of the result's size and kind (array or Micrograph): how much each pixel
    is to be doubted, see `common.trust`.
    Raises ValueError for complex, empty, coloured or stacked input and for a wrong step, FileNotFoundError for missing weights, MemoryError where no tile is
    small enough.
    """
    paper = paper_by_name(paper) if isinstance(paper, str) else paper
    if isinstance(image, Micrograph):
        options = {"weights": weights, "tile": tile, "exact": exact, "precision": precision, "progress": progress}
        told = {"strength": strength, "ensemble": ensemble}
        result = restore(image.data, paper, step=step, force=force, return_trust=return_trust, **options, **told)
        scale = int(paper.scale or step)
        size = None if image.pixel_size is None else image.pixel_size / scale
        metadata = {key: value for key, value in image.metadata.items() if key != "axes"}  # the file's own axes, whose scale is no longer true
        if "pixel_size_xy" in metadata:
            metadata["pixel_size_xy"] = [n / scale for n in metadata["pixel_size_xy"]]
        metadata["restored"] = {"paper": paper.name, "weights": str(weights)} | told | ({"step": scale} if paper.at_step else {})
        if not return_trust:
            return image.replace(data=result, pixel_size=size, metadata=metadata)
        return tuple(image.replace(data=data, pixel_size=size, metadata={**metadata, "shows": shows}) for data, shows in zip(result, SHOWS, strict=True))
    image = np.asarray(image)
    if image.ndim != 2 or not image.size:
        raise ValueError(f"expected one grey image of shape (height, width), got {image.shape}; choose a frame or a channel first")
    if image.dtype.kind not in "uif":
        raise ValueError(f"cannot restore pixels of type {image.dtype}; convert them to real numbers first")
    if image.dtype.kind == "f":
        with np.errstate(over="ignore"):
            broken = np.count_nonzero(~np.isfinite(image.astype(np.float32, copy=False)))
        if broken == image.size:
            raise ValueError("the image holds no finite pixel, so there is nothing to restore")
        if broken:
            warnings.warn(f"{broken} pixels are not finite; they were replaced by the median before restoring", stacklevel=2)
    elif 0 < (steps := int(np.ptp(np.quantile(image[:: 1 + image.shape[0] // 1024, :: 1 + image.shape[1] // 1024], (0.001, 0.999))))) < FEW_LEVELS:
        warnings.warn(f"the grey values span {steps + 1} levels only, and so will those of the result: give floats (--as-float)", stacklevel=2)
    network, config = load_network(paper, weights, precision)
    paper = paper.scaled(step, config, force)
    options = {"tile": tile, "exact": exact, "strength": strength, "ensemble": ensemble, "return_trust": return_trust, "progress": progress}
    return restore_array(image, paper, network, config, dtype=image.dtype, result_dtype=image.dtype, **options)
