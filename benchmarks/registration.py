"""Accuracy and speed of SEM-GAN's registration on simulated pairs: `python -m benchmarks.registration --out DIR`.

First the registration alone, over seeds and difficulties; then beside what a user would otherwise take, OpenCV's ECC and scikit-image's phase correlation with
optical flow, on the same pairs in the same run, both from scratch and with our coarse match given to them. Errors are those of the map, in pixels of the
high-magnification scan, over textured area of the rectangle that our registration keeps. Seconds are processor time, so that other programs count little.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from paper_sem_gan.elastic import identity, warp
from paper_sem_gan.registration import apply_affine, coarse_map, nominal_map, register
from paper_sem_gan.upsampling import lanczos
from tests.paper_sem_gan.scans import scans

CASES = {
    "5 % noise": {},
    "no noise": {"noise": 0.0},
    "10 % noise": {"noise": 0.1},
    "LR sampled at points": {"aliased": True},
    "affine only": {"warp": 0.0},
}


def spread(values) -> str:
    return f"{np.median(values):.3f} ({min(values):.3f} .. {max(values):.3f})" if len(values) else "-"


def accuracy(seeds: int) -> tuple[list[dict], list[str]]:
    """Every pair of every case, and a table with the median and range over the seeds of the 95th percentile of each pair's error."""
    rows, lines = [], ["| case | accepted | error, median | error, 95th percentile | residual_p95 of the report | s |", "| --- | --- | --- | --- | --- | --- |"]
    for case, options in CASES.items():
        found = []
        for seed in tqdm(range(seeds), desc=case, leave=False):
            truth = scans(seed, **options)
            began = time.process_time()
            pair = register(truth.low, truth.high)
            row = {"case": case, "seed": seed, "seconds": time.process_time() - began} | pair.report
            if pair.report["accepted"]:
                error = truth.error(pair.map, pair.report["low_crop"])
                row |= {"textured": float(np.isfinite(error).mean()), "median": float(np.nanmedian(error)), "p95": float(np.nanpercentile(error, 95))}
            found.append(row)
        rows += found
        good = [row for row in found if row["accepted"]]
        cells = (spread([row[key] for row in good]) for key in ("median", "p95", "residual_p95", "seconds"))
        lines.append(f"| {case} | {len(good)}/{seeds} | {' | '.join(cells)} |")
    return rows, lines


# --- What a user would otherwise take: each gives a map (height, width, 2) from the upsampled crop to the high scan, from a first map ---


def ecc(fixed: np.ndarray, high: np.ndarray, start: np.ndarray) -> np.ndarray:
    """OpenCV's affine map of the highest enhanced correlation coefficient (Evangelidis and Psarakis 2008); start: (2, 3) row, column."""
    swapped = np.ascontiguousarray(start[::-1][:, [1, 0, 2]], np.float32)
    _, found = cv2.findTransformECC(fixed, high, swapped, cv2.MOTION_AFFINE, (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-6), None, 5)
    return apply_affine(found[::-1][:, [1, 0, 2]], identity(fixed.shape))


def flow(name: str):
    def shifted_flow(fixed: np.ndarray, high: np.ndarray, start: np.ndarray) -> np.ndarray:
        """scikit-image: phase correlation for the shift where the start is nominal, then dense optical flow."""
        from skimage import registration

        where = apply_affine(start, identity(fixed.shape))
        if start[0, 1] == 0:
            shift, *_ = registration.phase_cross_correlation(fixed, warp(high, where), upsample_factor=10)
            where = where - np.float32(shift)
        return where + np.moveaxis(getattr(registration, name)(fixed, warp(high, where)), 0, -1)

    return shifted_flow


METHODS = {"OpenCV findTransformECC": ecc, "scikit-image TV-L1": flow("optical_flow_tvl1"), "scikit-image ILK": flow("optical_flow_ilk")}


def beside(seeds: int, case: str) -> tuple[list[dict], list[str]]:
    """All methods on the same pairs of one case, and a table of it; ratios are to our own figures."""
    rows = []
    for seed in tqdm(range(seeds), desc="beside others", leave=False):
        truth = scans(seed, **CASES[case])
        began = time.process_time()
        pair = register(truth.low, truth.high)
        seconds = time.process_time() - began
        if not pair.report["accepted"]:
            continue
        crop = pair.report["low_crop"]
        rows.append({"method": "this project", "seed": seed, "seconds": seconds, "p95": float(np.nanpercentile(truth.error(pair.map, crop), 95))})
        standard = [np.float32((image - image.mean()) / image.std()) for image in (truth.low, truth.high)]
        starts = {"": nominal_map(truth.low.shape, truth.high.shape, 2), ", our coarse match given": coarse_map(*standard, 2)}
        corner = np.array([crop[0], crop[1]])
        fixed = lanczos(standard[0][crop[0] : crop[0] + crop[2], crop[1] : crop[1] + crop[3]])
        for name, method in METHODS.items():
            for told, start in starts.items():
                start = np.column_stack([start[:, :2], start[:, 2] + start[:, :2] @ (2 * corner)])
                began = time.process_time()
                try:
                    p95 = float(np.nanpercentile(truth.error(method(fixed, standard[1], start), crop), 95))
                except cv2.error as error:
                    if error.code != cv2.Error.StsNoConv:
                        raise
                    p95 = None
                rows.append({"method": name + told, "seed": seed, "seconds": time.process_time() - began, "p95": p95})
    lines = [f"| {case}: method | error, 95th percentile | x ours | s | x ours |", "| --- | --- | --- | --- | --- |"]
    ours = {key: np.median([row[key] for row in rows if row["method"] == "this project"]) for key in ("p95", "seconds")}
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        errors, times = [row["p95"] for row in own if row["p95"] is not None], [row["seconds"] for row in own]
        worse = f"{np.median(errors) / ours['p95']:.1f}" if errors else "-"
        stopped = f", {len(own) - len(errors)} of {len(own)} do not converge" * (len(errors) < len(own))
        lines.append(f"| {name} | {spread(errors)}{stopped} | {worse} | {np.median(times):.2f} | {np.median(times) / ours['seconds']:.1f} |")
    return rows, lines


def benchmark(out: Path = Path("results/registration"), seeds: int = 10, others: int = 3) -> None:
    """Measure, print both tables, write registration.json and registration.md.

    Args:
        out: the folder for both files.
        seeds: simulated pairs of 884 x 1024 pixels per case.
        others: pairs for the comparison with other libraries, which take longer.
    """
    rows, lines = accuracy(seeds)
    compared, tables = {}, []
    for case in ("5 % noise", "affine only"):
        compared[case], table = beside(others, case)
        tables += ["", *table]
    out.mkdir(parents=True, exist_ok=True)
    (out / "registration.json").write_text(json.dumps({"accuracy": rows, "beside": compared}, indent=2))
    (out / "registration.md").write_text("\n".join([*lines, *tables]) + "\n")
    print("\n".join([*lines, *tables]))


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(benchmark, "python -m benchmarks.registration", tensorflow=False))
