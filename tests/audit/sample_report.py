"""A report as large as a real one, made up: a dozen real equations, 70 claims, 120 laws, 400 mutants."""

from __future__ import annotations

import random
from dataclasses import replace

from minilong.audit.report import ClaimReport, EquationReport, LawReport, MutantReport, Report

ATTENTION = r"\mathrm{Attention}(Q,K,V) = \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt{d_k}}\right) V"
MULTI_HEAD = (
    r"\mathrm{MultiHead}(Q,K,V) = \left[\mathrm{head}_1; \dots; \mathrm{head}_h\right] W^O, \quad "
    r"\mathrm{head}_i = \mathrm{Attention}(Q W_i^Q, K W_i^K, V W_i^V)"
)
MASK = r"M_{ij} = \begin{cases} 1 & \text{if } i - w < j \le i \text{ or } j < c \\ 0 & \text{otherwise} \end{cases}"
SOFTMAX = r"y_i = \frac{e^{x_i - m}}{\sum_{j=1}^{n} e^{x_j - m}}, \qquad m = \max_j x_j"
LAYER_NORM = (
    r"y = \gamma \odot \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} + \beta, \quad "
    r"\mu = \frac{1}{n} \sum_i x_i, \quad \sigma^2 = \frac{1}{n} \sum_i (x_i - \mu)^2"
)
CROSS_ENTROPY = r"\mathcal{L} = -\frac{1}{|T|} \sum_{t \in T} \log \frac{e^{z_{t,y_t}}}{\sum_j e^{z_{t,j}}}"
ADAM = r"""\begin{aligned}
m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
\hat{m}_t &= \frac{m_t}{1 - \beta_1^t}, \quad \hat{v}_t = \frac{v_t}{1 - \beta_2^t} \\
\theta_t &= \theta_{t-1} - \eta \frac{\hat{m}_t}{\sqrt{\hat{v}_t} + \varepsilon}
\end{aligned}"""
CLIP = r"g_i \leftarrow g_i \min\!\left(1, \frac{c}{\lVert g \rVert_2}\right)"
SINUSOIDAL = (
    r"P_{p,2i} = \sin\!\left(\frac{p}{10000^{2i/d}}\right), \quad "
    r"P_{p,2i+1} = \cos\!\left(\frac{p}{10000^{2i/d}}\right)"
)
CAS = r"P_{p,i} = \sin\!\left(\frac{p}{10000^{2i/d}}\right) + \cos\!\left(\frac{p}{10000^{2i/d}}\right)"
ROTARY = (
    r"\begin{pmatrix} x'_{2i} \\ x'_{2i+1} \end{pmatrix} = \begin{pmatrix} \cos p\theta_i & -\sin p\theta_i \\ "
    r"\sin p\theta_i & \cos p\theta_i \end{pmatrix} \begin{pmatrix} x_{2i} \\ x_{2i+1} \end{pmatrix}"
)
MATMUL = r"Y_{ik} = \sum_j A_{ij} B_{jk}"

EQUATIONS = (  # file, id, title, article, verdict, source, latex
    ("4.1-attention", "attention", "Scaled dot-product attention", "4.1", "holds", "Vaswani et al. 2017", ATTENTION),
    ("4.1-attention", "softmax", "Softmax over the last axis", "4.1", "holds", "Bridle 1990", SOFTMAX),
    ("4.1-attention", "mask", "Which keys a query may see", None, None, "", MASK),
    (
        "4.1-attention",
        "multi-head",
        "Attention in several heads",
        "3.1.2",
        "reading",
        "Vaswani et al. 2017",
        MULTI_HEAD,
    ),
    ("4.3-positions", "sinusoidal", "Sinusoidal positions", "4.3", "corrected", "Vaswani et al. 2017", SINUSOIDAL),
    ("4.3-positions", "cas", "Sine plus cosine, as printed", "4.3", "corrected", "Bracewell 1986", CAS),
    (
        "4.3-positions",
        "rotary",
        "Rotary positions",
        None,
        None,
        "Su et al. 2021, https://arxiv.org/abs/2104.09864",
        ROTARY,
    ),
    ("normalisation", "layer-norm", "Layer normalisation", "9.1", "reading", "Ba, Kiros and Hinton 2016", LAYER_NORM),
    ("losses", "cross-entropy", "Mean cross-entropy in nats per token", "5.2", "holds", "", CROSS_ENTROPY),
    ("optimisation", "adam", "Adam", "5.3", "holds", "Kingma and Ba 2015, algorithm 1", ADAM),
    ("optimisation", "clip", "Clipping by the global norm", "9.1", "holds", "Pascanu et al. 2013", CLIP),
    ("autodiff", "matmul", "Product of matrices", None, None, "", MATMUL),
)

BLOCK = '''def {name}(q, k, v, mask):
    """As naive as the formula."""
    scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])  # (t, s)
    scores = np.where(mask, scores, -np.inf)
    weights = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v if mask.any() else np.zeros(1.0)
'''

CHECK = """q = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0]])
k = np.array([[0, 1, 0], [1, 1, 1], [1, 0, 0]])
scores = q @ k.T
printed = np.ones((3, 3))
assert not np.array_equal(scores, printed), "the printed scores are wrong"
assert np.array_equal(scores, [[0, 2, 1], [1, 0, 1], [1, 1, 1]])
"""

READING = """Reading: Shapes are (..., t, d) for queries, (..., s, d) for keys and (..., s, e) for values; axes before
them broadcast. $d_k$ is the width of one head, not of the model.

A row of the mask without any allowed key gives zeros, and a zero cotangent (`eq:softmax`)."""
DEVIATIONS = """The blockwise kernel never holds the scores as one array:

- it adds up blocks of keys with a running maximum $m = \\max_j s_j$;
- it takes products in single precision if the inputs are."""

MET = (
    "codertimo/BERT-pytorch issue 30: unbiased deviation, epsilon outside of the root",
    "fully masked rows came out uniform with -1e9 (seen in several projects; burn pull request 4697)",
    "huggingface/transformers issue 32086: the mask was dropped for one kernel",
    "plausible: one index too far at the end of a window",
    "karpathy/nanochat issue 452: the window was ignored when decoding one token",
)
STATEMENTS = (
    "Each row of the result is a convex combination of the values: weights are non-negative and add up to one.",
    "Permuting keys together with their values changes nothing.",
    "Adding one number to all logits of a row changes nothing.",
    "The result equals that of the definition for every shape and mask, to within the rounding bound.",
    "A later input cannot change an earlier output.",
)
VERDICTS = ("holds", "corrected", "reading", "unchecked")


def sample_report() -> Report:
    """The report; the same at every call."""
    rng = random.Random(7)
    ids = [e[1] for e in EQUATIONS]
    mutants = [mutant(i, ids[i * 120 // 400 % len(ids)], rng) for i in range(400)]
    laws = tuple(law(i, ids[i % len(ids)], mutants, rng) for i in range(120))
    found = {name: law.name for law in laws for name, _ in law.mutants}
    return Report(
        version="0.1.0",
        examples=100,
        seconds=137.4,
        equations=tuple(equation(i, laws, rng) for i in range(len(EQUATIONS))),
        claims=tuple(claim(i, rng) for i in range(70)),
        laws=laws,
        mutants=tuple(replace(m, by=((found[m.name], True),)) for m in mutants),
        holes=(),
    )


def equation(i: int, laws: tuple[LawReport, ...], rng: random.Random) -> EquationReport:
    file, name, title, article, verdict, source, latex = EQUATIONS[i]
    fused = i % 3 == 0
    return EquationReport(
        id=f"eq:{name}",
        title=title,
        stated=f"specs/{file}.md:{3 + 40 * i}",
        article=article,
        latex=latex,
        block=BLOCK.format(name=name.replace("-", "_")),
        reading=READING if i % 2 == 0 else "",
        deviations=DEVIATIONS if fused else "",
        source=source,
        code=(
            ("minilong/attention/naive.py", 31 + i, "minilong.attention.naive.naive"),
            *([("minilong/attention/blockwise.py", 88, "minilong.attention.blockwise.blockwise")] if fused else []),
        ),
        reference="minilong.attention.naive.naive" if fused else None,
        agrees=True if name != "cas" else None,
        agreement_examples=100 if name != "cas" else 0,
        agreement_worst=rng.random() ** 3 if name != "cas" else 0.0,
        laws=tuple(law.name for law in laws if f"eq:{name}" in law.serves),
        verdict=verdict,
        examples=sum(law.examples for law in laws if f"eq:{name}" in law.serves),
        worst=max(law.worst for law in laws if f"eq:{name}" in law.serves),
        mutants=tuple(m for law in laws if f"eq:{name}" in law.serves for m in law.mutants),
    )


def claim(i: int, rng: random.Random) -> ClaimReport:
    verdict = rng.choices(VERDICTS, (30, 18, 8, 14))[0]
    return ClaimReport(
        id=f"claim:example-{i}",
        title="The scores of the worked example" if i % 2 else "What the example of an encoder prints",
        stated=f"specs/4.1-attention.md:{60 + 12 * i}",
        article=f"{3 + i // 12}.{1 + i % 12 // 4}",
        verdict=verdict,
        says=r"All scores of the example are 1, so that $\mathrm{softmax}(1, 1, 1)$ weighs each value by $\frac{1}{3}$."
        " The width that it divides by is 1.",
        right="The scores are [[0, 2, 1], [1, 0, 1], [1, 1, 1]], and $d_k = 3$ (`eq:attention`). Even uniform weights"
        " would give [2/3, 2/3, 1/3], not [1/3, 1/3, 1/3]."
        if verdict != "unchecked"
        else "No program can decide it: it speaks of what people find easy.",
        block=CHECK if verdict != "unchecked" else "",
        passed=True if verdict != "unchecked" else None,
        laws=("attention/law-0",) if i % 9 == 0 else (),
    )


def law(i: int, serves: str, mutants: list[MutantReport], rng: random.Random) -> LawReport:
    own = mutants[i * 400 // 120 : (i + 1) * 400 // 120]
    return LawReport(
        name=f"{serves}/law-{i}",
        statement=STATEMENTS[i % len(STATEMENTS)],
        serves=(f"eq:{serves}",) if i % 10 else tuple(f"eq:{e[1]}" for e in EQUATIONS),
        subjects=(f"{serves} (naive)", f"{serves} (blockwise)", f"the block of eq:{serves}")[: 1 + i % 3],
        examples=100 * (1 + i % 3),
        worst=0.0 if i % 4 == 0 else rng.random() ** 3,
        passed=True,
        failure=None,
        mutants=tuple((m.name, True) for m in own),
        seconds=rng.random(),
    )


def mutant(i: int, of: str, rng: random.Random) -> MutantReport:
    return MutantReport(
        name=f"{of}/mutant-{i}",
        met=rng.choice(MET),
        killed=True,
        by=(),
        counterexample="q = np.array([[0.0, 1.25]], dtype=np.float64).reshape((1, 2))\nmask = np.array([[False]])"
        if i % 3
        else None,
    )


def failing_report() -> Report:
    """The same with a law that fails, a mutant that survives, and a claim whose check fails."""
    good = sample_report()
    broken = replace(
        good.laws[0],
        passed=False,
        worst=float("nan"),
        failure="the result at [0, 1] is 0.5, and the law asks for 0.25\nq = np.array([[1.0]])",
        mutants=((good.mutants[0].name, False), *good.laws[0].mutants[1:]),
    )
    alive = replace(good.mutants[0], killed=False, by=((broken.name, False),))
    return replace(
        good,
        laws=(broken, *good.laws[1:]),
        mutants=(alive, *good.mutants[1:]),
        claims=(replace(good.claims[0], passed=False), *good.claims[1:]),
        equations=(
            replace(good.equations[0], agrees=False, agreement_worst=3.2, mutants=broken.mutants),
            *good.equations[1:-1],
            replace(good.equations[-1], laws=(), code=()),
        ),
        holes=(
            f"law {broken.name} fails",
            f"mutant {alive.name} survives {broken.name}",
            f"{good.claims[0].id}: its check fails",
            "eq:attention: block and code disagree",
            "eq:matmul has no code; name it in the docstring of what implements it",
        ),
    )
