"""Laws of what Word2Vec draws before it learns: what stays, which contexts are near, which words are noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilong.audit.draw import Numbers, cases
from minilong.audit.law import Case, Measure, kind, law, mutant, subject
from minilong.audit.laws.common import F, bound
from minilong.embeddings.blocks import blocks, in_window
from minilong.embeddings.noise import Noise
from minilong.keys import Key
from minilong.text.corpus import END, keep_probability

SIGMAS = 6.0
"""Of a frequency: beyond, by chance, in one of 10^9 cases."""


def counts(r: Numbers, *, words: int, top: int) -> np.ndarray:
    """How often words occur, commonest first."""
    return np.sort(r.integers(1, top + 1, words))[::-1].copy()


# Subsampling

kind("subsampling", "subsampling(counts, sample)", "Counts of words (V,) -> the probability that an occurrence stays.")
subject("subsampling", "keep_probability", code=keep_probability, equation="eq:subsampling")(keep_probability)


def shares(r: Numbers, *, words: int, top: int, sample: float) -> Case:
    """Counts, and a threshold."""
    return {"counts": counts(r, words=words, top=top), "sample": sample}


SHARES = cases(shares, words=(2, 1, 5, 30), top=(10, 1, 1000), sample=(0.1, 0.001, 0.5, 1.0))


@law("subsampling", "definition", serves="eq:subsampling", cases=SHARES)
def subsampling_definition(f: F, c: Case, measure: Measure) -> None:
    """A word of the share s stays with probability sqrt(t / s) + t / s, at most 1."""
    share = c["counts"] / c["counts"].sum()
    right = [min(1.0, math.sqrt(c["sample"] / s) + c["sample"] / s) for s in share]
    measure.close(f(c["counts"], c["sample"]), np.array(right), bound(1.0, len(right)), "a probability")


@law("subsampling", "order", serves="eq:subsampling", cases=SHARES)
def commoner_goes_first(f: F, c: Case, measure: Measure) -> None:
    """A commoner word never stays more likely than a rarer one, and yet occurs no less often afterwards."""
    p = np.asarray(f(c["counts"], c["sample"]))
    measure.holds(np.all(np.diff(p) >= -bound(1.0)), f"from common to rare, the probabilities are {p!r}")
    left = p * c["counts"]
    measure.holds(np.all(np.diff(left) <= bound(float(left.max()))), f"of the words {left!r} are left")


@law("subsampling", "scale", serves="eq:subsampling", cases=SHARES)
def only_shares_count(f: F, c: Case, measure: Measure) -> None:
    """A corpus repeated three times is thinned out alike."""
    once = np.asarray(f(c["counts"], c["sample"]))
    measure.close(f(3 * c["counts"], c["sample"]), once, bound(1.0, once.size), "a probability")


@mutant("subsampling", "the paper's", kills="definition", met="the paper's formula, which its program does not follow")
def the_papers(counts: Any, sample: float) -> Any:
    return np.minimum(1.0, np.sqrt(sample / (counts / counts.sum())))


@mutant("subsampling", "discarded", kills=("definition", "order"), met="the paper states the probability to discard")
def discarded(counts: Any, sample: float) -> Any:
    return 1.0 - np.minimum(1.0, np.sqrt(sample * counts.sum() / counts) + sample * counts.sum() / counts)


@mutant("subsampling", "counts for shares", kills=("definition", "scale"), met="plausible: not divided by the total")
def counts_for_shares(counts: Any, sample: float) -> Any:
    return np.minimum(1.0, np.sqrt(sample / counts) + sample / counts)


# Windows

kind(
    "window",
    "window(units, reach)",
    "The unit of each place (c + 2w,), below 0 for none, and words on either side of each centre (c,) -> 1 where a "
    "place is in a centre's window (c + 2w, c), else 0.",
)


@subject("window", "in_window", code=in_window, equation="eq:window")
def our_window(units: Any, reach: Any) -> Any:
    return in_window(units[None], reach[None, None])[0].astype(np.float64)


def places(r: Numbers, *, size: int, window: int, units: int, filled: int) -> Case:
    """Units in ascending order, with places filled up at both ends."""
    span = size + 2 * window
    of = np.sort(r.integers(0, units, span))
    of[: int(r.integers(0, filled + 1))] = -1
    of[span - int(r.integers(0, filled + 1)) :] = -2
    return {"units": of, "reach": r.integers(1, window + 1, size)}


PLACES = cases(places, size=(1, 2, 5, 8), window=(1, 2, 5), units=(1, 2, 4), filled=(0, 2))


@law("window", "definition", serves="eq:window", cases=PLACES)
def window_definition(f: F, c: Case, measure: Measure) -> None:
    """A place is near a centre if it is another one, not farther than the centre's reach, and in the same unit."""
    units, reach = c["units"], c["reach"]
    w = (len(units) - len(reach)) // 2
    right = np.zeros((len(units), len(reach)))
    for j, unit in enumerate(units):
        for i, r in enumerate(reach):
            right[j, i] = 0 < abs(j - w - i) <= r and unit == units[i + w] and unit >= 0
    measure.close(f(units, reach), right, 0.0, "near")


def window_with(**changes: Any) -> F:
    """The mask with one mistake."""

    def f(units: Any, reach: Any) -> Any:
        w = (len(units) - len(reach)) // 2
        apart = np.abs(np.arange(len(units))[:, None] - w - np.arange(len(reach)))
        own = units[w : len(units) - w]
        limit = reach - 1 if changes.get("short") else reach
        near = (apart <= limit) & (apart >= (0 if changes.get("itself") else 1))
        near &= True if changes.get("across") else units[:, None] == own
        return (near & (True if changes.get("filled") else own >= 0)).astype(float)

    return f


mutant("window", "itself", kills="definition", met="plausible: the centre among its own contexts")(
    window_with(itself=True)
)
mutant("window", "across", kills="definition", met="plausible: one stream, in which sentences have no ends")(
    window_with(across=True)
)
mutant("window", "short", kills="definition", met="plausible: range(1, reach)")(window_with(short=True))
mutant("window", "filled", kills="definition", met="plausible: padding that is a unit of its own")(
    window_with(filled=True)
)

# Blocks of a stretch, drawn

kind(
    "blocks",
    "blocks(ids, keep, window, size, seed)",
    "Word numbers with -1 behind each unit, the probability that a word stays (V,), a window, centres a block -> "
    "`Blocks` of what was drawn.",
)


@subject("blocks", "blocks", code=blocks, equation="eq:window")
def our_blocks(ids: Any, keep: Any, window: int, size: int, seed: int) -> Any:
    return blocks(ids, keep, window, size, Key.of(seed).generator())


def stretch(r: Numbers, *, words: int, units: int, window: int, size: int, keep: float) -> Case:
    """Numbers of five words, parted by ends."""
    ids = r.integers(0, 5, words)
    ids[r.integers(0, words, units)] = END
    given = np.array([keep, 1.0, keep, 1.0, 1.0])
    return {"ids": ids, "keep": given, "window": window, "size": size, "seed": int(r.integers(0, 2**31))}


STRETCHES = cases(stretch, words=(1, 2, 30, 100), units=(1, 5), window=(1, 2, 5), size=(1, 4, 32), keep=(1.0, 0.5, 0.0))
MANY = cases(stretch, words=(3000,), units=(20,), window=(2, 5), size=(8, 32), keep=(0.5, 0.1))


@law("blocks", "words", serves="eq:window", cases=STRETCHES)
def words_in_order(f: F, c: Case, measure: Measure) -> None:
    """The centres that exist are the words that stay, in order and once, each with its unit, and with the words around
    it as contexts."""
    b = f(c["ids"], c["keep"], c["window"], c["size"], c["seed"])
    real, w = b.real.ravel() > 0, c["window"]
    words, units = b.centres.ravel()[real].tolist(), b.units.ravel()[real].tolist()
    ends = np.cumsum(c["ids"] == END)
    left = iter([(n, u) for n, u in zip(c["ids"].tolist(), ends.tolist(), strict=True) if n != END])
    found = all(pair in left for pair in zip(words, units, strict=True))
    measure.holds(found, f"{words} of the units {units} are not what {c['ids'].tolist()} has")
    sure = [n for n in c["ids"].tolist() if n != END and c["keep"][n] == 1]
    measure.holds([n for n in words if c["keep"][n] == 1] == sure, f"words that always stay are gone: {words}")
    around = [0] * w + words + [0] * (w + b.real.size - len(words))
    for k in range(len(b)):
        given = b.contexts[k].tolist()
        measure.holds(given == around[k * c["size"] : (k + 1) * c["size"] + 2 * w], f"block {k} has contexts {given}")


@law("blocks", "rates", serves=("eq:subsampling", "eq:window"), cases=MANY, share=0.3)
def rates(f: F, c: Case, measure: Measure) -> None:
    """Occurrences stay at the rate that their word has, and a window reaches each distance as often as any other."""
    b = f(c["ids"], c["keep"], c["window"], c["size"], c["seed"])
    left = np.bincount(b.centres.ravel()[b.real.ravel() > 0], minlength=5)
    for word, p in enumerate(c["keep"].tolist()):
        n = int(np.count_nonzero(c["ids"] == word))
        close = abs(left[word] - n * p) <= SIGMAS * math.sqrt(n * p * (1 - p)) + 1e-9
        measure.holds(close, f"of {n} occurrences {left[word]} stayed, at a rate of {p}")
    w, size = c["window"], c["size"]
    centre = np.arange(size)
    reach = [b.near[:, centre + w - d, centre].sum() for d in range(1, w + 1)]
    first = float(reach[0])
    for d in range(2, w + 1):  # a little less at the ends of units
        p = (w - d + 1) / w
        slack = SIGMAS * math.sqrt(first * p * (1 - p)) + 25.0 * d
        measure.holds(abs(reach[d - 1] - first * p) <= slack, f"{reach[d - 1]} of {first} reach {d} of {w}")
    measure.holds(first > 0, "no window holds a word")


@mutant(
    "blocks", "thinned twice", kills="rates", met="plausible: thinned out in the corpus, and once more in the batch"
)
def thinned_twice(ids: Any, keep: Any, window: int, size: int, seed: int) -> Any:
    return our_blocks(ids, keep**2, window, size, seed)


@mutant("blocks", "never shortened", kills="rates", met="plausible: all windows of full length")
def never_shortened(ids: Any, keep: Any, window: int, size: int, seed: int) -> Any:
    return blocks(ids, keep, window, size, Key.of(seed).generator(), shrink=False)


@mutant("blocks", "rest dropped", kills="words", met="plausible: drop_last")
def rest_dropped(ids: Any, keep: Any, window: int, size: int, seed: int) -> Any:
    found = our_blocks(ids, keep, window, size, seed)
    return found[:-1] if len(found) else found


# Noise

kind("noise", "noise(counts, power)", "Counts of words (V,) -> the probability of each to be drawn.")
kind("noise-draws", "noise_draws(counts, power, number)", "So many drawn words: how often each came (V,).")


@subject("noise", "Noise.probabilities", code=Noise, equation="eq:noise")
def our_noise(counts: Any, power: float) -> Any:
    return Noise(counts, power).probabilities


@subject("noise-draws", "Noise.draw", code=Noise, equation="eq:noise")
def our_draws(counts: Any, power: float, number: int) -> Any:
    drawn = Noise(counts, power).draw(Key.of(1).generator(), (number,))
    return np.bincount(drawn, minlength=len(counts))


def frequencies(r: Numbers, *, words: int, top: int, power: float) -> Case:
    """Counts, and a power."""
    return {"counts": counts(r, words=words, top=top), "power": power}


FREQUENCIES = cases(frequencies, words=(2, 1, 5, 30), top=(10, 1, 1000), power=(0.75, 0.0, 1.0))


@law("noise", "definition", serves="eq:noise", cases=FREQUENCIES)
def noise_definition(f: F, c: Case, measure: Measure) -> None:
    """Probabilities are proportional to the counts to the power, and sum to 1."""
    weights = c["counts"] ** c["power"]
    found = np.asarray(f(c["counts"], c["power"]))
    measure.close(found, weights / weights.sum(), bound(1.0, len(weights)), "a probability")
    measure.close(found.sum(), 1.0, bound(1.0, len(weights)), "their sum")


@law("noise-draws", "frequencies", serves="eq:noise", cases=FREQUENCIES)
def noise_frequencies(f: F, c: Case, measure: Measure) -> None:
    """Of 4,000 drawn words, each comes as often as its probability says, within six standard deviations."""
    n, weights = 4000, c["counts"] ** c["power"]
    p = weights / weights.sum()
    found = np.asarray(f(c["counts"], c["power"], n))
    measure.holds(int(found.sum()) == n, f"{int(found.sum())} words were drawn")
    far = np.abs(found - n * p) - SIGMAS * np.sqrt(n * p * (1 - p)) - 1.0
    measure.holds(np.all(far <= 0), f"the words came {found!r} times, expected {n * p!r}")


@mutant("noise", "not flattened", kills="definition", met="plausible: the unigram distribution itself")
def not_flattened(counts: Any, power: float) -> Any:
    return counts / counts.sum()


@mutant("noise", "flattened late", kills="definition", met="plausible: shares to the power, not summed to 1 anew")
def flattened_late(counts: Any, power: float) -> Any:
    return (counts / counts.sum()) ** power


@mutant("noise-draws", "shifted", kills="frequencies", met="plausible: one place beside in the cumulative table")
def shifted(counts: Any, power: float, number: int) -> Any:
    return np.roll(our_draws(counts, power, number), 1)


@mutant("noise-draws", "alike", kills="frequencies", met="plausible: randint(V) for the noise")
def alike(counts: Any, power: float, number: int) -> Any:
    return np.bincount(Key.of(1).generator().integers(0, len(counts), number), minlength=len(counts))
