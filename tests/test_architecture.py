"""The rules of the architecture (docs/adr/0001-layout.md), held against the source by parsing its imports.

An import counts wherever it stands: at the top, inside a function, under `if TYPE_CHECKING`, or as
`importlib.import_module` of a literal. Each rule is a function from a tree of sources to its breaches; the last tests
turn every rule loose on a small synthetic tree, one clean and one broken, to show that it can fail.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS = {
    **dict.fromkeys(("errors", "observe", "files", "codec", "durable"), 0),
    **dict.fromkeys(("certificates", "data"), 1),
    "privacy": 2,
    "program": 3,
    **dict.fromkeys(("protocols", "models"), 4),
    **dict.fromkeys(("federated", "planner"), 5),
    **dict.fromkeys(("serving", "client", "audit", "bench"), 6),
    **dict.fromkeys(("cli", "checks"), 7),
}
# Imported from everywhere, its own floor included: anything may fail.
FOUNDATION = "errors"
# `securead/__init__.py` and `__main__.py`: above every room, so nothing imports from them except the version.
FACE = {"__init__", "__main__"}

# Package -> the only places that may import it.
CONFINED = {
    "tenseal": ("securead.protocols.ckks", "securead.protocols.bfv", "securead.protocols.seal"),
    "crypten": ("securead.protocols.sharing",),
    "phe": ("securead.protocols.paillier",),
    "flwr": ("securead.federated.flower",),
    "fastapi": ("securead.serving", "securead.federated.flower"),
    "starlette": ("securead.serving", "securead.federated.flower"),
    "uvicorn": ("securead.serving", "securead.federated.flower"),
    "torch": ("securead.models", "securead.protocols.sharing", "securead.protocols.residues"),
}
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"}
VAGUE = {"util", "utils", "helper", "helpers", "misc", "common", "manager", "managers", "handler", "handlers"}

LINE_LIMIT = 400
# path -> the reason why it may be longer
LONG_FILES: dict[str, str] = {
    "securead/protocols/residues/loops.py": "numba's cache notices changes of a function's own file only",
}

# A path that exists on one machine only. Not preceded by what would make it a URL, a relative path or a variable.
MACHINE_PATH = re.compile(
    r"(?<![\w.~$}>-])/(?:home|Users|root|work|workspace|scratch|mnt|media|opt|srv|tmp|var/tmp)/[\w.-]+"
    r"|\b[A-Za-z]:\\+Users\\+\w+"
)


@dataclass(frozen=True)
class Import:
    """One imported name: `importer` and `target` are dotted module names."""

    importer: str
    path: str
    line: int
    target: str
    typing_only: bool

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Source:
    """One Python file of the package."""

    module: str
    path: str
    is_package: bool
    text: str
    syntax: ast.Module

    @property
    def room(self) -> str:
        return room_of(self.module)


class Tree:
    """The package `securead` below `root`, parsed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sources: dict[str, Source] = {}
        for file in sorted((root / "securead").rglob("*.py")):
            path = file.relative_to(root)
            parts = path.with_suffix("").parts
            is_package = parts[-1] == "__init__"
            module = ".".join(parts[:-1] if is_package else parts)
            text = file.read_text(encoding="utf-8")
            self.sources[module] = Source(module, path.as_posix(), is_package, text, ast.parse(text, str(path)))

    @cached_property
    def imports(self) -> list[Import]:
        return [found for source in self.sources.values() for found in self._imports_of(source)]

    def _imports_of(self, source: Source) -> Iterator[Import]:
        typing_only = {
            id(inner)
            for branch in ast.walk(source.syntax)
            if isinstance(branch, ast.If) and ast.unparse(branch.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
            for statement in branch.body
            for inner in ast.walk(statement)
        }
        for node in ast.walk(source.syntax):
            for target in self._targets(source, node):
                line = getattr(node, "lineno", 0)
                yield Import(source.module, source.path, line, target, id(node) in typing_only)

    def _targets(self, source: Source, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = source.module.split(".") + (["__init__"] if source.is_package else [])
                base = ".".join([*parts[: -node.level], *([base] if base else [])])
            for name in node.names:
                inner = f"{base}.{name.name}"
                # `from securead import data` names a module even before that module is written.
                yield inner if inner in self.sources or base == "securead" else base
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def room_of(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def the_floors_hold(tree: Tree) -> Iterator[str]:
    for source in tree.sources.values():
        if source.room not in FLOORS and source.room not in FACE:
            yield (
                f"{source.path}:1: {source.room!r} stands on no floor; move it into a room, or give it a floor in "
                "FLOORS and record why in docs/adr"
            )
    for found in tree.imports:
        room = tree.sources[found.importer].room
        if not within(found.target, "securead") or room in FACE or found.target == "securead.__version__":
            continue
        target = room_of(found.target)
        if target in (room, FOUNDATION) or FLOORS.get(target, 99) < FLOORS.get(room, 99):
            continue
        yield (
            f"{found.place}: {found.importer} (floor {FLOORS.get(room, '?')}) imports {found.target} (floor "
            f"{FLOORS.get(target, 'top')}); import only from lower floors: move what both need down, or pass it in"
        )


def protocols_and_models_never_meet(tree: Tree) -> Iterator[str]:
    for here, there in (("protocols", "models"), ("models", "protocols")):
        for found in tree.imports:
            if within(found.importer, f"securead.{here}") and within(found.target, f"securead.{there}"):
                yield f"{found.place}: {here} import {found.target}; what both need belongs in securead.program"


def packages_stay_confined(tree: Tree) -> Iterator[str]:
    for found in tree.imports:
        package = found.target.split(".")[0]
        if package in CONFINED and not within(found.importer, *CONFINED[package]):
            allowed = " or ".join(CONFINED[package])
            yield f"{found.place}: imports {package}; only {allowed} may: call what that offers instead"


def serving_holds_no_owner(tree: Tree) -> Iterator[str]:
    """Directly by any import; through other modules by any import that is executed."""
    owners = {
        module
        for module in tree.sources
        if within(module, "securead.protocols")
        and re.fullmatch(r"securead\.protocols(\.\w+)+\.owner", module)
        and tree.sources[module.rpartition(".")[0]].is_package
    }
    chains = {module: [module] for module in tree.sources if within(module, "securead.serving")}
    open_ends = list(chains)
    while open_ends:
        module = open_ends.pop()
        for found in tree.imports:
            direct = len(chains[module]) == 1
            if found.importer != module or (found.typing_only and not direct):
                continue
            chain = [*chains[module], found.target]
            if within(found.target, *owners):
                yield (
                    f"{found.place}: {' -> '.join(chain)}: the service would hold what can hold a data owner's key; "
                    "import the engine's `plan` or `blind` half, or ask protocols.registry for it"
                )
            elif found.target in tree.sources and found.target not in chains:
                chains[found.target] = chain
                open_ends.append(found.target)


def the_library_never_imports_checks(tree: Tree) -> Iterator[str]:
    for found in tree.imports:
        if within(found.target, "securead.checks") and not within(found.importer, "securead.checks"):
            yield f"{found.place}: imports {found.target}; conformance suites are for tests: move out what is needed"


def packages_of_protocols_import_nothing(tree: Tree) -> Iterator[str]:
    for found in tree.imports:
        source = tree.sources[found.importer]
        if source.is_package and within(source.module, "securead.protocols") and found.target != "__future__":
            yield f"{found.place}: imports {found.target}; engines load lazily: import the module where it is used"


def files_stay_small(tree: Tree) -> Iterator[str]:
    for source in tree.sources.values():
        length = len(source.text.splitlines())
        if length > LINE_LIMIT and source.path not in LONG_FILES:
            yield (
                f"{source.path}:{LINE_LIMIT + 1}: {length} lines, over {LINE_LIMIT}; split it by subject (a module may "
                "become a package of the same name), or list it in LONG_FILES with the reason"
            )
    for path in LONG_FILES if tree.root == ROOT else ():
        if not (tree.root / path).exists():
            yield f"{path}:1: listed in LONG_FILES but absent; remove it there"


def names_say_something(tree: Tree) -> Iterator[str]:
    for source in tree.sources.values():
        vague = VAGUE.intersection(source.module.split("."))
        if vague:
            yield f"{source.path}:1: a module named {min(vague)!r} says nothing; name it for what it knows"


def nothing_is_pickled(tree: Tree) -> Iterator[str]:
    remedy = "bytes from outside must not run code: use securead.codec, or NumPy with allow_pickle=False"
    for found in tree.imports:
        if found.target.split(".")[0] in PICKLES:
            yield f"{found.place}: imports {found.target}; {remedy}"
    for source in tree.sources.values():
        for node in ast.walk(source.syntax):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                yield f"{source.path}:{node.value.lineno}: allow_pickle may be true; {remedy}"


def no_text_names_a_machine(tree: Tree) -> Iterator[str]:
    for file in tracked_files(tree.root):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # binary, or deleted but not yet committed
        for number, line in enumerate(lines, 1):
            for match in MACHINE_PATH.finditer(line):
                place = f"{file.relative_to(tree.root).as_posix()}:{number}"
                yield (
                    f"{place}: names {match[0]!r}, which exists on one machine; "
                    "use a relative path, an argument or an environment variable"
                )


def tracked_files(root: Path) -> Iterator[Path]:
    """What git tracks or would track; without git (an unpacked sdist), every file outside hidden folders."""
    if (root / ".git").exists() and (git := shutil.which("git")):
        listing = [git, "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
        yield from (root / name for name in sorted(set(names.split("\0")) - {""}) if (root / name).is_file())
    else:
        for file in sorted(root.rglob("*")):
            hidden = any(part.startswith(".") or part == "__pycache__" for part in file.relative_to(root).parts[:-1])
            if file.is_file() and not hidden:
                yield file


Rule = Callable[[Tree], Iterator[str]]
RULES: tuple[Rule, ...] = (
    the_floors_hold,
    protocols_and_models_never_meet,
    packages_stay_confined,
    serving_holds_no_owner,
    the_library_never_imports_checks,
    packages_of_protocols_import_nothing,
    files_stay_small,
    names_say_something,
    nothing_is_pickled,
    no_text_names_a_machine,
)


@pytest.fixture(scope="module")
def securead_tree() -> Tree:
    tree = Tree(ROOT)
    assert tree.sources, f"no source found below {ROOT / 'securead'}"
    return tree


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Rule, securead_tree: Tree) -> None:
    breaches = list(rule(securead_tree))
    assert not breaches, "\n" + "\n".join(breaches)


# What an IoT gateway installs: neither torch nor numba, and for scoring no scikit-learn either.

LIGHT = {
    "securead": ("torch", "numba"),
    "securead.client": ("torch", "numba", "sklearn"),
    "securead.data.streaming": ("torch", "numba", "sklearn", "scipy", "dp_accounting"),
    "securead.protocols.ckks.owner": ("torch", "numba"),
}
OWNERS = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in ROOT.glob("securead/protocols/**/owner.py")
}


@pytest.mark.parametrize("module", sorted(LIGHT | dict.fromkeys(OWNERS)))
def test_import_is_light(module: str) -> None:
    heavy = LIGHT.get(module, ("torch", "numba"))
    # The names that securead.client offers are loaded when they are asked for: here all of them.
    names = f"from {module} import *\n" if module == "securead.client" else ""
    script = (
        f"import json, sys, {module}\n{names}"
        f"assert sys.modules[{module!r}].__file__, 'a folder without source'\n"
        f"print(json.dumps([p for p in {heavy!r} if p in sys.modules]))"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"`import {module}` fails:\n{run.stderr}"
    loaded = json.loads(run.stdout)
    assert not loaded, (
        f"`import {module}` loads {loaded}; find who imports it with `python -X importtime -c 'import {module}'`"
    )


# The rules can fail.

CLEAN = {
    "securead/__init__.py": "from securead.program import digest\n__version__ = '0'\n",
    "securead/errors.py": "",
    "securead/files.py": "from .errors import FixInputError\n",
    "securead/program/__init__.py": "",
    "securead/program/digest.py": "from securead import __version__, files\n",
    "securead/models/subspace.py": "def fit():\n    import torch\n    from ..program import digest\n",
    "securead/protocols/__init__.py": '"""Nothing."""\n',
    "securead/protocols/registry.py": "from securead.program.digest import x\n\ndef owner(): ...\n",
    "securead/protocols/ckks/__init__.py": "",
    "securead/protocols/ckks/owner.py": "import tenseal.sealapi as seal\n",
    "securead/protocols/ckks/row/__init__.py": "",
    "securead/protocols/ckks/row/owner.py": "import tenseal.sealapi as seal\n",
    "securead/serving/app.py": "import fastapi\nfrom securead.protocols.registry import owner\n",
    "securead/client.py": "from securead.protocols.ckks import owner\nload('x', allow_pickle=False)\n",
    "README.md": "See [the guide](/docs/guide), https://example.org/home/someone and ../home/notes.\n",
}
# Rule -> (what is added to the clean tree, where the breach must be reported).
BREACHES: dict[Rule, list[tuple[str, str, int]]] = {
    the_floors_hold: [
        ("securead/data.py", "import json\nimport securead.privacy\n", 2),
        ("securead/data/a.py", "def f():\n    from ..program import digest\n", 2),
        (
            "securead/data/a/b.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ...privacy import x\n",
            3,
        ),
        ("securead/serving/a.py", "from securead import client\n", 1),
        ("securead/audit.py", "from importlib import import_module\n\nimport_module('securead.bench')\n", 3),
        ("securead/program/a.py", "from securead import fit\n", 1),
        ("securead/observe.py", "import securead.files\n", 1),
        ("securead/newroom/a.py", "", 1),
    ],
    protocols_and_models_never_meet: [
        ("securead/protocols/a.py", "\nfrom securead.models.subspace import fit\n", 2),
        ("securead/models/a.py", "def f():\n    from ..protocols.ckks import owner\n", 2),
    ],
    packages_stay_confined: [
        ("securead/protocols/a.py", "import tenseal\n", 1),
        ("securead/protocols/ckksx.py", "from tenseal.sealapi import Ciphertext\n", 1),
        ("securead/models/a.py", "import crypten.nn\n", 1),
        ("securead/privacy/a.py", "from phe import paillier\n", 1),
        ("securead/federated/rounds.py", "import flwr\n", 1),
        ("securead/client/a.py", "import starlette\n", 1),
        ("securead/cli.py", "def serve():\n    import uvicorn\n", 2),
        ("securead/privacy/b.py", "import torch.nn as nn\n", 1),
    ],
    serving_holds_no_owner: [
        ("securead/serving/a.py", "from securead.protocols.ckks import owner\n", 1),
        ("securead/serving/b.py", "def f():\n    from ..protocols.ckks.owner import Secret\n", 2),
        ("securead/protocols/registry.py", "\nimport securead.protocols.ckks.owner\n", 2),
        ("securead/serving/c.py", "from securead.protocols.ckks.row.owner import Secret\n", 1),
    ],
    the_library_never_imports_checks: [("securead/cli.py", "from securead.checks import check_engine\n", 1)],
    packages_of_protocols_import_nothing: [
        ("securead/protocols/__init__.py", "import json\n", 1),
        ("securead/protocols/ckks/__init__.py", "from __future__ import annotations\nfrom .owner import Secret\n", 2),
    ],
    files_stay_small: [("securead/models/a.py", "x = 1\n" * (LINE_LIMIT + 1), LINE_LIMIT + 1)],
    names_say_something: [
        ("securead/models/utils.py", "", 1),
        ("securead/privacy/manager/__init__.py", "", 1),
    ],
    nothing_is_pickled: [
        ("securead/models/a.py", "import json\nimport pickle\n", 2),
        ("securead/models/b.py", "import numpy as np\n\nnp.load('x', allow_pickle=True)\n", 3),
    ],
    no_text_names_a_machine: [
        ("README.md", "One.\nRun `/" + "home/ann/securead`.\n", 2),
        ("examples/a.py", 'path = "/' + 'opt/data.csv"\n', 1),
        ("notes.txt", "C:" + "\\Users\\ann\n", 1),
    ],
}


def plant(root: Path, files: dict[str, str]) -> Tree:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return Tree(root)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_accepts_a_clean_tree(rule: Rule, tmp_path: Path) -> None:
    assert list(rule(plant(tmp_path, CLEAN))) == []


@pytest.mark.parametrize(
    ("rule", "path", "text", "line"),
    [(rule, *breach) for rule in RULES for breach in BREACHES[rule]],
    ids=lambda value: getattr(value, "__name__", None) or (value if str(value).startswith("securead/") else ""),
)
def test_rule_catches_a_breach(rule: Rule, path: str, text: str, line: int, tmp_path: Path) -> None:
    breaches = list(rule(plant(tmp_path, CLEAN | {path: text})))
    assert breaches, f"{rule.__name__} missed {text!r} in {path}"
    assert all(breach.startswith(f"{path}:{line}: ") and ";" in breach for breach in breaches), breaches
