"""Measure SEMNet: `python -m paper_semnet.evaluate --out DIR` (the same as `empapers evaluate semnet`).

Track S: 25 simulated micrographs, 640x480 -> 1280x960 as in the abstract. Track F: a folder of the user's images, degraded with a frozen seed.
Track P: real pairs, as they are and after alignment. Classical methods are tuned on simulated micrographs of other seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from common.classical import METHODS, estimate_noise, tune_all, upscale
from common.data import FolderImages, SimulatedImages, image_files, intensity_range, to_unit_range
from common.evaluation import item, paired_gain, write_results, write_table
from common.metrics import bootstrap_interval, psnr, rank_correlation, ssim
from common.micrograph import load_micrograph
from common.papers import paper
from common.restoring import load_network, restore_array
from common.trust import doubt, probe

from .config import Degradation
from .data import SCALE, test_pairs

TEST_SEED, TUNING_SEED = 1_000_000, 900_000  # of specimens that no training draws; an evaluation seed is added to the first
ABSTRACT_SIGMAS = (0.5, 1.0, 1.5, 2.0)  # the abstract says Gaussian blur, not which
NOISY = 0.05  # share of the grey range above which an image's own noise disqualifies it as truth
PUBLISHED = {"psnr": 0.212, "ssim": 0.1379}  # gains over bicubic + Gaussian blur in the abstract
SHOWN = 6  # images of a track in its figure
SCORES = {"psnr": (psnr, "dB"), "ssim": (ssim, "")}


def evaluate_semnet(
    out: Path,
    weights: str = "small",
    seed: int = 0,
    data: Path | None = None,
    pairs: Path | None = None,
    images: int = 25,
    size: tuple[int, int] = (960, 1280),
    tuning_images: int = 64,
) -> dict:
    """Write results.json, tables and figures into a folder; returns the items of results.json.

    Args:
        out: the folder, made if missing.
        weights: a shipped name, a .weights.h5 file or a run folder.
        seed: of the simulated micrographs and of the degradations.
        data: a folder of images for track F.
        pairs: a folder with `lq` and `hq` inside, equal file names, for track P.
        images: how many simulated micrographs track S has.
        size: their height and width; the inputs are half as large.
        tuning_images: simulated micrographs on which the classical methods are tuned.
    """
    if min(images, tuning_images, *size) < 1:
        raise ValueError(f"images, tuning_images and size must be at least 1, got {images}, {tuning_images} and {size}")
    semnet = paper("semnet")
    network, config = load_network(semnet, weights)
    degradation = Degradation()

    def restored(low: np.ndarray) -> np.ndarray:
        return restore_array(low * 255, semnet, network, config, dtype="uint8") / 255

    def doubted(low: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(a / 255 for a in restore_array(low * 255, semnet, network, config, dtype="uint8", return_trust=True))

    simulated = SimulatedImages(TEST_SEED + seed, images, size)
    names, tracks, notes = {"S": [simulated.name(k) for k in range(images)]}, {"S": test_pairs(simulated, degradation, seed)}, {}
    if data is not None:
        names["F"], truths, notes["F"] = scorable_images(data)
        tracks["F"] = test_pairs(truths, degradation, seed)
    if pairs is not None:
        names["P raw"], tracks["P raw"] = real_pairs(pairs)
        names["P aligned"], tracks["P aligned"] = names["P raw"], tracks["P raw"]
    strengths = tune_all(test_pairs(SimulatedImages(TUNING_SEED, tuning_images, (256, 256)), degradation, TUNING_SEED), SCALE, psnr)
    items: dict = {}
    out.mkdir(parents=True, exist_ok=True)
    for track, couples in tracks.items():
        rows, shown = [], []
        for name, (low, high) in tqdm(list(zip(names[track], couples, strict=True)), desc=f"track {track}", unit="image"):
            outputs = {method: METHODS[method][0](low, SCALE, k) for method, k in strengths.items()}
            outputs |= {f"bicubic + Gaussian {s}": upscale(low, SCALE, s) for s in ABSTRACT_SIGMAS}
            outputs["SEMNet"] = restored(low)
            if track == "P aligned":
                outputs = {method: aligned(image, high) for method, image in outputs.items()}
            rows.append({"image": name} | {f"{method} {s}": f(high, image) for method, image in outputs.items() for s, (f, _) in SCORES.items()})
            if len(shown) < SHOWN:
                shown.append((name, low, outputs, high))
        write_table(out / f"track_{track.replace(' ', '_')}.csv", rows)
        best = track_items(track, rows, items)
        draw_sheet(out / f"track_{track.replace(' ', '_')}.png", shown, best)
    items |= trust_items(tracks["S"], doubted)
    draw_trust(out / "trust.png", tracks["S"], restored, doubted)
    write_results(out, "semnet", str(weights), seed, items, classical=strengths, degradation="defaults of paper_semnet.config.Degradation", notes=notes)
    return items


def track_items(track: str, rows: list[dict], items: dict) -> str:
    """Add a track's gains to `items`, over the best tuned classical method and over the abstract's. Returns the name of the best one by PSNR."""
    chosen = {}
    for score, (_, unit) in SCORES.items():
        columns = {method: [row[f"{method} {score}"] for row in rows] for method in [key.removesuffix(" psnr") for key in rows[0] if key.endswith(" psnr")]}
        ours = columns.pop("SEMNet")
        chosen[score] = max(columns, key=lambda method: np.mean(columns[method]))
        abstract = max((m for m in columns if m.startswith("bicubic + Gaussian ")), key=lambda method: np.mean(columns[method]))
        items[f"{track}: {score} gain over the best classical"] = paired_gain(ours, columns[chosen[score]], unit) | {"method": chosen[score]}
        items[f"{track}: {score} gain over bicubic + best fixed Gaussian"] = paired_gain(ours, columns[abstract], unit, PUBLISHED[score]) | {"method": abstract}
        items[f"{track}: {score} gain over bicubic + Gaussian 1.0"] = paired_gain(ours, columns["bicubic + Gaussian 1.0"], unit, PUBLISHED[score])
    return chosen["psnr"]


def trust_items(pairs: list, doubted: Callable) -> dict:
    """How well the trust map ranks the true error: Spearman's correlation within each image, over blocks of 8 x 8 pixels and over single ones."""
    found = {"over 8 x 8 pixels": [], "over single pixels": []}
    errors, trusts = [], []
    for low, high in tqdm(pairs, desc="trust", unit="image"):
        image, trust = doubted(low)
        error = np.clip(image, 0, 1) - high
        for name, block in zip(found, (8, 1), strict=True):
            found[name].append(rank_correlation(error, trust, block))
        errors.append(np.abs(error).ravel())
        trusts.append(trust.ravel())
    items = {f"S: trust map, rank correlation with the error {name}": item(np.mean(v), n=len(v), interval=bootstrap_interval(v)) for name, v in found.items()}
    error, trust = np.concatenate(errors), np.concatenate(trusts)
    low, high = np.quantile(trust, (0.1, 0.9))
    items["S: mean error where the trust map is in its lowest tenth"] = item(float(255 * error[trust <= low].mean()), "grey levels", n=len(pairs))
    items["S: mean error where the trust map is in its highest tenth"] = item(float(255 * error[trust >= high].mean()), "grey levels", n=len(pairs))
    return items


def draw_trust(path: Path, pairs: list, restored: Callable, doubted: Callable) -> None:
    """A figure: input, SEMNet, true error and trust map of three specimens, and of one into whose restoration a particle was painted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 13), layout="constrained")
    shown = [pairs[k % len(pairs)] for k in (0, 3, 2, 2)]
    for row, (axes, (low, high)) in enumerate(zip(figure.subplots(4, 4), shown, strict=True)):
        top, left = ((n - min(n, 160)) // 2 for n in low.shape)
        low, high = low[top : top + 160, left : left + 160], high[SCALE * top : SCALE * (top + 160), SCALE * left : SCALE * (left + 160)]
        image, trust = doubted(low) if row < 3 else painted(low, restored)
        error = np.abs(np.clip(image, 0, 1) - high)
        name = "SEMNet" if row < 3 else "SEMNet and a painted particle"
        pictures = {"input": np.kron(low, np.ones((SCALE, SCALE))), name: image, "true error": error, "trust map": trust}
        for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
            is_map = title in ("true error", "trust map")
            limits = {"cmap": "inferno", "vmin": 0, "vmax": np.quantile(picture, 0.998)} if is_map else {"cmap": "gray", "vmin": 0, "vmax": 1}
            axis.imshow(picture, interpolation="nearest", **limits)
            axis.set_title(f"{title}, 0 to {255 * limits['vmax']:.0f} grey levels" if is_map else title, fontsize=10)
            axis.axis("off")
    figure.savefig(path, dpi=80)


def painted(low: np.ndarray, restored: Callable) -> tuple[np.ndarray, np.ndarray]:
    """What a network that paints a particle into the middle of every image gives for `low`, and the trust map that this earns. A flip does not give it away."""
    height, width = (SCALE * n for n in low.shape)
    distance = np.hypot(np.arange(height)[:, None] - (height - 1) / 2, np.arange(width) - (width - 1) / 2)
    particle = (0.35 / (1 + np.exp(distance - 10))).astype(np.float32)

    def liar(part: np.ndarray) -> np.ndarray:
        return restored(part) + particle

    image = liar(low)
    everywhere = (slice(0, low.shape[0]), slice(0, low.shape[1]))
    return image, doubt(low, image, *everywhere, liar, probe(low, image, paper("semnet")), paper("semnet"))


def scorable_images(folder: Path) -> tuple[list[str], list[np.ndarray], list[str]]:
    """Names and images of a folder that may serve as truth, and a line for each that needed help.

    Noise above 5 % of the grey range: the image is halved by area; if it is still that noisy, it is left out.
    """
    names, truths, notes = [], [], []
    for path, image in zip(image_files(folder), FolderImages(folder, 64), strict=True):
        noise = estimate_noise(image)
        if noise > NOISY:
            image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
            halved = estimate_noise(image)
            if halved > NOISY:
                notes.append(f"{path.name}: noise {noise:.1%}, {halved:.1%} when halved: not scored")
                continue
            notes.append(f"{path.name}: noise {noise:.1%}, halved by area ({halved:.1%})")
        names.append(path.name)
        truths.append(image)
    if not truths:
        raise ValueError(f"no image in {folder} is clean enough to serve as truth: {'; '.join(notes)}")
    return names, truths, notes


def real_pairs(folder: Path) -> tuple[list[str], list[tuple[np.ndarray, np.ndarray]]]:
    """(low, high) images of `folder`/lq and `folder`/hq by equal names, both on the scale in which high fills [0, 1]: what differs in grey level still does.

    High must be twice as large; ValueError says which pair does not fit.
    """
    low_files, high_files = image_files(Path(folder) / "lq"), image_files(Path(folder) / "hq")
    if [f.stem for f in low_files] != [f.stem for f in high_files]:
        raise ValueError(f"{folder}/lq and {folder}/hq must hold files of equal names")
    couples = []
    for low_path, high_path in zip(low_files, high_files, strict=True):
        low, high = (load_micrograph(path).data.astype(np.float32) for path in (low_path, high_path))
        if tuple(SCALE * n for n in low.shape) != high.shape:
            raise ValueError(f"{low_path}: the high-quality image must be {SCALE} times as large, got {low.shape} and {high.shape}")
        state = np.asarray(intensity_range(high[None, ..., None]))[0, 0]
        couples.append(tuple(np.clip(to_unit_range(image, state), 0, 1) for image in (low, high)))
    return [f.stem for f in low_files], couples


def aligned(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The image after a sub-pixel shift (of the highest correlation coefficient) and a global affine fit of its grey levels to the truth's."""
    still = np.eye(2, 3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-6)
    truth, image = truth.astype(np.float32), image.astype(np.float32)
    try:
        _, shift = cv2.findTransformECC(truth, image, still.copy(), cv2.MOTION_TRANSLATION, criteria)
    except cv2.error:  # nothing in common to align by
        shift = still
    moved = cv2.warpAffine(image, shift, truth.shape[::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
    gain, level = np.polyfit(moved.ravel(), truth.ravel(), 1)
    return (gain * moved + level).astype(np.float32)


def draw_sheet(path: Path, shown: list, best: str) -> None:
    """A figure: rows of images, columns input, best classical, SEMNet, truth; the central 256 pixels of each, with PSNR and SSIM."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.4 * len(shown)), layout="constrained")
    for axes, (name, low, outputs, high) in zip(figure.subplots(len(shown), 4, squeeze=False), shown, strict=True):
        pictures = {f"{name}: input": np.kron(low, np.ones((SCALE, SCALE))), best: outputs[best], "SEMNet": outputs["SEMNet"], "truth": high}
        for axis, (title, image) in zip(axes, pictures.items(), strict=True):
            top, left = ((n - min(n, 256)) // 2 for n in image.shape)
            axis.imshow(np.clip(image[top : top + 256, left : left + 256], 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            scores = "" if title == "truth" else f"\n{psnr(high, image.astype(np.float32)):.2f} dB, {ssim(high, image.astype(np.float32)):.3f}"
            axis.set_title(title + scores, fontsize=9)
            axis.axis("off")
    figure.savefig(path, dpi=80)


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    from common.__main__ import main as empapers

    return empapers(["evaluate", "semnet", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
