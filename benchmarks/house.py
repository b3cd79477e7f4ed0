"""The house in figures: files, lines, imports in functions, circles, and frames from `raytricks.train` to the update.

    python benchmarks/house.py              the tree that this file stands in
    python benchmarks/house.py --root DIR   another checkout, for before and after

The frames are counted in a real run of one epoch on digits; everything else is read from the source.
"""

import argparse
import ast
from pathlib import Path
import subprocess
import sys

PACKAGE = "raytricks"
_COUNT_FRAMES = """
import sys, tempfile, traceback
import torch
import raytricks
depths = []
step = torch.optim.SGD.step
def counted(self, *args, **kwargs):
    files = [frame.filename for frame in traceback.extract_stack()]
    depths.append(sum("/raytricks/" in name and "/benchmarks/" not in name for name in files))
    return step(self, *args, **kwargs)
torch.optim.SGD.step = counted
with tempfile.TemporaryDirectory() as directory:
    raytricks.train(None, {"data.source": "digits", "recipe.epochs": 1, "tricks.warmup.epochs": 0.0,
                           "output_dir": directory, "model.name": "resnet8"})
print(max(depths))
"""


def modules(root: Path) -> dict[str, Path]:
    """Return the files of the package by module name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.Module, known: dict[str, Path]) -> tuple[set[str], int]:
    """Return the package's modules that a module takes names from, and its imports inside functions."""
    targets: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            targets.add(node.module)
            targets |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
    in_functions = {
        id(inner)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(function)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    }
    return targets & known.keys(), len(in_functions)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that reach one another."""
    reach = {name: _reachable(graph, name) for name in graph}
    groups = {frozenset({name, *(n for n in reach[name] if name in reach[n])}) for name in graph if name in reach[name]}
    return sorted(sorted(group) for group in groups)


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for name in graph[waiting.pop()] - found:
            found.add(name)
            waiting.append(name)
    return found


def main() -> None:
    """Print one figure a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    root: Path = parser.parse_args().root.resolve()
    known = modules(root)
    lines = {name: len(path.read_text().splitlines()) for name, path in known.items()}
    graph, lazy = {}, 0
    for name, path in known.items():
        targets, in_functions = imports(ast.parse(path.read_text()), known)
        # a package that gathers the names of its modules is no step of its own
        graph[name] = {t for t in targets if t != name and not name.startswith(f"{t}.")}
        lazy += in_functions
    longest = max(lines, key=lines.__getitem__)
    frames = subprocess.run(
        [sys.executable, "-c", _COUNT_FRAMES], cwd=root, env={"PYTHONPATH": str(root), "PATH": ""}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    print(f"files                     {len(known)}")
    print(f"lines                     {sum(lines.values()):,}")
    print(f"files under 60 lines      {sum(n < 60 for n in lines.values())}")
    print(f"longest file              {longest} ({lines[longest]} lines)")
    print(f"imports in functions      {lazy}")
    print(f"circles                   {len(circles(graph))}")
    for group in circles(graph):
        print(f"    {', '.join(group)}")
    print(f"frames to the update      {frames.stdout.strip() or frames.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    main()
