"""`python -m raytricks`: the command line, where a job runs it; says in one line what a node lacks."""

from importlib.util import find_spec
import platform
import sys

_NEEDED = (
    *("ray", "torch", "torchvision", "pyarrow", "pydantic", "typer", "rich", "yaml", "safetensors"),
    *("sklearn", "tensorboardX", "numpy", "PIL"),
)
_NEEDED_TO_TUNE = ("plotly", "pandas")
_CLUSTER_ERROR = 4


def main() -> None:
    """Run the command line, or end with 4 and a line that names the packages that are missing."""
    needed = _NEEDED + (_NEEDED_TO_TUNE if sys.argv[1:2] == ["tune"] else ())
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        print(
            f"error: {sys.executable} on {platform.node()} lacks {', '.join(missing)}; submit with --pip to have them "
            "installed for the job, or run the cluster from an image or environment with raytricks installed",
            file=sys.stderr,
        )
        sys.exit(_CLUSTER_ERROR)
    from raytricks.cli.main import main as command_line

    command_line()


if __name__ == "__main__":
    main()
