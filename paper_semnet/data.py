"""SEMNet's data: low-quality images made from high-quality ones by blur, up- and downscaling, Gaussian and Poisson noise.

`python -m paper_semnet.data --out sheet.png` draws a contact sheet of degraded pairs with the values drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from common.classical import gaussian
from common.data import FAMILIES, FolderImages, SimulatedImages, dihedral, example_rng, from_unit_range, image_files, listing_hash, to_unit_range
from common.micrograph import Micrograph
from common.specimens import simulate

from .config import Config, Degradation

SCALE = 2
ALLOWED_BLURS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)  # sigma in output pixels; two passes of up to 2.4 px each, and the resizing between them
CLASSICAL_STRENGTH = 0.75  # of bicubic + Gaussian, tuned on 64 simulated micrographs
INTERPOLATION = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}


# --- Primitive operations: (height, width) float32 in [0, 1] in and out ---


def gaussian_kernel(size: int, variances: tuple[float, float], angle: float = 0.0) -> np.ndarray:
    """Normalised (size, size) Gaussian with the given variances (px^2) along its axes, turned by `angle` (rad); zero variance is a line or a point."""
    r = np.arange(size) - size // 2
    x, y = np.meshgrid(r, r)
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    kernel = np.exp(-0.5 * (u**2 / max(variances[0], 1e-3) + v**2 / max(variances[1], 1e-3)))
    return (kernel / kernel.sum()).astype(np.float32)


def blur(image, rng, d: Degradation, record: list):
    """Gaussian blur, isotropic or elliptical, mirrored at the border."""
    if rng.random() >= d.blur_probability:
        return image
    size = 2 * int(rng.integers(d.kernel_sizes[0] // 2, d.kernel_sizes[1] // 2 + 1)) + 1
    if rng.random() < d.anisotropic_probability:
        variances, angle = tuple(rng.uniform(*d.anisotropic_variance, 2)), rng.uniform(0, np.pi)
    else:
        sigma = rng.uniform(*d.isotropic_sigma)
        variances, angle = (sigma**2, sigma**2), 0.0
    record.append(("blur", {"size": size, "variances": variances, "angle": angle}))
    return cv2.filter2D(image, -1, gaussian_kernel(size, variances, angle), borderType=cv2.BORDER_REFLECT_101)


def resize(image, rng, d: Degradation, record: list):
    """Scale up, down or not at all, by a method drawn; no antialiasing, as the lineage does."""
    u = rng.random()
    if u < d.resize_down_probability:
        factor = rng.uniform(*d.resize_down)
    elif u < d.resize_down_probability + d.resize_up_probability:
        factor = rng.uniform(*d.resize_up)
    else:
        return image
    method = d.resize_methods[rng.integers(len(d.resize_methods))]
    height, width = (max(1, int(n * factor)) for n in image.shape)
    record.append(("resize", {"factor": factor, "method": method}))
    return np.clip(cv2.resize(image, (width, height), interpolation=INTERPOLATION[method]), 0, 1)


def gaussian_noise(image, rng, d: Degradation, record: list):
    """y = x + N(0, sigma / 255), sigma an integer."""
    if rng.random() >= d.gaussian_probability:
        return image
    sigma = int(rng.integers(d.gaussian_sigma[0], d.gaussian_sigma[1] + 1))
    record.append(("gaussian", {"sigma": sigma}))
    return np.clip(image + rng.standard_normal(image.shape, np.float32) * np.float32(sigma / 255), 0, 1)


def poisson_noise(image, rng, d: Degradation, record: list):
    """y = Poisson(lambda x) / lambda with x on 8-bit levels: lambda is the expected count at white, var y = x / lambda."""
    if rng.random() >= d.poisson_probability:
        return image
    lam = 10 ** rng.uniform(*d.poisson_log10)
    record.append(("poisson", {"lam": lam}))
    levels = np.round(image * 255) / 255
    return np.clip(rng.poisson(levels * lam) / lam, 0, 1).astype(np.float32)


def jpeg(image, rng, d: Degradation, record: list):
    """JPEG compression of quality 30 to 95 (off by default)."""
    if rng.random() >= d.jpeg_probability:
        return image
    quality = int(rng.integers(30, 96))
    record.append(("jpeg", {"quality": quality}))
    _, encoded = cv2.imencode(".jpg", np.round(image * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED).astype(np.float32) / 255


# --- What restoring asks of the physics ---


def acquire(restored: np.ndarray) -> np.ndarray:
    """(2 height, 2 width) -> (n, height, width) float32: a restored image as it is recorded through each blur that the degradation may draw."""
    restored = np.ascontiguousarray(restored, np.float32)
    seen = [cv2.GaussianBlur(restored, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) if sigma else restored for sigma in ALLOWED_BLURS]
    return np.stack([cv2.resize(image, (image.shape[1] // SCALE, image.shape[0] // SCALE), interpolation=cv2.INTER_AREA) for image in seen])


def classical(image: np.ndarray, state: np.ndarray, noise: float) -> np.ndarray:
    """(height, width) -> (2 height, 2 width) in the same units: bicubic, then a Gaussian that follows the noise, as tuned in the evaluation."""
    black, white = state.ravel()
    return from_unit_range(gaussian(to_unit_range(image, state[0, 0]), SCALE, CLASSICAL_STRENGTH, noise / (white - black)), state[0, 0])


# --- The pipeline ---


def degrade(image: np.ndarray, rng: np.random.Generator, d: Degradation) -> tuple[np.ndarray, list]:
    """A low-quality image of half the size, and what was drawn.

    image: (height, width) float32 in [0, 1], even sides. Returns (height / 2, width / 2) float32 in [0, 1] (8-bit levels when `d.quantise`) and the list of
    (operation, parameters) in the order applied. Each pass blurs, resizes, and adds its noises in random order; with `d.shuffle_probability` all operations of
    all passes come in random order.
    """
    noises = [gaussian_noise, poisson_noise]
    operations = []
    for _ in range(d.passes):
        operations += [blur, resize, *(noises[k] for k in rng.permutation(len(noises))), jpeg]
    if rng.random() < d.shuffle_probability:
        operations = [operations[k] for k in rng.permutation(len(operations))]
    record: list = []
    low = image.astype(np.float32)
    for operation in operations:
        low = operation(low, rng, d, record)
    method = d.resize_methods[rng.integers(len(d.resize_methods))]
    record.append(("final", {"method": method}))
    low = np.clip(cv2.resize(low, (image.shape[1] // SCALE, image.shape[0] // SCALE), interpolation=INTERPOLATION[method]), 0, 1)
    return (np.round(low * 255) / 255 if d.quantise else low).astype(np.float32), record


def sharpen(image: np.ndarray) -> np.ndarray:
    """Unsharp mask (radius 2 px, amount 0.5) of a target image, an option of the lineage."""
    return np.clip(1.5 * image - 0.5 * cv2.GaussianBlur(image, (0, 0), 2.0), 0, 1)


@dataclass(frozen=True)
class Pairs:
    """The training set: `pairs(i)` gives example i, (lq_patch, lq_patch, channels) and (2 lq_patch, 2 lq_patch, channels) float32 in [0, 1].

    sources: sequences of (height, width) images in [0, 1], sampled with equal shares whatever their lengths (the abstract: SEM and natural images 1:1).
    """

    config: Config
    sources: tuple[Sequence[np.ndarray], ...]
    stream: str = "train"

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = example_rng(self.config.seed, index, self.stream)
        source = self.sources[index % len(self.sources)]
        image = source[int(rng.integers(len(source)))]
        crop, patch = self.config.hq_crop, self.config.lq_patch
        top, left = (int(rng.integers(n - crop + 1)) for n in image.shape)
        high = dihedral(image[top : top + crop, left : left + crop], int(rng.integers(8)))
        low, _ = degrade(high, rng, self.config.degradation)
        if rng.random() < self.config.degradation.sharpen_probability:
            high = sharpen(high)
        top, left = (int(n) for n in rng.integers(0, crop // SCALE - patch + 1, 2))
        low = low[top : top + patch, left : left + patch]
        high = high[SCALE * top : SCALE * (top + patch), SCALE * left : SCALE * (left + patch)]
        return tuple(np.repeat(a[..., None], self.config.channels, -1) for a in (low, high))

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        n, c = self.config.lq_patch, self.config.channels
        return (n, n, c), (SCALE * n, SCALE * n, c)


def training_pairs(config: Config, sem: str | Path | None = None, natural: str | Path | None = None) -> Pairs:
    """Pairs from the user's folders (`sem`, `natural`, or both 1:1), or from simulated specimens when neither is given."""
    if config.hq_crop < SCALE * config.lq_patch or config.hq_crop % SCALE:
        raise ValueError(f"hq_crop must be even and at least twice lq_patch, got {config.hq_crop} and {config.lq_patch}")
    folders = [folder for folder in (sem, natural) if folder is not None]
    if folders:
        return Pairs(config, tuple(FolderImages(folder, config.hq_crop) for folder in folders))
    return Pairs(config, (SimulatedImages(config.seed, config.specimens, (max(512, config.hq_crop),) * 2),))


def describe_data(config: Config, sem: str | Path | None, natural: str | Path | None) -> dict:
    """What `training_pairs` draws from, for config.json: folders with the number of their images and a hash of their names and sizes."""
    described = {}
    for name, folder in (("sem", sem), ("natural", natural)):
        if folder is not None:
            files = image_files(folder)
            described[name] = {"folder": str(folder), "images": len(files), "sha256": listing_hash(Path(folder), files)}
    return described or {"simulated specimens": config.specimens}


def test_pairs(images: Sequence[np.ndarray], degradation: Degradation, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Whole images with frozen degradations: (low, high) float32 in [0, 1]; image k is degraded by the generator of (seed, k) whatever the others are."""
    pairs = []
    for k, image in enumerate(images):
        high = image[: image.shape[0] // SCALE * SCALE, : image.shape[1] // SCALE * SCALE]
        pairs.append((degrade(high, example_rng(seed, k, "test"), degradation)[0], high))
    return pairs


def samples(seed: int = 0) -> list[tuple[str, Micrograph, np.ndarray]]:
    """For the demo: (name, degraded Micrograph of 240x320 uint8, its truth of 480x640 uint8), simulated specimens of every family, calibrated in nm."""
    found = []
    for k, name in enumerate(FAMILIES):
        specimen = simulate(name, (seed, k, 77), (480, 640))
        high = np.round(cv2.GaussianBlur(specimen.image, (0, 0), 0.7) * 255) / 255
        low, _ = degrade(high, example_rng(seed, k, "demo"), Degradation())
        micrograph = Micrograph(np.round(low * 255).astype(np.uint8), pixel_size=SCALE * specimen.pixel_size, source=f"simulated {name}")
        found.append((name, micrograph, np.round(high * 255).astype(np.uint8)))
    return found


def contact_sheet(source: Sequence[np.ndarray], config: Config, count: int = 12):
    """A matplotlib figure of `count` training pairs: what the network sees, what it should give, and what was drawn in between."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2 * count), layout="constrained")
    for k, (left, right) in enumerate(figure.subplots(count, 2, squeeze=False)):
        rng = example_rng(config.seed, k, "sheet")
        high = source[k % len(source)][: config.hq_crop, : config.hq_crop]
        low, record = degrade(high, rng, config.degradation)
        for axis, image in ((left, low), (right, high)):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.axis("off")
        drawn = [[f"{key} {value if isinstance(value, str) else np.round(value, 2)}" for key, value in values.items()] for _, values in record]
        left.set_title("\n".join(f"{name}: {', '.join(values)}" for (name, _), values in zip(record, drawn, strict=True)), fontsize=6, loc="left")
        right.set_title("target", fontsize=8)
    return figure


def preview(out: Path, degradation: Degradation, preset: Literal["paper", "small", "tiny"] = "paper", images: Path | None = None, count: int = 12) -> None:
    """Draw a contact sheet of degraded pairs, to be looked at before a training.

    Args:
        out: the picture to write, such as sheet.png.
        degradation: the knobs of the degradation.
        preset: whose crop size is used.
        images: a folder of images; simulated specimens when not given.
        count: number of pairs.
    """
    config = getattr(Config, preset)()
    config = replace(config, degradation=degradation)
    source = FolderImages(images, config.hq_crop) if images else SimulatedImages(config.seed, count, (max(512, config.hq_crop),) * 2)
    contact_sheet(source, config, count).savefig(out, dpi=60)


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(preview, "python -m paper_semnet.data"))
