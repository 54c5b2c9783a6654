"""Laws of the Huffman tree, and of the probabilities that hierarchical softmax gives with it."""

from __future__ import annotations

import heapq
import math
from itertools import pairwise
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound
from minilong.embeddings.blocks import Blocks
from minilong.embeddings.huffman import huffman
from minilong.embeddings.outputs import HierarchicalSoftmax

kind(
    "huffman", "huffman(counts)", "Counts of words (V,) -> the path of each: pairs (inner node, branch) from the root."
)


@subject("huffman", "huffman", code=huffman, equation="eq:huffman")
def ours(counts: Any) -> Any:
    tree = huffman(counts)
    return [
        list(zip(nodes[:n].tolist(), branches[:n].tolist(), strict=True))
        for nodes, branches, n in zip(tree.nodes, tree.branches, tree.lengths, strict=True)
    ]


def counted(r: Numbers, *, words: int, top: int) -> Case:
    """Counts, often equal ones, in any order."""
    return {"counts": r.integers(1, top + 1, words)}


COUNTS = cases(counted, words=(2, 1, 3, 5, 8, 30), top=(3, 1, 10, 1000))


def codes(paths: Any) -> list[str]:
    """The branches of each path as text."""
    return ["".join(str(branch) for _, branch in path) for path in paths]


@law("huffman", "prefix-free", serves="eq:huffman", cases=COUNTS)
def prefix_free(f: F, c: Case, measure: Measure) -> None:
    """No word's code begins another one's, and the codes leave nothing free: the sum of 2^-length is 1."""
    found = codes(f(c["counts"]))
    ordered = sorted(found)
    clash = [(a, b) for a, b in pairwise(ordered) if b.startswith(a)]
    measure.holds(not clash, f"codes begin one another: {clash}")
    measure.close(math.fsum(0.5 ** len(code) for code in found), 1.0, 0.0, "the sum of 2^-length")


@law("huffman", "shortest", serves="eq:huffman", cases=COUNTS)
def shortest(f: F, c: Case, measure: Measure) -> None:
    """The mean length of a code is the least possible: the sum of the counts of all joins."""
    heap, least = sorted(c["counts"].tolist()), 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        heapq.heappush(heap, joined)
        least += joined
    total = sum(n * len(code) for n, code in zip(c["counts"].tolist(), codes(f(c["counts"])), strict=True))
    measure.holds(total == least, f"all codes take {total} bits, and {least} would do")


@law("huffman", "nodes", serves="eq:huffman", cases=COUNTS)
def nodes(f: F, c: Case, measure: Measure) -> None:
    """Words share a node exactly as long as their codes agree, so there is one node fewer than words, and each has a
    number below that."""
    paths = f(c["counts"])
    place: dict[str, int] = {}
    for path, code in zip(paths, codes(paths), strict=True):
        for depth, (node, _) in enumerate(path):
            same = place.setdefault(code[:depth], node) == node
            measure.holds(same, f"behind {code[:depth]!r} stand the nodes {place[code[:depth]]} and {node}")
    numbers = sorted(place.values())
    measure.holds(numbers == list(range(len(c["counts"]) - 1)), f"the nodes are {numbers}")


def of_lengths(counts: Any, order: Any) -> Any:
    """Paths of a comb: the first word has the code 0, the next 10, the next 110."""
    size = len(counts)
    paths: list[list[tuple[int, int]]] = [[] for _ in counts]
    for depth, word in enumerate(order):
        steps = [(size - 2 - k, 1) for k in range(min(depth, size - 1))]
        paths[word] = [*steps, (size - 2 - depth, 0)] if depth < size - 1 else steps
    return paths


@mutant("huffman", "a comb", kills="shortest", met="plausible: unary codes by frequency")
def comb(counts: Any) -> Any:
    return of_lengths(counts, np.argsort(-counts, kind="stable"))


@mutant(
    "huffman", "first bit lost", kills=("prefix-free", "nodes"), met="plausible: the walk up stops at the root's child"
)
def first_bit_lost(counts: Any) -> Any:
    return [path[1:] for path in ours(counts)]


@mutant("huffman", "largest joined", kills="shortest", met="plausible: a heap of the wrong sign")
def largest_joined(counts: Any) -> Any:
    return ours(counts.max() + 1 - counts) if len(counts) > 1 else ours(counts)


@mutant(
    "huffman", "from the leaf", kills=("nodes", "prefix-free"), met="plausible: the code not reversed after the walk up"
)
def from_the_leaf(counts: Any) -> Any:
    return [path[::-1] for path in ours(counts)]


@mutant("huffman", "numbered by word", kills="nodes", met="plausible: node numbers that still count the leaves")
def numbered_by_word(counts: Any) -> Any:
    return [[(node + len(counts), branch) for node, branch in path] for path in ours(counts)]


# Hierarchical softmax

kind(
    "hierarchical-softmax",
    "hierarchical_softmax(h, outputs, counts)",
    "A vector (d,), a row for each inner node (V - 1, d), counts (V,) -> the probability of each word (V,).",
)


@subject("hierarchical-softmax", "HierarchicalSoftmax", code=HierarchicalSoftmax, equation="eq:hierarchical-softmax")
def our_probabilities(h: Any, outputs: Any, counts: Any) -> Any:
    output, size = HierarchicalSoftmax(huffman(counts)), len(counts)
    found = []
    for word in range(size):
        one = np.array([[word]], np.int32)
        block = Blocks(one, one, np.zeros((1, 1, 1)), np.ones((1, 1)), np.zeros((1, 1), np.int32))
        found.append(math.exp(-output.loss(h[None, None], outputs, block, one[:, :0], contexts=False)))
    return np.array(found)


def scored(r: Numbers, *, words: int, top: int, d: int, spread: float) -> Case:
    """A vector, a table and counts."""
    return {
        "h": r.normal(d),
        "outputs": r.normal(words - 1, d, spread=spread),
        "counts": r.integers(1, top + 1, words),
    }


SCORED = cases(scored, words=(2, 1, 3, 5, 12), top=(3, 1, 100), d=(1, 3, 8), spread=(1.0, 0.0, 10.0))


@law("hierarchical-softmax", "sums to one", serves="eq:hierarchical-softmax", cases=SCORED)
def sums_to_one(f: F, c: Case, measure: Measure) -> None:
    """The probabilities of all words are between 0 and 1 and sum to 1."""
    p = np.asarray(f(c["h"], c["outputs"], c["counts"]))
    measure.holds(np.all((p >= 0) & (p <= 1 + bound(1.0))), f"probabilities {p!r}")
    measure.close(p.sum(), 1.0, bound(1.0, 8 * p.size), "the sum of the probabilities")


@law("hierarchical-softmax", "even", serves="eq:hierarchical-softmax", cases=SCORED)
def even(f: F, c: Case, measure: Measure) -> None:
    """With a table of zeros, a word has the probability 2^-length of its code."""
    right = [0.5 ** len(code) for code in codes(ours(c["counts"]))]
    measure.close(f(c["h"], 0 * c["outputs"], c["counts"]), np.array(right), bound(1.0, 30), "a probability")


@law("hierarchical-softmax", "sides", serves="eq:hierarchical-softmax", cases=SCORED)
def sides(f: F, c: Case, measure: Measure) -> None:
    """The words on branch 0 of the root have together the sigmoid of the root's score."""
    paths = ours(c["counts"])
    if len(paths) < 2:
        return
    p = np.asarray(f(c["h"], c["outputs"], c["counts"]))
    left = math.fsum(float(q) for q, path in zip(p, paths, strict=True) if path[0][1] == 0)
    score = float(c["h"] @ c["outputs"][-1])
    measure.close(left, 0.5 + 0.5 * math.tanh(score / 2), bound(1.0 + abs(score), 8 * p.size), "their probability")


def with_decision(decide: Any) -> F:
    """Probabilities as products of decisions(score, branch, place)."""

    def f(h: Any, outputs: Any, counts: Any) -> Any:
        paths = ours(counts)
        return np.array([
            math.prod(decide(float(h @ outputs[v]), b, k) for k, (v, b) in enumerate(path)) for path in paths
        ])  # fmt: skip

    return f


def sigma(score: float) -> float:
    """The logistic function."""
    return 0.5 + 0.5 * math.tanh(score / 2)


mutant("hierarchical-softmax", "branch is the target", kills="sides",
       met="the code's bit taken for the target; word2vec.c takes 1 - bit")(
    with_decision(lambda s, b, k: sigma(s if b else -s)))  # fmt: skip
mutant("hierarchical-softmax", "one side only", kills="sums to one", met="plausible: the sign of the branch forgotten")(
    with_decision(lambda s, b, k: sigma(s))
)
mutant(
    "hierarchical-softmax", "root left out", kills=("sums to one", "even"), met="plausible: the path without its root"
)(with_decision(lambda s, b, k: sigma((1 - 2 * b) * s) if k else 1.0))
