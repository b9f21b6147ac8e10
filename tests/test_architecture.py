"""Rules of the house that no linter holds."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON_FILES = sorted(
    path for folder in ("orchestration", "components", "tests") for path in (ROOT / folder).rglob("*.py")
)
HEAVY = ("torch", "ray", "mlflow", "transformers", "diffusers", "gradio")


def test_definitions_load_light():
    program = f"import sys, orchestration.definitions; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_datasets_is_a_folder_of_facts_and_no_package():
    assert not list((ROOT / "datasets").rglob("*.py"))


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text())) or path.parent.name == "tests" or "test" in path.name


def test_no_postponed_annotations_under_orchestration():
    offenders = [p.name for p in (ROOT / "orchestration").rglob("*.py") if "import annotations" in p.read_text()]
    assert offenders == []


def test_no_module_is_named_after_nothing():
    words = {"utils", "helpers", "common", "misc", "manager", "handler"}
    assert [p.name for p in PYTHON_FILES if words & set(p.stem.split("_"))] == []


def test_every_asset_has_its_own_file():
    from orchestration.definitions import defs

    names = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    files = {path.stem for path in (ROOT / "orchestration" / "assets").glob("*.py")} - {"__init__"}
    assert names == files
