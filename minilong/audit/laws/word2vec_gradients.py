"""Laws of the gradients of Word2Vec and Doc2Vec: those of all tables are what autodiff makes of the formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound, largest
from minilong.audit.laws.word2vec_losses import CHOICES, NAMES, block, sampling, tables
from minilong.audit.laws.word2vec_losses import make as block_of
from minilong.autodiff import embedding, log_softmax, ops, value_and_grad
from minilong.embeddings.blocks import Blocks
from minilong.embeddings.descent import METHODS
from minilong.embeddings.huffman import huffman
from minilong.embeddings.logistic import logistic, logistic_loss
from minilong.embeddings.methods import Method
from minilong.embeddings.outputs import HierarchicalSoftmax, Output

kind(
    "embedding-gradients",
    "embedding_gradients(method, words, document, outputs, contexts, near, drawn, negatives)",
    "A method and what its loss takes; negatives 0: hierarchical softmax, words being equally frequent -> gradients "
    "of words, document and outputs.",
)


def gradients(method: Method, case: Any, change: Callable[[Blocks], Blocks] = lambda b: b) -> list[np.ndarray]:
    """Dense gradients of one method's step."""
    words, document, outputs, contexts, near, drawn, negatives = case
    output: Output = sampling(outputs, drawn, negatives) if negatives else HierarchicalSoftmax(tree(len(words)))
    held = tables(words, document, outputs)
    found = method.gradients(held, change(block(contexts, near)), drawn[None], output)
    sums = []
    for name, table in held.items():
        total = np.zeros(table.shape)
        if name in found:
            np.add.at(total, found[name].rows, found[name].values)
        sums.append(total[0] if name == "documents" else total)
    return sums


def tree(size: int) -> Any:
    """The tree of words that are equally frequent."""
    return huffman(np.ones(size, np.int64))


def ours(method: str, *case: Any) -> list[np.ndarray]:
    """Our gradients."""
    return gradients(METHODS[method], case)


subject("embedding-gradients", "gradients", code=METHODS["cbow"].gradients, equation="eq:logistic")(ours)


def softplus(s: Any) -> Any:
    """log(1 + exp s), smooth and without overflow."""
    return -log_softmax(ops.stack([s, s * 0.0], axis=len(s.shape)))[..., 1]


def by_autodiff(method: str, case: Any) -> list[np.ndarray]:
    """Gradients of the formula, by this project's autodiff."""
    words, document, outputs, contexts, near, drawn, negatives = case
    size, w = near.shape[1], (near.shape[0] - near.shape[1]) // 2
    paths = tree(len(words))

    def minus_log(h: Any, rows: Any, signs: np.ndarray, weights: np.ndarray) -> Any:
        scores = ops.sum(rows * h, axis=-1) * -signs
        return ops.sum(softplus(scores) * weights)

    def one(h: Any, table: Any, centre: int) -> Any:
        if negatives:
            rows = np.array([centre, *drawn])
            weights = np.array([1.0, *(negatives / len(drawn) * (drawn != centre))])
            signs = np.array([1.0] + [-1.0] * len(drawn))
        else:
            n = int(paths.lengths[centre])
            rows, signs, weights = paths.nodes[centre][:n], 1.0 - 2.0 * paths.branches[centre][:n], np.ones(n)
        return minus_log(h, embedding(table, indices=rows), signs, weights)

    def loss(inputs: Any) -> Any:
        x, d, table = inputs
        rows = embedding(x, indices=contexts)
        total = ops.sum(rows) * 0.0 + ops.sum(d) * 0.0 + ops.sum(table) * 0.0
        for i in range(size):
            centre, mine = int(contexts[i + w]), np.flatnonzero(near[:, i])
            if method == "skip-gram":
                for j in mine:
                    total = total + one(rows[int(j)], table, centre)
                continue
            if method == "dbow":
                h = d
            elif method == "dm-concat":
                places = range(i, i + 2 * w + 1)
                h = ops.concatenate(*[d if j == i + w else rows[j] * float(near[j, i]) for j in places], axis=0)
            else:
                count = len(mine) + (method == "dm")
                if not count:
                    continue
                h = ops.sum(rows * near[:, i, None], axis=0)
                h = (h + d if method == "dm" else h) * (1.0 / count)
            total = total + one(h, table, centre)
        return total

    return list(value_and_grad(loss)((words, document, outputs))[1])


def make(r: Numbers, *, method: str, hierarchical: bool, window: int, d: int, **rest: Any) -> Case:
    """A method's block, with either output."""
    case = dict(block_of(r, window=window, d=d, wide=method == "dm-concat", **rest))
    if hierarchical:
        case |= {"negatives": 0.0, "outputs": case["outputs"][:-1]}
    return {"method": method, **case}


METHOD_CASES = cases(make, method=tuple(NAMES), hierarchical=(False, True), **CHOICES)
IDS = tuple(f"eq:{name}" for name in NAMES.values())


@law("embedding-gradients", "autodiff", serves=(*IDS, "eq:negative-sampling", "eq:hierarchical-softmax"),
     cases=METHOD_CASES)  # fmt: skip
def autodiff(f: F, c: Case, measure: Measure) -> None:
    """The gradients of all tables are those that autodiff makes of the written-out loss."""
    found = f(*[x.copy() if isinstance(x, np.ndarray) else x for x in c.values()])
    right = by_autodiff(c["method"], list(c.values())[1:])
    scale = (1 + largest(c["words"], c["document"], c["outputs"])) * (1 + c["negatives"]) * c["near"].size
    for name, a, b in zip(("words", "document", "outputs"), found, right, strict=True):
        measure.close(a, b, bound(scale, c["near"].size), f"the gradient of {name}")


@law("embedding-gradients", "strangers", serves=IDS, cases=METHOD_CASES)
def strangers(f: F, c: Case, measure: Measure) -> None:
    """A word that is no context has no gradient, and with negative sampling one that is neither centre nor drawn has
    none among the outputs."""
    words, _, outputs = f(*[x.copy() if isinstance(x, np.ndarray) else x for x in c.values()])
    size = c["near"].shape[1]
    w = (len(c["contexts"]) - size) // 2
    met = {*c["contexts"].tolist()}
    predicted = {*c["contexts"][w : w + size].tolist(), *c["drawn"].tolist()}
    for word in range(len(c["words"])):
        if word not in met:
            measure.close(words[word], 0 * words[word], 0.0, "the gradient of a word that does not occur")
        if c["negatives"] and word not in predicted:
            measure.close(outputs[word], 0 * outputs[word], 0.0, "the output's gradient of a word that does not occur")


# Mutants


@mutant("embedding-gradients", "not divided", kills="autodiff", met="word2vec.c and gensim: CBOW's gradient undivided")
def not_divided(method: str, *case: Any) -> Any:
    found = ours(method, *case)
    if method == "cbow":
        near = case[4]
        found[0] = np.zeros_like(found[0])
        for i in range(near.shape[1]):
            alone = np.where(np.arange(near.shape[1]) == i, near, 0.0)
            found[0] += near[:, i].sum() * ours(method, *case[:4], alone, *case[5:])[0]
    return found


@mutant("embedding-gradients", "last write wins", kills="autodiff", met="table[rows] -= g, which keeps one of a row's")
def last_write_wins(method: str, *case: Any) -> Any:
    found = ours(method, *case)
    words, near = case[0], case[4]
    if method == "skip-gram" and len({*case[3].tolist()}) == 1 and near.sum() > 1:
        found[0] = np.where(np.arange(len(words))[:, None] == case[3][0], found[0] / near.sum(), found[0])
    return found


@mutant("embedding-gradients", "outputs first", kills="autodiff", met="the table updated before its rows are used")
def outputs_first(method: str, *case: Any) -> Any:
    after = case[2] - 0.1 * ours(method, *case)[2]
    return ours(method, case[0], case[1], after, *case[3:])


@mutant("embedding-gradients", "everything decays", kills="strangers", met="plausible: L2 on whole tables each batch")
def everything_decays(method: str, *case: Any) -> Any:
    words, document, outputs = ours(method, *case)
    return [words + 1e-3 * case[0], document, outputs + 1e-3 * case[2]]


# The kernel

kind(
    "logistic",
    "logistic(x, o, target, weight)",
    "Vectors (m, d) and (k, d), targets and weights (m, k) -> the weighted logistic loss and its gradients for both.",
)


@subject("logistic", "logistic", code=logistic, equation="eq:logistic")
def our_logistic(x: Any, o: Any, target: Any, weight: Any) -> Any:
    return (logistic_loss(x, o, target, weight), *logistic(x, o, target, weight))


def met(r: Numbers, *, m: int, k: int, d: int, spread: float) -> Case:
    """Vectors, whose scores may be large."""
    return {
        "x": r.normal(m, d, spread=spread),
        "o": r.normal(k, d, spread=spread),
        "target": r.integers(0, 2, m, k).astype(float),
        "weight": r.uniform(0, 3, m, k),
    }


MET = cases(met, m=(1, 2, 5), k=(1, 3, 7), d=(1, 2, 5), spread=(1.0, 0.0, 30.0))


@law("logistic", "autodiff", serves="eq:logistic", cases=MET)
def logistic_autodiff(f: F, c: Case, measure: Measure) -> None:
    """Loss and gradients are those of softplus(s) - t s by autodiff, finite for scores of any size."""

    def loss(inputs: Any) -> Any:
        x, o = inputs
        s = ops.matmul(x, ops.swap_last(o))
        return ops.sum((softplus(s) - s * c["target"]) * c["weight"])

    value, right = value_and_grad(loss)((c["x"], c["o"]))
    scale = 1.0 + 3 * largest(c["x"]) * largest(c["o"]) * c["x"].shape[1]
    found = f(*[x.copy() for x in c.values()])
    for name, a, b in zip(("loss", "gradient of x", "gradient of o"), found, (value, *right), strict=True):
        measure.close(a, b, bound(scale, c["weight"].size), f"the {name}")


@law("logistic", "mirrored", serves="eq:logistic", cases=MET)
def mirrored(f: F, c: Case, measure: Measure) -> None:
    """Vectors of the other sign with the other targets lose as much."""
    scale = 1.0 + 3 * largest(c["x"]) * largest(c["o"]) * c["x"].shape[1]
    once = f(c["x"], c["o"], c["target"], c["weight"])
    other = f(-c["x"], c["o"], 1 - c["target"], c["weight"])
    measure.close(other[0], once[0], bound(scale, c["weight"].size), "the loss")
    measure.close(other[1], -once[1], bound(scale, c["weight"].size), "the gradient of x")


def kernel(sigma: Callable[[Any], Any], *, squared: bool = False) -> F:
    """The kernel with another logistic function, or weights that count twice."""

    def f(x: Any, o: Any, target: Any, weight: Any) -> Any:
        w = weight * weight if squared else weight
        g = w * (sigma(x @ o.T) - target)
        return logistic_loss(x, o, target, weight), g @ o, g.T @ x

    return f


def exact(s: Any) -> Any:
    """The logistic function."""
    return 0.5 + 0.5 * np.tanh(s / 2)


mutant("logistic", "clipped at 6", kills="autodiff", met="word2vec.c's table: scores beyond 6 learn nothing")(
    kernel(lambda s: np.where(s > 6, 1.0, np.where(s < -6, 0.0, exact(s))))
)
mutant("logistic", "overflow", kills="autodiff", met="plausible: exp(s) / (1 + exp(s))")(
    kernel(lambda s: np.exp(s) / (1 + np.exp(s)))
)
mutant("logistic", "weights twice", kills="autodiff", met="plausible: weights applied to scores and to the sum")(
    kernel(exact, squared=True)
)
mutant("logistic", "lopsided", kills=("mirrored", "autodiff"), met="plausible: sigmoid(s) + epsilon against log 0")(
    kernel(lambda s: exact(s) + 1e-6)
)
