"""The demo: restore sample micrographs, or the user's, with every paper that exists, and write a report that is one HTML file."""

from __future__ import annotations

import base64
import html
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from .classical import METHODS
from .data import intensity_range, to_unit_range
from .metrics import CONVENTION, psnr, ssim
from .micrograph import Micrograph, load_micrograph, save_micrograph
from .papers import Paper, papers
from .restoring import find_weights, restore
from .training import write_atomically

SHOWN = 380  # side of the pictures in the report, in pixels of the restored image

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:2em auto;padding:0 1em;color:#222}
div{display:grid;grid-auto-flow:column;grid-auto-columns:1fr;gap:8px;margin-bottom:12px}figure{margin:0}
figcaption{font-size:13px;color:#555}img{display:block;width:100%;border:1px solid #ccc;image-rendering:pixelated}
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ddd;padding:3px 10px;text-align:right}td:first-child,th:first-child{text-align:left}
.note{background:#fff6df;padding:.6em 1em;border-left:4px solid #e0b040}"""


def demo(out: Path = Path("demo"), input: Path | None = None, frame: int | None = None, seed: int = 0) -> Path:
    """Restore micrographs with every paper and its shipped weights, and write a report.

    Args:
        out: folder for the report and the restored micrographs.
        input: a micrograph of yours; simulated specimens, of which the truth is known, when not given.
        frame: which image of a stack, from 0.
        seed: of the simulated specimens.
    """
    began = time.perf_counter()
    users = None if input is None else load_micrograph(input, frame=frame)  # a wrong file must fail before anything is written
    out.mkdir(parents=True, exist_ok=True)
    sections = []
    for name, paper in papers().items():
        try:
            strengths = find_weights(paper, "small")[1].get("classical", {})
            if users is None:
                sections.append(_measured(paper, out, seed, strengths))
            else:
                sections.append(_shown(paper, out, users, strengths))
        except (ValueError, FileNotFoundError) as error:
            print(f"{name}: skipped, {error}", file=sys.stderr)
            sections.append(f"<h2>{name}</h2><p class=note>Skipped: {html.escape(str(error))}</p>")
    warning = (
        "A network invents plausible detail where the input holds none. Do not measure what only the restored image shows. "
        "Strength 0 is the classical method that each paper's network can be blended with. "
        "Each heading names the images that its network was made for; of others it makes what they are not."
    )
    body = f"<h1>empapers demo</h1><p class=note>{warning}</p>{''.join(sections)}<p>{html.escape(CONVENTION)}.</p>"
    report = out / "report.html"
    write_atomically(report, f"<!doctype html><meta charset=utf-8><title>empapers demo</title><style>{STYLE}</style>{body}")
    print(f"done in {time.perf_counter() - began:.0f} s; open {report.resolve()}")
    return report


def _measured(paper: Paper, out: Path, seed: int, strengths: dict) -> str:
    """Samples with a known truth: pictures and scores beside the classical methods."""
    rows, figures = [], []
    for name, sample, truth in paper.samples(seed):
        scale = truth.shape[0] // sample.data.shape[0]
        step = None if paper.scale else scale
        images = {"bicubic": _classical(sample.data, scale, "bicubic", 0.0), "strength 0": restore(sample, paper, step=step, strength=0.0).data}
        images |= {method: _classical(sample.data, scale, method, k) for method, k in strengths.items()}
        best = max(images, key=lambda method: psnr(truth, images[method]))
        restored = restore(sample, paper, step=step)
        save_micrograph(out / f"{paper.name}_{name}.tif", restored)
        ours = restored.data
        gain = psnr(truth, ours) - psnr(truth, images[best])
        rows.append([name, _scores(truth, images["bicubic"]), f"{_scores(truth, images[best])} ({best})", _scores(truth, ours), f"{gain:+.2f} dB"])
        print(f"{paper.name}: {name:8} best classical {rows[-1][2]}, {paper.name} {rows[-1][3]}")
        pixel = f"{sample.pixel_size:.3g} nm/px"
        pictures = {f"{name}, input ({pixel})": _enlarged(sample.data, scale), best: images[best], paper.name: ours, "truth": truth}
        figures.append(_row(pictures))
    heads = ["specimen (simulated)", "bicubic", "best classical of this image", paper.name, "PSNR gain"]
    table = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<h2>{paper.name}: {html.escape(paper.title)}</h2><table><tr>{''.join(f'<th>{h}</th>' for h in heads)}</tr>{table}</table>{''.join(figures)}"


def _shown(paper: Paper, out: Path, micrograph: Micrograph, strengths: dict) -> str:
    """The user's micrograph, of which no truth is known: pictures only."""
    if paper.scale is None:
        raise ValueError(f"it needs the scan step of a sparse scan; if this is one, use empapers restore {paper.name} FILE --step S --out DIR")
    restored = restore(micrograph, paper, progress=True)
    target = save_micrograph(out / f"{paper.name}_restored.tif", restored)
    state = np.asarray(intensity_range(np.nan_to_num(micrograph.data.astype(np.float32))[None, ..., None]))

    def eight_bit(image):
        return np.round(np.clip(to_unit_range(np.nan_to_num(image.astype(np.float32)), state[0, 0]), 0, 1) * 255).astype(np.uint8)

    low = eight_bit(micrograph.data)
    images = {"strength 0": eight_bit(restore(micrograph, paper, strength=0.0).data)}
    images |= {method: _classical(low, paper.scale, method, k) for method, k in strengths.items() if method != "bicubic"}
    pictures = {"input": _enlarged(low, paper.scale), **images, paper.name: eight_bit(restored.data)}
    calibration = "no pixel size known" if restored.pixel_size is None else f"{restored.pixel_size:.6g} nm per pixel"
    print(f"{paper.name}: {micrograph.source} {micrograph.data.shape} -> {target} {restored.data.shape}, {calibration}")
    size = f"{restored.data.shape[1]} x {restored.data.shape[0]} pixels"
    return f"<h2>{paper.name}: {html.escape(paper.title)}</h2><p>{size}, {calibration}; {target.name}</p>{_row(pictures)}"


def _classical(image: np.ndarray, scale: int, method: str, k: float) -> np.ndarray:
    restored = METHODS[method][0](image.astype(np.float32) / 255, scale, k)
    return np.round(np.clip(restored, 0, 1) * 255).astype(np.uint8)


def _scores(truth: np.ndarray, image: np.ndarray) -> str:
    return f"{psnr(truth, image):.2f} dB, {ssim(truth, image):.3f}"


def _enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    return np.kron(image, np.ones((scale, scale), image.dtype))


def _row(pictures: dict[str, np.ndarray]) -> str:
    """Captioned pictures side by side."""
    return f"<div>{''.join(_figure(image, caption) for caption, image in pictures.items())}</div>"


def _figure(image: np.ndarray, caption: str) -> str:
    """The centre of an 8-bit image as an inline PNG."""
    top, left = (max(0, n - SHOWN) // 2 for n in image.shape)
    encoded = base64.b64encode(cv2.imencode(".png", image[top : top + SHOWN, left : left + SHOWN])[1]).decode()
    return f'<figure><img src="data:image/png;base64,{encoded}"><figcaption>{html.escape(caption)}</figcaption></figure>'
