"""What pyproject.toml says of the packages, compared with the folders."""

import tomllib

from helpers.processes import PROJECT


def test_every_package_is_installed() -> None:
    """A wheel holds what is listed, no more."""
    listed = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    modules = (path for top in ("hp_lightning", "hydra_plugins") for path in (PROJECT / top).rglob("*.py"))
    folders = {module.parent.relative_to(PROJECT) for module in modules}
    outside = ["hp_lightning.books", "hp_lightning.conf"]  # folders of the project, inside the package in a wheel
    assert sorted(listed) == sorted([*(".".join(folder.parts) for folder in folders), *outside])
