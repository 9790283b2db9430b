"""What the code base promises of itself: typed arguments, short functions, few files, and imports that go one way."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST = 40  # lines of a function's body without its docstring
MOST_FILES = 20  # directly in dptmat/

# Each may import from its own line and from those below.
LAYERS = (
    {"dptmat", "__main__", "cli"},
    {"app"},
    {"tasks", "report"},
    {"training", "contact_sheets"},
    {"weights", "losses", "inference", "orientations"},
    {"data", "config", "models", "pipelines", "tiles", "fusion", "metrics", "morphology", "demo"},
    {"kernels"},
    {"errors", "defaults", "files", "file_kinds", "device"},
)


def module_name(path):
    """The name by which a file of the product is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "dptmat" else ("dptmat", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PRODUCT = {
    module_name(path): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("dptmat", "kernels", "pipelines")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def statements(node, *, inside_functions):
    """All statements below a node, but for what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        if inside_functions or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from statements(child, inside_functions=inside_functions)


def imported(name, *, inside_functions):
    """The modules of the product that a module imports."""
    for node in statements(PRODUCT[name], inside_functions=inside_functions):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in PRODUCT)
        elif isinstance(node, ast.ImportFrom) and node.module in PRODUCT:
            within = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from within & PRODUCT.keys() or {node.module}


def functions(node, prefix=""):
    """All functions and methods below a node: (qualified name, function)."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{prefix}{child.name}"
            if not isinstance(child, ast.ClassDef):
                yield name, child
            yield from functions(child, f"{name}.")
        else:
            yield from functions(child, prefix)


def layer(name):
    """The line of LAYERS that a module belongs to."""
    parts = name.split(".")
    first = parts[1] if len(parts) > 1 else parts[0]
    return next((i for i, names in enumerate(LAYERS) if first in names), None)


def report(offenders):
    return "\n" + "\n".join(sorted(offenders))


def is_public(name):
    return all(not part.startswith("_") or part in ("__init__", "__call__") for part in name.split("."))


def test_public_arguments_are_typed():
    offenders = []
    for module, tree in PRODUCT.items():
        for name, function in functions(tree):
            given = function.args
            arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            bare = [arg.arg for arg in arguments if arg and not arg.annotation and arg.arg not in ("self", "cls")]
            if bare and is_public(name):
                offenders.append(f"{module}.{name}: {', '.join(bare)}")
    assert not offenders, report(offenders)


def test_functions_are_short():
    offenders = []
    for module, tree in PRODUCT.items():
        for name, function in functions(tree):
            body = function.body[1:] if ast.get_docstring(function) is not None else function.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            if lines > LONGEST:
                offenders.append(f"{module}.{name}: {lines} lines")
    assert not offenders, report(offenders)


def test_the_first_folder_is_read_at_a_glance():
    files = sorted(path.name for path in (ROOT / "dptmat").glob("*.py"))
    assert len(files) <= MOST_FILES, report(files)


def test_imports_go_in_no_circle():
    imports = {name: set(imported(name, inside_functions=False)) - {name} for name in PRODUCT}
    while leaves := {name for name, names in imports.items() if not names & imports.keys()}:
        imports = {name: names for name, names in imports.items() if name not in leaves}
    # What imports the circles, but is in none, is taken off from the other end.
    while tops := imports.keys() - {name for names in imports.values() for name in names}:
        imports = {name: names for name, names in imports.items() if name not in tops}
    assert not imports, report(
        f"{name}: {', '.join(sorted(names & imports.keys()))}" for name, names in imports.items()
    )


def test_imports_go_one_way():
    homeless = [name for name in PRODUCT if layer(name) is None]
    assert not homeless, report(f"{name} is in no line of LAYERS" for name in homeless)
    upward = {
        f"{name} imports {other}"
        for name in PRODUCT
        for other in imported(name, inside_functions=True)
        if layer(other) < layer(name)
    }
    assert not upward, report(upward)


@pytest.mark.parametrize("name", ["dptmat.errors", "dptmat.defaults"])
def test_leaves_import_the_standard_library_alone(name):
    for node in ast.walk(PRODUCT[name]):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert all(other.partition(".")[0] in sys.stdlib_module_names for other in names)
