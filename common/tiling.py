"""An image of any size by overlapping tiles. Results come as finished bands of rows: memory holds one row of tiles, whatever the height of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np


def tile_starts(length: int, tile: int, overlap: int, multiple: int = 1) -> list[int]:
    """First pixels of tiles that cover `length` pixels, neighbours sharing at least `overlap`, the last one ending with the image.

    All are divisible by `multiple` where length and tile are: a network that halves its input must see each tile on the grid of the whole image.
    """
    if length <= tile:
        return [0]
    furthest = (tile - overlap) // multiple * multiple  # that one tile may lie from the next
    count = -(-(length - tile) // furthest) + 1
    return [k * (length - tile) // (count - 1) // multiple * multiple for k in range(count)]


def tile_weights(starts: list[int], tile: int, length: int, hard: bool) -> list[np.ndarray]:
    """How much each pixel of each tile counts along one axis, float32; where tiles meet their weights sum to one.

    Blended: a linear ramp over the middle half of the pixels shared with a neighbour, because a tile's outermost pixels have seen the least around them.
    Hard: 1 in the nearer half of the shared pixels, 0 beyond. Image borders have no ramp.
    """
    ends = [min(start + tile, length) for start in starts]

    def rise(position, low, high):
        if hard:
            return position >= (low + high) / 2
        margin = (high - low) / 4
        return np.clip((position - low - margin) / (high - low - 2 * margin), 0, 1)

    weights, total = [], np.zeros(length)
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        position, weight = np.arange(start, end) + 0.5, np.ones(end - start)
        if k:
            weight *= rise(position, start, ends[k - 1])
        if k + 1 < len(starts):
            weight *= 1 - rise(position, starts[k + 1], end)
        weights.append(weight)
        total[start:end] += weight
    return [(weight / total[start:end]).astype(np.float32) for weight, start, end in zip(weights, starts, ends, strict=True)]


def bands(
    function: Callable[[slice, slice], np.ndarray],
    shape: tuple[int, int],
    *,
    tile: int,
    overlap: int,
    multiple: int = 1,
    scale: int = 1,
    hard: bool = False,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Apply `function` to every tile of an image of `shape` and blend: yields (first row, (channels, rows, width) float32), from top to bottom.

    function: (rows, columns) of a tile in the input -> (channels, rows * scale, columns * scale) float32. shape, tile: divisible by `multiple`.
    overlap: input pixels that neighbours share at least. hard: see `tile_weights`. progress: called with the tiles done and their number.
    """
    starts = [tile_starts(n, tile, overlap, multiple) for n in shape]
    down, across = ([np.repeat(w, scale) for w in tile_weights(s, tile, n, hard)] for s, n in zip(starts, shape, strict=True))
    count, waiting = len(down) * len(across), None
    for i, (top, wy) in enumerate(zip(starts[0], down, strict=True)):
        for j, (left, wx) in enumerate(zip(starts[1], across, strict=True)):
            output = function(slice(top, min(top + tile, shape[0])), slice(left, min(left + tile, shape[1])))
            if waiting is None:  # rows of the output that are not finished yet, the first of them at `top`
                waiting = np.zeros((len(output), min(tile, shape[0]) * scale, shape[1] * scale), np.float32)
            waiting[:, :, left * scale : left * scale + len(wx)] += wy[:, None] * wx * output
            progress(i * len(across) + j + 1, count)
        finished = ((starts[0][i + 1] if i + 1 < len(starts[0]) else shape[0]) - top) * scale
        yield top * scale, waiting[:, :finished].copy()
        waiting[:, : waiting.shape[1] - finished] = waiting[:, finished:]
        waiting[:, waiting.shape[1] - finished :] = 0
