"""GloVe as its paper states it, one pair after another in double precision.

A loop in C, since one in Python would take hours. The compiler is found as `cc`.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path

import click
import numpy as np

from minilong.embeddings.cooccurrence import Cooccurrence

SOURCE = """
#include <math.h>
/* words, contexts: (V, d + 1), the bias last; squares start at 1. Pennington, Socher and Manning 2014, equation 8. */
void epoch(long n, const long *order, const long *i, const long *j, const double *x, long d, double lr, double most,
           double power, double *words, double *contexts, double *word_squares, double *context_squares) {
    for (long k = 0; k < n; k++) {
        long p = order[k];
        double *w = words + i[p] * (d + 1), *c = contexts + j[p] * (d + 1);
        double *ws = word_squares + i[p] * (d + 1), *cs = context_squares + j[p] * (d + 1);
        double miss = w[d] + c[d] - log(x[p]);
        for (long a = 0; a < d; a++) miss += w[a] * c[a];
        double pull = miss * (x[p] < most ? pow(x[p] / most, power) : 1.0);
        for (long a = 0; a <= d; a++) {
            double gw = pull * (a < d ? c[a] : 1.0), gc = pull * (a < d ? w[a] : 1.0);
            w[a] -= lr * gw / sqrt(ws[a]);
            c[a] -= lr * gc / sqrt(cs[a]);
            ws[a] += gw * gw;
            cs[a] += gc * gc;
        }
    }
}
"""


def reference(counts: Cooccurrence, width: int, epochs: int, seed: int) -> np.ndarray:
    """Vectors (V, width) float64, the sums of both tables; lr 0.05, weights up to 100 with the power 3/4."""
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder) / "glove.c", Path(folder) / "glove.so"
        source.write_text(SOURCE)
        try:
            subprocess.run(
                ["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", built, source, "-lm"],
                check=True, capture_output=True,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError) as error:
            raise click.ClickException(f"the reference cannot be compiled ({error}); install a C compiler") from None
        run = ctypes.CDLL(str(built)).epoch
    rows, columns, values = counts.part(slice(None))
    mirror = np.flatnonzero(rows != columns)
    i = np.concatenate([rows, columns[mirror]]).astype(np.int64)
    j = np.concatenate([columns, rows[mirror]]).astype(np.int64)
    x = np.concatenate([values, values[mirror]])
    rng = np.random.default_rng(seed)
    words, contexts = ((rng.random((counts.size, width + 1)) - 0.5) / (width + 1) for _ in range(2))
    squares = [np.ones_like(words), np.ones_like(words)]
    for _ in range(epochs):
        order = rng.permutation(x.size)
        run(
            ctypes.c_long(x.size), *(a.ctypes.data_as(ctypes.c_void_p) for a in (order, i, j, x)), ctypes.c_long(width),
            *map(ctypes.c_double, (0.05, 100.0, 0.75)),
            *(a.ctypes.data_as(ctypes.c_void_p) for a in (words, contexts, *squares)),
        )  # fmt: skip
    vectors: np.ndarray = words[:, :-1] + contexts[:, :-1]
    return vectors
