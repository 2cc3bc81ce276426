"""Which tiles the logits of attention have: the sizes of blocks, and the places where something is allowed. Whole numbers, no arrays."""

import itertools
import math

COST = {512: 1.0, 256: 1.9, 128: 2.3}  # by rows and columns of a tile, the time of one of its elements: smaller products, more steps
LEAST = 128  # the fewest rows when several query heads share a key head
WIDE = 2  # blocks of columns of a tile in which all is allowed: products are faster for it

Place = tuple[int, int]  # block of rows, first block of columns


def block_sizes(
    query: tuple[int, ...], key: tuple[int, ...], is_causal: bool, window: tuple[int, int] | None, block: int | None
) -> tuple[tuple[int, int], int]:
    """Rows of one head and columns of a tile: near `block`, and such that little is padded; and `block`, or what is fast in its place.

    Small tiles leave out more of what causality and a window forbid.

    >>> [block_sizes((n, 8, 64), (n, 8, 64), True, window, None) for n, window in ((2048, None), (2048, (256, 0)))]
    [((512, 512), 512), ((128, 128), 128)]
    """
    (t, n, _), (s, k, _) = query[-3:], key[-3:]
    ahead, behind = _reach(t, s, is_causal, window)

    def sizes(target: int) -> tuple[int, int]:
        rows = max(target // max(n // max(k, 1), 1), min(target, LEAST))
        return _even(t, rows), _even(s, target)

    def time(target: int) -> float:
        bt, bs = sizes(target)
        tiles = sum(len(_columns(i, t, s, bt, bs, ahead, behind)) for i in range(count(t, bt)))
        return COST[target] * tiles * bt * bs

    target = block or min(COST, key=time)
    return sizes(target), target


def _even(length: int, target: int) -> int:
    count = max(math.ceil(length / target), 1)
    size = math.ceil(length / count)
    return size if count == 1 or target % 8 else math.ceil(size / 8) * 8


def count(length: int, size: int) -> int:
    """Blocks of a length, at least one."""
    return max(math.ceil(length / max(size, 1)), 1)


def places(t: int, s: int, bt: int, bs: int, is_causal: bool, window: tuple[int, int] | None) -> dict[tuple[int, bool], list[Place]]:
    """For each width, and inner or edge, the tiles of t rows and s columns, bt by bs each: inner ones, in which length, causality and window allow all, and edge tiles, in
    which they allow some.

    >>> places(4, 4, 2, 2, True, None)
    {(1, False): [(1, 0)], (1, True): [(0, 0), (1, 1)]}
    """
    inner: list[Place] = []
    edge: list[Place] = []
    ahead, behind = _reach(t, s, is_causal, window)
    for i in range(count(t, bt)):
        for j in _columns(i, t, s, bt, bs, ahead, behind):
            last_row, last_column = min((i + 1) * bt, t) - 1, min((j + 1) * bs, s) - 1  # without what is padded
            low, high = j * bs - last_row, last_column - i * bt  # the least and the largest column - row
            whole = (j + 1) * bs <= s and high <= ahead and low >= -behind
            (inner if whole else edge).append((i, j))
    wide, single = _joined(inner)
    kinds = {(WIDE, False): wide, (1, False): single, (1, True): edge}
    return {kind: tiles for kind, tiles in kinds.items() if tiles}


def _reach(t: int, s: int, is_causal: bool, window: tuple[int, int] | None) -> tuple[int, int]:
    """How far ahead of its own place, and how far behind, a row may look."""
    ahead = 0 if is_causal else s
    return (ahead, t) if window is None else (min(ahead, window[1]), window[0])


def _columns(i: int, t: int, s: int, bt: int, bs: int, ahead: int, behind: int) -> range:
    """The blocks of columns in which something is allowed for a block of rows."""
    first_row, last_row = i * bt, min((i + 1) * bt, t) - 1
    first, last = max(first_row - behind, 0), min(last_row + ahead, s - 1)
    return range(first // max(bs, 1), last // max(bs, 1) + 1) if first_row <= last_row and first <= last else range(0)


def _joined(tiles: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Those that begin WIDE tiles side by side, joined to one, and those that are left over. Tiles are in the order of rows, then columns, without gaps in a row."""
    wide: list[tuple[int, int]] = []
    single: list[tuple[int, int]] = []
    for _, row in itertools.groupby(tiles, key=lambda tile: tile[0]):
        places = list(row)
        joined = len(places) // WIDE * WIDE
        wide += places[:joined:WIDE]
        single += places[joined:]
    return wide, single
