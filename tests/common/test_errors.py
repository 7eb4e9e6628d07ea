"""Refusals: that every one has a code, and that a process can hand one to another."""

import ast
import pickle
import re

from helpers.processes import PROJECT

from hp_lightning.common.errors import Interrupted

RAISED = {"RunError", "InputError", "Interrupted", "DamagedError"}
CODE = r"'[a-z]+\.[a-z_]+'|.+\.code"  # as data.not_found; or that of another error


def test_every_code_is_well_formed() -> None:
    codes: list[str] = []
    for path in [*PROJECT.glob("hp_lightning/**/*.py"), *PROJECT.glob("hydra_plugins/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED:
                code = node.args[0]
                codes += map(ast.unparse, [code.body, code.orelse] if isinstance(code, ast.IfExp) else [code])
    assert len(codes) > 100
    assert [code for code in codes if not re.fullmatch(CODE, code)] == []


def test_a_refusal_comes_whole_out_of_another_process() -> None:
    there = Interrupted("run.interrupted", "stopped by SIGINT", 2)
    here = pickle.loads(pickle.dumps(there))
    assert (here.code, str(here), here.exit_status) == ("run.interrupted", "stopped by SIGINT", 130)
