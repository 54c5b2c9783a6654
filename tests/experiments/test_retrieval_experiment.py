"""The retrieval experiment: fair searches in text that nothing has read, and findings that follow the numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minilong.data.corpora import read_text
from minilong.embeddings.search import Retrieved, ranks
from minilong.errors import UserError
from minilong.experiments import retrieval as ex
from minilong.experiments.retrieval_report import REPORT
from minilong.experiments.retrieval_tasks import Search, halved, passages, searches

TINY = replace(ex.QUICK, steps=1)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The beginning of a novel."""
    path = tmp_path_factory.mktemp("retrieval") / "book.txt"
    path.write_text(read_text("persuasion")[:80_000])
    return str(path)


def computed(method: str, book: str) -> dict[str, Any]:
    (cell,) = [c for c in ex.cells([book], TINY, 1) if c.settings["method"] == method]
    return ex.compute(dict(cell.settings), lambda share: None)


def test_passages_are_whole_sentences_one_after_another() -> None:
    text = "One two. Three four five!  Six\nseven. Eight nine ten eleven. Twelve."
    assert passages(text, 5) == ["One two. Three four five!", "Six seven. Eight nine ten eleven."]
    assert list(halved([text], 4)) == [("Eight nine", "ten eleven.")]
    pytest.importorskip("jieba")
    assert list(halved(["周末七国分争，并入于秦。"], 3)) == [("周末七国分争，", "并入于秦。")]


def test_the_next_passage_is_of_the_same_text() -> None:
    found = searches(["A b. C d. E f.", "G h. I j."], 2, 100)["next"]
    assert found.candidates == ("A b.", "C d.", "E f.", "G h.", "I j.")
    assert found.queries == ("A b.", "C d.", "G h.")
    assert found.right.tolist() == [1, 2, 4]
    assert found.own is not None
    assert found.own.tolist() == [0, 1, 3]
    assert len(searches(["A b. C d. E f."], 2, 2)["next"].queries) == 1


def test_nothing_that_is_searched_is_learnt() -> None:
    (learnt,), (held_out,) = ex.parts(["a b c. " * 100 + "d e f. " * 20])
    assert learnt + held_out == "a b c. " * 100 + "d e f. " * 20
    config = ex.encoder_config("roberta", ["persuasion"], TINY, 3)
    assert (config.data.validation, config.train.seed, config.train.steps) == (ex.HELD_OUT, 3, 1)
    assert config.model == ex.layered(preset="roberta").model
    assert ex.encoder_config("roberta", ["persuasion"], ex.Sizes(), 1).train.steps > 100


def test_who_knows_the_answer_finds_it_and_who_knows_nothing_is_at_chance() -> None:
    asked = Search(("a", "b", "c"), ("A", "B", "C", "D"), np.arange(3), None)

    def knows(texts: Any) -> np.ndarray:
        return np.eye(4)[["abcd".index(text.lower()) for text in texts]]

    assert Retrieved.of(ex.places(knows, asked)) == Retrieved(1, 1, 1)
    nothing = ex.places(lambda texts: np.zeros((len(texts), 2)), asked)
    assert nothing.tolist() == [2.5] * 3
    many = ranks(np.random.default_rng(0).random((4000, 20)), np.zeros(4000, int))
    chance, drawn = Retrieved.by_chance(20), Retrieved.of(many)
    assert (chance.at_1, chance.at_10) == (0.05, 0.5)
    assert (drawn.at_1, drawn.at_10, drawn.reciprocal) == pytest.approx(tuple(vars(chance).values()), abs=0.03)


def test_tf_idf_by_hand() -> None:
    found = ex.tf_idf(["cat cat dog", "dog", "bird dog", ""])
    assert found.shape == (4, 3)
    weights = np.array([(1 + np.log(2)) * np.log(4), np.log(4 / 3), 0])
    assert found[0] == pytest.approx(weights / np.linalg.norm(weights), abs=1e-6)
    assert found[1] == pytest.approx([0, 1, 0])
    assert not found[3].any()


@pytest.mark.parametrize("method", ["tf-idf", "glove", "doc2vec", "roberta"])
def test_each_method_is_measured(method: str, book: str) -> None:
    if method == "roberta":
        pytest.importorskip("tokenizers")
    result = computed(method, book)
    assert result["counts"]["half"] == [60, 60]
    assert result["counts"]["next"] == [59, 60]
    assert result["chance"]["half"]["at_10"] == pytest.approx(1 / 6, abs=1e-5)
    for tasks in result["variants"].values():
        for measures in tasks.values():
            assert 0 <= measures["at_1"] <= measures["at_10"] <= 1
            assert measures["at_1"] <= measures["reciprocal"] <= 1
    wanted = {"tf-idf": 1, "glove": 4, "doc2vec": 2, "roberta": 6}
    assert len(result["variants"]) == wanted[method]
    if method == "tf-idf":
        assert result["variants"]["words"]["next"]["reciprocal"] > result["chance"]["next"]["reciprocal"]


def test_cells_and_their_texts(book: str) -> None:
    found = ex.cells([book], TINY, 2, ["/runs/one"])
    assert len({cell.file for cell in found}) == len(found) == 2 * 6 + 2
    with pytest.raises(UserError, match="the text has changed"):
        ex.compute({**found[0].settings, "digest": "0"}, lambda share: None)
    with pytest.raises(UserError, match="has 4 queries of 'next'; give more text"):
        ex.cells([book], replace(TINY, most=5), 1)


def made(**reciprocals: float) -> dict[str, Any]:
    """Results in which some ways, `method_variant`, have such means of 1 / place, and others 0.2; two seeds."""
    ways = {"mlm": ("first", "mean"), "roberta": ("first", "mean", "untrained mean"), "glove": ("mean", "SIF")}
    cells = []
    for method, variants in {**ways, "tf-idf": ("words",)}.items():
        found = {
            variant: {
                task: {"at_1": 0.1, "at_10": 0.5, "reciprocal": reciprocals.get(f"{method}_{variant}", 0.2)}
                for task in ("next", "half")
            }
            for variant in variants
        }
        chance = {task: {"at_1": 0.01, "at_10": 0.1, "reciprocal": 0.05} for task in ("next", "half")}
        result = {"variants": found, "chance": chance, "counts": {"next": [9, 10], "half": [10, 10]}}
        cells += [{"settings": {"method": method}, "result": result}] * 2
    return {"settings": {"quick": True}, "cells": cells}


def test_findings_follow_the_numbers(tmp_path: Any) -> None:
    good = made(mlm_first=0.1, roberta_mean=0.4)
    said = REPORT.findings(good)
    assert [line.split(":")[0] for line in said] == [
        "reproduced",
        "reproduced",
        "next",
        "reproduced",
        "reproduced",
        "half",
    ]
    assert said[2] == (
        "next: the best pooling of RoBERTa has 0.400, of GloVe 0.200, of TF-IDF 0.200; the best of all is roberta "
        "(mean) with 0.400"
    )
    said = REPORT.findings(
        made(mlm_first=0.3, roberta_first=0.3, **{"roberta_untrained mean": 0.9, "tf-idf_words": 0.8})
    )
    assert [line.startswith("not reproduced") for line in said[:2]] == [True, True]
    assert "of RoBERTa has 0.300" in said[2]
    first = REPORT.tables(good)[0]
    assert list(first.rows[0]) == ["roberta", "mean", "0.100", "0.500", "0.400"]
    assert list(first.rows[-1]) == ["chance", "", "0.010", "0.100", "0.050"]
    pytest.importorskip("matplotlib")
    files = REPORT.write(tmp_path, good)
    assert [f.name for f in files] == ["tables.md", "retrieval.png"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
