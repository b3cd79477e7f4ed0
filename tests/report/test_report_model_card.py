"""The card of a run is markdown whatever its classes are called, and YAML that others read."""

from pathlib import Path
import re

import numpy as np
import pytest
import yaml

from raytricks.inference.evaluation import evaluation_of
from raytricks.report.model_card import write_model_card
from raytricks.report.run_of_page import RunOfPage

NAMES = ("a|b", "<script>x</script>", "two\nlines", "*bold* `code`")


@pytest.fixture
def card(tmp_path) -> str:
    labels = np.arange(60) % 3
    logits = np.eye(4, dtype=np.float32)[(labels + 1) % 3] * 2
    told = {"model": "m", "data": "/home/me/secret/photos: val", "notes": ("no image of <b>: undefined",)}
    found = evaluation_of(logits, labels, NAMES, temperature=1.1, cross_entropy=1.0, **told)
    settings = {"model.name": "x: y # z", "tricks.mixup.alpha": 0.2, "recipe.note": "```\n# no heading", "name": "n"}
    facts = {"launches": [{"versions": {"raytricks": "9.8.7"}}], "data": {"num_train": 1234}}
    write_model_card(RunOfPage(Path("/r/my run"), settings, facts, [], found), tmp_path / "card.md")
    return (tmp_path / "card.md").read_text()


def test_card_shows_names_as_they_are(card):
    assert "<script>" not in card and "&lt;script&gt;x&lt;/script&gt;" in card
    rows = [line for line in card.splitlines() if line.startswith("| ") and "%" in line]
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (3, 5) for line in rows)
    assert r"| a\|b |" in card and "| two lines |" in card and r"\*bold\* \`code\`" in card


def test_card_has_the_recipe_the_version_and_the_data(card):
    fence, recipe = re.findall(r"^(`{3,})yaml\n(.*?)^\1$", card, re.M | re.S)[0]
    assert len(fence) > 3
    assert yaml.safe_load(recipe) == {
        "model.name": "x: y # z",
        "recipe.note": "```\n# no heading",
        "tricks.mixup.alpha": 0.2,
    }
    assert "trained with raytricks 9.8.7." in card and "trained on 1,234 images" in card
    assert "no image of &lt;b&gt;: undefined" in card


def test_card_names_the_data_without_the_folders_above_it(card):
    told = yaml.safe_load(card.split("---\n")[1])
    assert told["model-index"][0]["results"][0]["dataset"] == {"type": "photos", "name": "photos: val"}
    assert "/home/me" not in card


def test_card_is_one_of_huggingface_hub(card):
    hub = pytest.importorskip("huggingface_hub")
    found = hub.ModelCard(card).data
    assert found.library_name == "raytricks" and found.pipeline_tag == "image-classification"
    assert {(result.metric_type, result.dataset_name) for result in found.eval_results} == {
        ("accuracy", "photos: val"),
        ("f1", "photos: val"),
    }


def test_card_of_a_run_without_answers_says_so(tmp_path):
    write_model_card(RunOfPage(tmp_path, {}, {}, [], absence="it keeps no answers"), tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    assert "Not evaluated: it keeps no answers." in text and "classes above" not in text
