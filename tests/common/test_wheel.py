"""The wheel, installed into an environment of its own, and the packages that only extras install."""

import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
from helpers.processes import PROJECT, environment

SOURCES = ("hp_lightning", "hydra_plugins", "conf", "books", "pyproject.toml", "README.md", "LICENSE")
EXTRAS = ("optuna", "submitit", "hydra_plugins.hydra_submitit_launcher", "pyarrow", "safetensors")


@pytest.fixture(scope="module")
def wheel(once: Callable) -> Path:
    def build(folder: Path) -> None:
        source = folder / "source"
        source.mkdir()
        for name in SOURCES:
            if (PROJECT / name).is_dir():
                copytree(PROJECT / name, source / name, ignore=ignore_patterns("__pycache__"))
            else:
                (source / name).write_bytes((PROJECT / name).read_bytes())
        pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))

    [path] = once("wheel", build).glob("*.whl")
    return path


def pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def bin_folder(once: Callable, wheel: Path) -> Path:
    """The programs of an environment with the wheel; it sees the packages of this one, but not the project."""

    def make(folder: Path) -> None:
        venv.create(folder / "env")
        python = folder / "env" / "bin" / "python"
        pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
        site = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        # A .pth file in there is not read: it is that of the project, as `--editable` has installed it.
        (Path(site) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    return once("installed", make) / "env" / "bin"


def run(program: Path, *words: str, cwd: Path) -> str:
    own = {name: value for name, value in environment().items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([program, *words], cwd=cwd, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_holds_all_that_a_run_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    presets = {f"hp_lightning/{path.relative_to(PROJECT)}" for path in (PROJECT / "conf").rglob("*.yaml")}
    modules = {str(path.relative_to(PROJECT)) for path in (PROJECT / "hp_lightning").rglob("*.py")}
    assert presets | modules <= names
    assert {"hp_lightning/books/lanterns_of_saltmere.csv", "hp_lightning/py.typed"} <= names
    assert {name.rpartition("/")[2] for name in names if ".dist-info/licenses/" in name} == {"LICENSE"}
    assert any(name.endswith("licenses/books/LICENSE") for name in names)


def test_an_installed_wheel_reads_its_own_presets_and_books(bin_folder: Path, tmp_path: Path) -> None:
    said = run(bin_folder / "hp-lightning", "corpus", cwd=tmp_path)
    assert str(bin_folder.parent) in said.partition("lanterns_of_saltmere.csv")[0], "not those of the project"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_installed_wheel_trains_sweeps_and_writes(bin_folder: Path, tmp_path: Path) -> None:
    command = bin_folder / "hp-lightning"
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "own.yaml").write_text("d_model: 24\nnum_heads: 2\nnum_layers: 1\nd_ff: 48\n")
    run(command, "train", "experiment=smoke", cwd=tmp_path)
    [folder] = (tmp_path / "outputs" / "runs").iterdir()
    assert (folder / "checkpoints" / "best.ckpt").is_file()
    assert run(command, "generate", "prompt=The lantern", "max_new_tokens=5", cwd=tmp_path).startswith("The lantern")
    run(command, "course", cwd=tmp_path)
    assert (folder / "course.html").is_file()
    own = ["--config-dir", "mine", "model=own", "max_steps=4", "trainer.val_every_steps=4", "sweep.name=s"]
    run(command, "train", "-m", "seed=1,2", *own, cwd=tmp_path)
    jobs = [path for path in (tmp_path / "outputs" / "sweeps" / "s").iterdir() if path.is_dir()]
    assert len(jobs) == 2
    assert all("d_model: 24" in (job / ".hydra" / "config.yaml").read_text() for job in jobs)
    assert (tmp_path / "outputs" / "sweeps" / "s" / "summary.csv").is_file()


BLOCKED = f"""
import pkgutil
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in {EXTRAS} or name.startswith({tuple(f"{name}." for name in EXTRAS)}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
walk = pkgutil.walk_packages  # by which Hydra finds plugins
pkgutil.walk_packages = lambda *paths, **how: (one for one in walk(*paths, **how) if "submitit" not in one.name)
"""


def run_blocked(code: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    (cwd / "blocked.py").write_text(BLOCKED + textwrap.dedent(code))
    command = [sys.executable, "blocked.py", *words]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)


def test_all_but_the_extras_own_modules_import_without_them(tmp_path: Path) -> None:
    done = run_blocked(
        """
        import importlib, pkgutil
        import hp_lightning, hydra_plugins.hp_lightning_sweeps
        for module in pkgutil.walk_packages(hp_lightning.__path__, "hp_lightning."):
            if module.name not in ("hp_lightning.__main__", "hp_lightning.sweeps.optuna_search"):
                importlib.import_module(module.name)
        """,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["train", "-m", "hydra/sweeper=optuna"], "search"),
        (["train", "-m", "hydra/launcher=submitit_slurm", "seed=1,2"], "slurm"),
        (["train", "data.path=some.parquet"], "parquet"),
        (["export", "to=mine"], "export"),
    ],
)
def test_a_missing_extra_is_told_with_its_command(words: list[str], extra: str, tmp_path: Path) -> None:
    (tmp_path / "some.parquet").write_bytes(b"PAR1")
    code = "from hp_lightning.cli.main import main\nsys.argv[0] = 'hp-lightning'\nmain()\n"
    done = run_blocked(code, *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "error[install.missing_extra]" in done.stderr
    assert f"pip install 'hp_lightning[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == ["blocked.py", "some.parquet"]


def test_the_plugin_is_light_in_another_program_of_hydra(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(
        textwrap.dedent("""
        import sys
        import hydra

        @hydra.main(version_base="1.3", config_path=None)
        def main(cfg):
            print(sorted({"torch", "lightning", "optuna", "hp_lightning.sweeps"} & set(sys.modules)))

        main()
        """)
    )
    command = [sys.executable, "other.py", "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
