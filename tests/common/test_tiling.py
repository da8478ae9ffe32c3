"""Tiles: they cover everything, their weights sum to one, bands come finished and in order, memory does not grow with the height."""

import tracemalloc

import numpy as np
import pytest

from common.tiling import bands, tile_starts, tile_weights


@pytest.mark.parametrize(("length", "tile", "overlap"), [(100, 100, 20), (101, 64, 16), (1000, 96, 64), (257, 256, 64), (5, 64, 16)])
def test_tiles_cover_everything_and_weights_sum_to_one(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0 and starts[-1] + min(tile, length) == length
    assert all(b - a <= tile - overlap for a, b in zip(starts, starts[1:], strict=False))
    for hard in (False, True):
        total = np.zeros(length)
        for start, weight in zip(starts, tile_weights(starts, tile, length, hard), strict=True):
            total[start : start + tile] += weight
        np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize(("length", "tile", "overlap", "starts"), [(112, 96, 86, [0, 8, 16]), (192, 128, 68, [0, 32, 64]), (256, 128, 64, [0, 64, 128])])
def test_tiles_on_a_grid_are_as_few_as_can_be(length, tile, overlap, starts):
    """Overlaps that the grid does not divide are rounded up to it, and no tile comes twice."""
    multiple = 8 if tile == 96 else 32
    assert tile_starts(length, tile, overlap, multiple) == starts


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("shape", "scale", "multiple"), [((70, 50), 1, 1), ((33, 90), 2, 1), ((96, 64), 3, 4), ((20, 20), 2, 1)])
def test_bands_put_tiles_together_again(hard, shape, scale, multiple):
    image = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    reached = []
    tiles = bands(
        lambda rows, columns: image[:, rows, columns].repeat(scale, 1).repeat(scale, 2),
        shape,
        tile=24,
        overlap=8,
        multiple=multiple,
        scale=scale,
        hard=hard,
        progress=lambda done, count: reached.append((done, count)),
    )
    following, parts = 0, []
    for first, block in tiles:
        assert first == following
        following += block.shape[1]
        parts.append(block)
    np.testing.assert_allclose(np.concatenate(parts, 1), image.repeat(scale, 1).repeat(scale, 2), rtol=1e-5)
    assert [done for done, _ in reached] == list(range(1, reached[0][1] + 1))


def test_memory_does_not_grow_with_the_height():
    def peak(height):
        image = np.zeros((1, height, 300), np.float32)
        tracemalloc.start()
        for _ in bands(lambda rows, columns: image[:, rows, columns], (height, 300), tile=64, overlap=16):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(8000) < 1.5 * peak(500)
