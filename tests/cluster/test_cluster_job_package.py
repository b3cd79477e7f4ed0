"""What travels with a job: ignore files, caches, secrets, links, sizes, and this raytricks."""

from pathlib import Path
import re

import pytest

import raytricks
from raytricks.cluster.jobs.files import choose_files, require_size
from raytricks.cluster.jobs.package import packed, pip_requirements
from raytricks.config import load_config
from raytricks.errors import ConfigError


def write(root: Path, *names: str, text: str = "x") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def chosen(root: Path) -> set[str]:
    return {str(path) for path in choose_files(root).sizes}


def test_ignore_files_of_every_depth_hold(tmp_path):
    write(tmp_path, "a.yaml", "a.log", "data/x.png", "src/keep.log", "src/b.py", "src/deep/c.py", "src/deep/d.tmp")
    write(tmp_path, ".gitignore", text="*.log\n/data/\n")
    write(tmp_path, "src/.gitignore", text="!keep.log\n")
    write(tmp_path, "src/deep/.rayignore", text="*.tmp\n")
    assert chosen(tmp_path) == {"a.yaml", "src/keep.log", "src/b.py", "src/deep/c.py"}


def test_rayignore_takes_back_what_git_does_not_keep(tmp_path):
    write(tmp_path, "data/x.png", "junk/y.png")
    write(tmp_path, ".gitignore", text="data/\njunk/\n")
    write(tmp_path, ".rayignore", text="!data\n")
    assert chosen(tmp_path) == {"data/x.png"}


def test_the_gitignore_above_holds_within_one_repository_only(tmp_path):
    write(tmp_path, ".gitignore", text="*.yaml\n")
    write(tmp_path, "repository/.gitignore", text="*.bin\n")
    write(tmp_path, "repository/project/a.yaml", "repository/project/b.bin")
    assert chosen(tmp_path / "repository" / "project") == {"a.yaml", "b.bin"}
    (tmp_path / "repository" / ".git").mkdir()
    assert chosen(tmp_path / "repository" / "project") == {"a.yaml"}


def test_caches_environments_and_runs_stay(tmp_path):
    write(tmp_path, "a.py", "run.json", ".git/config", ".venv/x", "env/pyvenv.cfg", "env/bin/python", ".ray/x", "b.pyc")
    write(tmp_path, "__pycache__/a.py", ".ruff_cache/x", "x.egg-info/PKG-INFO")
    write(tmp_path, "runs/one/config.yaml", "runs/one/run.json", "runs/one/model.safetensors", "other/config.yaml")
    assert chosen(tmp_path) == {"a.py", "run.json", "other/config.yaml"}


def test_secrets_stay_and_are_named(tmp_path):
    secrets = (".env", ".env.local", "tls/server.pem", "server.KEY", "id_rsa", "id_ed25519.pub", ".netrc", ".pypirc")
    secrets += ("credentials.json", "my_secret.txt", "auth_token", "x.p12", "aws_credentials.json")
    write(tmp_path, *secrets, ".aws/config", ".ssh/known_hosts", "photos/secretary_bird/secret_1.png", "keys.py")
    files = choose_files(tmp_path)
    assert {str(path) for path in files.sizes} == {"photos/secretary_bird/secret_1.png", "keys.py"}
    assert {str(path) for path in files.secrets} == {*secrets, ".aws", ".ssh"}
    [line] = [line for line in files.lines() if "secrets" in line]
    assert line.startswith("left out, look like secrets: .aws, .env, ") and line.endswith(" and 10 more")


def test_links_are_followed_inside_only(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    write(outside, "big.bin", "photos/1.png")
    write(inside, "real/a.txt", ".env", "keys/.ssh/known")
    (inside / "file").symlink_to(inside / "real" / "a.txt")
    (inside / "folder").symlink_to("real")
    (inside / "real" / "up").symlink_to("..")  # without an end
    (inside / "plain").symlink_to(".env")
    (inside / "plain2").symlink_to("keys/.ssh/known")
    (inside / "away").symlink_to(outside / "big.bin")
    (inside / "photos").symlink_to(outside / "photos")
    (inside / "broken").symlink_to("nowhere")
    files = choose_files(inside)
    assert {str(path) for path in files.sizes} == {"real/a.txt", "file", "folder/a.txt"}
    assert {str(path) for path in files.links} == {"away", "photos"}
    assert {str(path) for path in files.secrets} == {".env", "plain", "plain2", "keys/.ssh"}


def test_a_directory_that_is_too_large_is_one_line_with_its_largest_entries(tmp_path):
    for name, size_mib in (("data/a.bin", 2), ("data/b.bin", 1), ("c.bin", 1), ("d.bin", 0.5), ("e.bin", 0.1)):
        write(tmp_path, name, text="x" * int(size_mib * 2**20))
    files = choose_files(tmp_path)
    require_size(files, 5)
    with pytest.raises(ConfigError) as raised:
        require_size(files, 4)
    [line] = raised.value.problems
    assert "4.6 MiB to upload, the limit is 4 MiB" in line and ".rayignore" in line
    assert "data/ 3.0, c.bin 1.0, d.bin 0.5;" in line


@pytest.mark.parametrize("names", [("no.such",), ("a.txt/b",)])
def test_a_working_directory_that_is_none_is_one_line(tmp_path, names):
    write(tmp_path, "a.txt")
    with pytest.raises(ConfigError, match=r"^--working-dir: .* is no directory"):
        choose_files(tmp_path.joinpath(*names))


def test_a_wrong_ignore_file_is_one_line(tmp_path):
    (tmp_path / ".gitignore").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"\.gitignore cannot be read"):
        choose_files(tmp_path)


def test_copies_are_complete_and_do_not_stay(tmp_path):
    write(tmp_path, "configs/a.yaml", ".gitignore", ".env", text="seed: 1\n")
    with packed(choose_files(tmp_path), ["torch>=2"]) as environment:
        working_dir, [module] = Path(environment["working_dir"]), map(Path, environment["py_modules"])
        assert {str(p.relative_to(working_dir)) for p in working_dir.rglob("*") if p.is_file()} == {"configs/a.yaml"}
        assert (working_dir / "configs" / "a.yaml").read_text() == "seed: 1\n"
        assert module.name == "raytricks" and not list(module.rglob("__pycache__"))
        package = Path(raytricks.__file__).parent
        sources = {p.relative_to(package) for p in package.rglob("*.*") if "__pycache__" not in p.parts}
        assert {p.relative_to(module) for p in module.rglob("*.*")} == sources
        assert environment["pip"] == ["torch>=2"]
    assert not working_dir.exists() and not module.exists()
    with packed(choose_files(tmp_path), []) as environment:
        assert "pip" not in environment


def test_our_own_package_travels_once(repository):
    files = choose_files(repository, besides=repository / "raytricks")
    assert Path("README.md") in files.sizes
    assert not [path for path in files.sizes if path.parts[0] == "raytricks"]


def test_pip_gets_what_we_declare_with_the_extras_of_the_config_and_the_ray_of_the_cluster():
    plain = pip_requirements(load_config(None, ["data.source=digits"]).config, "2.60.1")
    assert "ray[train,tune]==2.60.1" in plain
    names = {re.split(r"[\[<>=!~]", text)[0].lower() for text in plain}
    assert {"torch", "typer"} < names and not names & {"timm", "optuna", "pytest", "ruff"}
    config = load_config(None, ["data.source=digits", "model.name=timm:resnet18", "tune.sampler=optuna"]).config
    more = {re.split(r"[\[<>=!~]", text)[0].lower() for text in pip_requirements(config, "2.60.1")}
    assert more - names == {"timm", "optuna"}
