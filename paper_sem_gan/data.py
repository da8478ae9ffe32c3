"""SEM-GAN's data: registered pairs of whole fields, cut into patches on demand; what restoring asks of the physics; samples for the demo.

A field is (low, high): the low-magnification scan after Lanczos upsampling and the high-magnification scan registered to it, (height, width) float32 in [0, 1].
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from common.data import example_rng, grey_scale, image_files, to_unit_range
from common.micrograph import Micrograph, load_micrograph

from .config import Config
from .fields import Scan, simulate_field
from .fields import acquire as scan_twice
from .registration import Pair, register
from .specimen import Field as Specimen
from .upsampling import lanczos, upsample

SCALE = 2
PIXEL_SIZE = 7.1  # nm, of the high-magnification scan [P]
Field = tuple[np.ndarray, np.ndarray]


# --- Fields ---


def training_fields(config: Config, pairs: Path | None) -> tuple[list[Field], list[Field]]:
    """(fields to train on, fields held out for validation): a folder's registered pairs, or simulated ones that went through the same registration."""
    fields = read_pairs(pairs) if pairs else simulated_fields(range(config.fields), config.seed)
    if len(fields) < 2:
        found = f"{pairs} holds one pair" if pairs else f"{len(fields)} of {config.fields} simulated fields could be registered"
        raise ValueError(f"{found}; whole fields are held out for validation, so give at least two")
    short = min(min(high.shape) for _, high in fields)
    if short < config.patch:
        raise ValueError(f"the smallest field has a side of {short} pixels, a patch has {config.patch}; give larger fields or a smaller --patch")
    count = min(max(1, round(config.held_out * len(fields))), len(fields) - 1)
    return fields[:-count], fields[-count:]


def recorded_pairs(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pairs of `folder`/low (scans as recorded) and `folder`/high (registered to them, twice as large), files of equal names, in the files' dtypes."""
    low_files, high_files = image_files(Path(folder) / "low"), image_files(Path(folder) / "high")
    if [f.stem for f in low_files] != [f.stem for f in high_files]:
        raise ValueError(f"{folder}/low and {folder}/high must hold files of equal names")
    pairs = []
    for low_path, high_path in zip(low_files, high_files, strict=True):
        low, high = load_micrograph(low_path).data, load_micrograph(high_path)
        if high.pixel_size and abs(high.pixel_size / PIXEL_SIZE - 1) > 0.02:
            warnings.warn(f"{high_path} has {high.pixel_size:.3g} nm per pixel; lengths are told as if it had {PIXEL_SIZE}", stacklevel=2)
        high = high.data
        if high.shape != tuple(SCALE * n for n in low.shape):
            raise ValueError(f"{high_path} has {high.shape} pixels, not twice {low.shape}; register scans whose magnifications differ by two")
        for path, data in ((low_path, low), (high_path, high)):
            if not np.isfinite(data).all():
                raise ValueError(f"{path} has pixels that are not finite; take the pair out of the folder, or make it again")
        pairs.append((low, high))
    return pairs


def read_pairs(folder: Path) -> list[Field]:
    """The fields of a folder of registered pairs."""
    return [as_field(low, high) for low, high in recorded_pairs(folder)]


def simulated_fields(numbers: Sequence[int], seed: int, shape: tuple[int, int] = (884, 1024)) -> list[Field]:
    """Simulated fields of gold on carbon, scanned twice; field k depends on (seed, k) only. Rejected ones are left out, with a warning."""
    pairs = (registered_field((seed, k), shape)[2] for k in tqdm(numbers, desc="fields", unit="field", leave=False))
    return [as_field(pair.low, pair.high) for pair in pairs if pair.report["accepted"]]


def registered_field(seed: tuple[int, ...], shape: tuple[int, int]) -> tuple[Specimen, Scan, Pair]:
    """A simulated field, its low-magnification scan and the pair of both scans as registered; a warning says where that was rejected."""
    field = simulate_field(seed, shape)
    low, high = scan_twice(field, seed)
    pair = register(quantised(low.image), quantised(high.image))
    if not pair.report["accepted"]:
        warnings.warn(f"simulated field {seed} was left out: {pair.report['reason']}", stacklevel=2)
    return field, low, pair


def quantised(image: np.ndarray) -> np.ndarray:
    """A scan as the microscope stores it: uint8."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def as_field(low: np.ndarray, high: np.ndarray) -> Field:
    """A registered pair on the scale on which the low-magnification scan is restored, the high one matched to it in brightness and contrast.

    low: (height, width), high: (2 height, 2 width), any real dtype.
    """
    upsampled = lanczos(to_unit_range(low.astype(np.float32), grey_state(low)))
    smooth = [cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2.0) for image in (upsampled, high)]  # noise must not pass for contrast
    gain = smooth[0].std() / max(float(smooth[1].std()), 1e-6)
    return upsampled, (gain * (high.astype(np.float32) - smooth[1].mean()) + smooth[0].mean()).astype(np.float32)


def grey_state(low: np.ndarray) -> np.ndarray:
    """What 0 and 1 mean for a scan, (2,) float32: as restoring has it."""
    return np.asarray(grey_scale(low[None, ..., None], low.dtype))[0, 0, 0]


# --- Patches ---


@dataclass(frozen=True)
class Patches:
    """The training set: `patches(i)` gives example i, (low, high, low_d, high_d), each (patch, patch, 1) float32; the last two are the discriminator's own.

    Example i belongs to step i // batch + 1. The discriminator's patches are drawn from a stream of their own, and are zeros in steps that do not use them.
    """

    config: Config
    fields: list[Field]

    def __call__(self, index: int) -> tuple[np.ndarray, ...]:
        due = (index // self.config.batch + 1) % self.config.discriminator_every == 0
        nothing = np.zeros(self.shapes[0], np.float32)
        return (*self.draw(index, "generator"), *(self.draw(index, "discriminator") if due else (nothing, nothing)))

    def draw(self, index: int, stream: str) -> tuple[np.ndarray, np.ndarray]:
        """One patch of the grid of one field, turned and mirrored alike in both images."""
        rng = example_rng(self.config.seed, index, stream)
        low, high = self.fields[int(rng.integers(len(self.fields)))]
        corners = patch_corners(high.shape, self.config.patch, self.config.stride)
        top, left = corners[int(rng.integers(len(corners)))]
        turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
        cut = np.s_[top : top + self.config.patch, left : left + self.config.patch]
        turned = [np.rot90(image[cut], turns) for image in (low, high)]
        return tuple((image[:, ::-1] if mirrored else image)[..., None] for image in turned)

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        return ((self.config.patch, self.config.patch, 1),) * 4


def patch_corners(shape: tuple[int, int], patch: int, stride: int) -> list[tuple[int, int]]:
    """Top left corners of all patches of a field: 48 for 924 x 780 pixels, patches of 128 and a stride of 112."""
    rows, columns = (range(0, n - patch + 1, stride) for n in shape)
    return [(top, left) for top in rows for left in columns]


def describe_data(config: Config, pairs: Path | None) -> dict:
    """What `training_fields` draws from, for config.json: the folder's files by name and size, or simulated fields."""
    if pairs is None:
        return {"simulated fields": config.fields}
    files = [*image_files(Path(pairs) / "low"), *image_files(Path(pairs) / "high")]
    listing = "\n".join(f"{f.name} {f.stat().st_size}" for f in files)
    return {"pairs": {"folder": str(pairs), "images": len(files), "sha256": hashlib.sha256(listing.encode()).hexdigest()}}


# --- What restoring asks ---


def prepare(images, state):
    """Raw scan -> network input: [0, 1], upsampled."""
    return upsample(to_unit_range(images, state), SCALE)


def acquire(restored: np.ndarray) -> np.ndarray:
    """(2 height, 2 width) -> (n, height, width) float32: a restored image as a low-magnification scan records it, at points, through probes of 0 to 1.5 px."""
    restored = np.ascontiguousarray(restored, np.float32)
    seen = [cv2.GaussianBlur(restored, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) if sigma else restored for sigma in (0.0, 0.5, 1.0, 1.5)]
    # A scan's pixel centre lies between four pixels of the upsampled grid; their mean would be a blur that the scan does not have.
    return np.stack([cv2.resize(image, (image.shape[1] // SCALE, image.shape[0] // SCALE), interpolation=cv2.INTER_CUBIC) for image in seen])


def classical(image: np.ndarray, state: np.ndarray, noise: float) -> np.ndarray:
    """(height, width) -> (2 height, 2 width) in the same units: Lanczos upsampling, the network's own input."""
    return lanczos(image.astype(np.float32))


def samples(seed: int = 0) -> list[tuple[str, Micrograph, np.ndarray]]:
    """For the demo: (name, low-magnification Micrograph, registered high-magnification scan, twice as large and matched in contrast), uint8, simulated."""
    found = []
    for k in range(3):
        _, low, pair = registered_field((seed, k, 77), (512, 640))
        if pair.report["accepted"]:
            scan = Micrograph(pair.low, pixel_size=low.pixel_size, source=f"simulated gold field {k}")
            found.append((f"gold field {k}", scan, quantised(as_field(pair.low, pair.high)[1])))
    return found
