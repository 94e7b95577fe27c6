"""A byte trie in one hash table: (node, byte) -> child in a single 64-bit load."""

import numpy as np
from numba import njit

N_ROOTS = 2  # nodes 0 and 1 are roots; the second holds pieces that continue a word
_MIX = 0x9E3779B97F4A7C15 - (1 << 64)


@njit(cache=True, inline="always")
def child(slots, node, byte):
    """The node below `node` on `byte`, or -1."""
    key = (node << 8) | byte
    mask = slots.size - 1
    at = ((key * _MIX) >> 30) & mask
    while True:
        slot = slots[np.uint64(at)]  # unsigned: no check for a negative index
        if slot == 0:
            return -1
        if slot & 0xFFFFFFFF == key:
            return slot >> 32
        at = (at + 1) & mask


def build(data, ends, roots):
    """Trie of pieces: `slots` (a power of two) and `nodes` (N, 4) int32.

    A node's row: the piece that ends there or -1; its depth in bytes; the deepest proper suffix
    that is a piece, 0 for none; the deepest proper suffix that is a node (Aho and Corasick).
    data (n bytes,) uint8, ends (P,) int64 ends of the pieces, roots (P,) int64 their root.
    """
    slots, nodes, parents = _enter(data, ends, roots)
    _link(slots, nodes, parents, np.argsort(nodes[:, 1], kind="stable"))
    return slots, nodes


@njit(cache=True)
def _enter(data, ends, roots):
    """Slots and nodes without suffix links, and (parent, byte from there) of each node."""
    n_slots = 64
    while n_slots < 2 * data.size + 2:
        n_slots *= 2
    slots = np.zeros(n_slots, np.int64)
    nodes = np.zeros((data.size + N_ROOTS, 4), np.int32)
    parents = np.zeros((data.size + N_ROOTS, 2), np.int32)
    nodes[:, 0] = -1
    n_nodes = N_ROOTS
    start = 0
    for piece in range(ends.size):
        node = roots[piece]
        for k in range(start, ends[piece]):
            below = child(slots, node, np.int64(data[k]))
            if below < 0:
                below = n_nodes
                n_nodes += 1
                _add(slots, np.int64(node), np.int64(data[k]), np.int64(below))
                nodes[below, 1] = k + 1 - start
                parents[below, 0] = node
                parents[below, 1] = data[k]
            node = below
        if ends[piece] > start:
            nodes[node, 0] = piece
        start = ends[piece]
    n_slots = 64
    while n_slots < 2 * n_nodes:
        n_slots *= 2
    slots = np.zeros(n_slots, np.int64)  # again: the smaller, the faster
    for node in range(N_ROOTS, n_nodes):
        _add(slots, np.int64(parents[node, 0]), np.int64(parents[node, 1]), np.int64(node))
    return slots, nodes[:n_nodes].copy(), parents[:n_nodes].copy()


@njit(cache=True)
def _add(slots, node, byte, below):
    key = (node << 8) | byte
    at = ((key * _MIX) >> 30) & (slots.size - 1)
    while slots[at] != 0:
        at = (at + 1) & (slots.size - 1)
    slots[at] = key | below << 32


@njit(cache=True)
def _link(slots, nodes, parents, shallow_first):
    """Fill in the suffix links."""
    for node in shallow_first:
        if nodes[node, 1] < 2:
            continue
        suffix = np.int64(nodes[parents[node, 0], 3])
        below = child(slots, suffix, np.int64(parents[node, 1]))
        while below < 0 and suffix != 0:
            suffix = np.int64(nodes[suffix, 3])
            below = child(slots, suffix, np.int64(parents[node, 1]))
        suffix = max(below, 0)
        nodes[node, 3] = suffix
        nodes[node, 2] = suffix if nodes[suffix, 0] >= 0 else nodes[suffix, 2]
