"""A module imports only from the levels above it, so that the project can be read from the top down."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "hp_lightning"

LEVELS = [
    {"errors", "failpoints"},
    {"checks", "files", "garbage"},
    {"config", "judging_config", "writing_config", "progress", "functional", "kv_cache", "muon", "sampling"},
    {
        "runs",
        "messages",
        "cache",
        "machine",
        "compiling",
        "corpus",
        "tokenization",
        "kneser_ney",
        "model",
        "optim",
        "schedule",
    },
    {"checkpoint", "cli", "encoding", "generation", "inference", "loss", "slurm"},
    {"baselines"},
    {"data", "auto", "exporting", "printing"},
    {"lightning_module"},
    {"divergence", "evaluation"},
    {"reporting", "saving"},
    {"stopping", "comparing"},
    {"preparing", "writing", "sweeping", "evaluating", "sentiment"},
    {"training", "roadmap"},
    {"corpus.__main__", "reporting.__main__", "roadmap.__main__"},
]


def module_of(path: Path) -> str:
    """The module, or the package below hp_lightning, that a file belongs to; a program in a package is neither."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts) if len(parts) > 1 and parts[-1] == "__main__" else parts[0]


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: a relative import"
        if isinstance(node, ast.ImportFrom) and node.module == "hp_lightning":
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hp_lightning."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("hp_lightning") for alias in node.names), path
    return found


def test_every_module_has_a_level() -> None:
    modules = {module_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert modules == set().union(*LEVELS)


def test_imports_run_one_way() -> None:
    level_of = {module: level for level, modules in enumerate(LEVELS) for module in modules}
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {imported}"
        for path in PACKAGE.rglob("*.py")
        for imported in imported_modules(path)
        if module_of(path) != "__init__"
        and imported != module_of(path)
        and level_of[imported] >= level_of[module_of(path)]
    ]
    assert not wrong
