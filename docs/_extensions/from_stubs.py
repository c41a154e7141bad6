"""The directive ``public``: a class, function or constant as the type stubs and Python sources describe it.

The core is compiled, so its types are in the stubs (``*.pyi``), and its docstrings are there too, for editors. Nothing
is imported: the files are read as they stand, and their docstrings are Markdown.
"""

import ast
import pathlib

from sphinx.util.docutils import SphinxDirective

SOURCE = pathlib.Path(__file__).parents[2] / "src" / "fastprod"
FENCE = ":" * 4


class Public(SphinxDirective):
    """``public:: module.Name``, where module is a file of src/fastprod, with dots for its folders."""

    required_arguments = 1

    def run(self):
        module, _, name = self.arguments[0].rpartition(".")
        file = SOURCE / module.replace(".", "/")
        path = next(path for path in (file.with_suffix(".pyi"), file.with_suffix(".py")) if path.exists())
        self.env.note_dependency(str(path))
        lines = path.read_text().splitlines()
        node = next(one for one in ast.parse("\n".join(lines)).body if getattr(one, "name", None) == name)
        return self.parse_text_to_nodes("\n".join(described(node, lines)), allow_section_headings=False)


def described(node, lines):
    """Lines of Markdown."""
    if isinstance(node, ast.FunctionDef):
        yield from directive("function", node.name, signature(node), docstring(node))
        return
    constructor = next((one for one in node.body if getattr(one, "name", None) == "__init__"), None)
    kind = "exception" if any(ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases) else "class"
    head = signature(constructor) if constructor and constructs(node) else ""
    bases = [f"`{ast.unparse(base)}`" for base in node.bases if kind == "exception"]
    text = docstring(node) + (f"\n\nIt derives from {' and '.join(bases)}.\n" if bases else "")
    yield from directive(kind, node.name, head, text, [*members(node, lines)])


def constructs(node):
    return node.name not in ("FutureRecordMetadata", "BulkFuture")  # which a producer alone makes


def members(node, lines):
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and f"`{one.target.id}`:" not in docstring(node):
            text = lines[one.lineno - 1].partition("  # ")[2]
            yield from directive(
                "attribute", one.target.id, "", text, options=[f":type: {ast.unparse(one.annotation)}"]
            )
        if not isinstance(one, ast.FunctionDef) or one.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator) for decorator in one.decorator_list}
        if "property" in decorators:
            yield from directive(
                "property", one.name, "", docstring(one), options=[f":type: {ast.unparse(one.returns)}"]
            )
            continue
        if "overload" in decorators and len(docstring(one).split()) < 5:  # the other one says it all
            continue
        yield from directive("method", one.name, signature(one), docstring(one))


def directive(kind, name, signature, text, inner=(), options=()):
    fence = FENCE if kind not in ("class", "exception") else FENCE + ":"
    yield f"{fence}{{py:{kind}}} {name}{signature}"
    yield from options
    yield ""
    yield from text.splitlines()
    yield from inner
    yield fence
    yield ""


def signature(function):
    arguments = function.args
    for one in (*arguments.posonlyargs[:1], *arguments.args[:1]):
        if one.arg in ("self", "cls"):
            (arguments.posonlyargs or arguments.args).pop(0)
    returns = f" -> {ast.unparse(function.returns)}" if function.returns and function.name != "__init__" else ""
    return f"({ast.unparse(arguments)}){returns}"


def docstring(node):
    return ast.get_docstring(node) or ""


def setup(app):
    app.add_directive("public", Public)
    return {"parallel_read_safe": True}
