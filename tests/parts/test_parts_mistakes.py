"""What someone who brings a part gets wrong, and the one line that each mistake is answered with."""

from pathlib import Path
import shutil

import pytest

import raytricks
from raytricks.config import load_config
from raytricks.errors import ConfigError

BROUGHT = Path(__file__).with_name("brought.py")
ROW = "\nP = Part(kind='trick', name='p', title='p', source='-', settings=S, on={'a': 1.0}, off={'a': 0.0}, code="
HEAD = """from raytricks.parts import Hooks, Part, Section
class S(Section):
    a: float = 0.0
"""


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    folder = tmp_path / "conf"
    folder.mkdir()
    shutil.copy(BROUGHT, folder / "sharpen.py")
    monkeypatch.chdir(tmp_path)
    return folder


def answer(bench: Path, config: str, parts: str | None = None) -> str:
    """Return the one line that a config is refused with."""
    if parts is not None:
        (bench / "sharpen.py").write_text(parts)
    (bench / "x.yaml").write_text(config)
    with pytest.raises(ConfigError) as refused:
        load_config("conf/x.yaml")
    (line,) = refused.value.problems
    return line


PARTS = "seed: 1\nparts:\n  sharpen: sharpen.py:SHARPEN\n"


def test_setting_of_a_part_that_is_misspelt(bench):
    line = answer(bench, PARTS + "tricks:\n  sharpn.amount: 0.5\n")
    assert line.startswith("conf/x.yaml:5: ") and "tricks.sharpn.amount" in line
    assert "did you mean tricks.sharpen.amount?" in line


def test_setting_of_a_part_beyond_its_range(bench):
    line = answer(bench, PARTS + "tricks:\n  sharpen.amount: 3\n")
    assert line == "conf/x.yaml:5: tricks.sharpen.amount: must be <= 2, got 3"


def test_file_that_is_not_there(bench):
    line = answer(bench, "seed: 1\nparts:\n  sharpen: sharpn.py:SHARPEN\n")
    assert line == "conf/x.yaml:3: parts.sharpen: no file conf/sharpn.py; paths start at the config"


def test_name_that_is_not_in_the_file(bench):
    line = answer(bench, "seed: 1\nparts:\n  sharpen: sharpen.py:SHARPN\n")
    assert line == "conf/x.yaml:3: parts.sharpen: no SHARPN in sharpen.py; did you mean sharpen or SHARPEN?"


def test_package_that_is_not_installed(bench):
    line = answer(bench, PARTS, "import math\nimport kornia_of_someone\n")
    assert line == "conf/x.yaml:3: parts.sharpen: sharpen.py:2 needs kornia_of_someone, not installed"
    line = answer(bench, "parts: {sharpen: 'kornia_of_someone.parts:SHARPEN'}\n")
    assert line.endswith("parts.sharpen: no module kornia_of_someone; install it, or write FILE.py:NAME")


def test_name_that_is_built_in(bench):
    line = answer(bench, "seed: 1\nparts:\n  mixup: sharpen.py:SHARPEN\n")
    assert line == "conf/x.yaml:3: parts.mixup: built in; choose another name"


def test_slot_that_there_is_not(bench):
    line = answer(bench, PARTS, HEAD + "def f(images): return images" + ROW + "Hooks(pixls=f))\nSHARPEN = P\n")
    assert line == "conf/x.yaml:3: parts.sharpen: sharpen.py:5: Hooks has no slot pixls; did you mean pixels?"


def test_argument_that_a_slot_does_not_offer(bench):
    line = answer(bench, PARTS, HEAD + "def f(images, rng): return images" + ROW + "Hooks(pixels=f))\nSHARPEN = P\n")
    assert line == "conf/x.yaml:3: parts.sharpen: sharpen.py:4: pixels takes (images, draws, settings), got rng"


def test_arguments_that_are_hidden(bench):
    line = answer(bench, PARTS, HEAD + "def f(images, **kw): return images" + ROW + "Hooks(pixels=f))\nSHARPEN = P\n")
    assert line.startswith("conf/x.yaml:3: parts.sharpen: sharpen.py:4: **kw hides typing mistakes; name ")
    (bench / "net.py").write_text("def net(num_classes, **options): ...\n")
    line = answer(bench, "model.name: net.py:net\n")
    assert line.endswith("net.py:1: **options hides typing mistakes; name each setting")


def test_parameter_without_a_type(bench):
    line = answer(bench, "model.name: sharpen.py:net\n", "def net(num_classes, depth): ...\n")
    assert line.endswith("sharpen.py:1: depth has neither a type nor a default; give it one")


def test_setting_that_a_callable_does_not_take(bench):
    line = answer(bench, "model:\n  name: sharpen.py:tiny\n  widht: 3\n")
    assert line == "conf/x.yaml:3: unknown key model.widht; did you mean model.width?"
    line = answer(bench, "optimizer:\n  name: torch.optim:AdamW\n  epsilon: 0.1\n")
    assert line.startswith("conf/x.yaml:3: ") and "optimizer.epsilon" in line


def test_mistake_in_the_file_itself(bench):
    line = answer(bench, PARTS, "x = 1\ny = x / 0\n")
    assert line == "conf/x.yaml:3: parts.sharpen: sharpen.py:2: ZeroDivisionError: division by zero"
    (bench / "other.py").write_text("def f(:\n")
    line = answer(bench, "parts: {f: other.py:F}\n")
    assert line.startswith("conf/x.yaml:1: parts.f: other.py:1 is no Python: ")


def test_function_where_a_row_is_wanted(bench):
    line = answer(bench, "seed: 1\nparts:\n  net: sharpen.py:tiny\n")
    assert line.startswith("conf/x.yaml:3: parts.net: tiny is a function, not a Part; name it directly")


def test_module_of_pythons_own(bench):
    line = answer(bench, "model.name: os:system\n")
    assert line.endswith("model.name: os is Python's own module, no part of it is a part of raytricks")


def test_library_model_that_is_misspelt_is_still_a_model(bench):
    with pytest.raises(ConfigError, match="unknown model 'torchvison:resnet50'"):
        raytricks.train(None, {"data.source": "digits", "model.name": "torchvison:resnet50"})


def test_parts_cannot_be_searched_or_changed(bench):
    assert "parts" in answer(bench, "tune: {space: {parts.sharpen: [a, b]}}\n")
    line = answer(bench, PARTS + "changes: [{epoch: 1, values: {parts.sharpen: other.py:X}}]\n")
    assert "parts.sharpen" in line


SMALL = {"data.source": "digits", "model.name": "resnet8", "model.width": 8, "recipe.epochs": 1}
SMALL |= {"tricks.warmup.epochs": 0.0, "logging.tensorboard": False, "output_dir": "runs"}


def run_with(bench: Path, code: str, settings: dict) -> str:
    """Return the line that a run ends with."""
    (bench / "mine.py").write_text(code)
    with pytest.raises(ConfigError) as refused:
        raytricks.train(None, SMALL | settings)
    return str(refused.value)


def test_loss_that_is_a_mean(bench):
    code = "import torch\ndef loss(logits, targets): return torch.nn.functional.cross_entropy(logits, targets)\n"
    line = run_with(bench, code, {"loss.name": "conf/mine.py:loss"})
    assert line.endswith("mine.py:loss: got () for 256 images; return (n,)")


def test_model_of_another_number_of_classes(bench):
    code = "from torch import nn\ndef net(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))\n"
    line = run_with(bench, code, {"model.name": "conf/mine.py:net"})
    assert line.endswith("mine.py:net gave (2, 7) for 2 images of 10 classes; return (N, K)")


def test_model_that_is_no_module(bench):
    line = run_with(bench, "def net(num_classes): return 3\n", {"model.name": "conf/mine.py:net"})
    assert line.endswith("mine.py:net returned a int; return a torch.nn.Module")


def test_dataset_of_floats(bench):
    code = "import torch\ndef data(): return [(torch.zeros(3, 8, 8), i % 2) for i in range(20)]\n"
    (bench / "mine.py").write_text(code)
    with pytest.raises(raytricks.errors.DataError, match="got a float32 array; return a PIL image or uint8 pixels"):
        raytricks.train(None, SMALL | {"data.source": "conf/mine.py:data"})
