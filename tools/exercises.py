"""The exercises of a notebook: where they are, and the cells that their checks stand on. No kernel needed.

The convention (CONTRIBUTING.md, "A notebook"): a text cell "### Exercise N: title" with a "*Hint*: …", the code cell to
be solved with its lines between the two markers, and in the next code cell its check, which ends by printing
"Exercise N passed: …".
"""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
HEADING = re.compile(r"^### Exercise (\d+): (.+)$", re.M)
HINT = re.compile(r"\*Hint\*: (.+?)(?:\n\n|\Z)", re.S)


@dataclass(frozen=True)
class Exercise:
    """One exercise: numbers of cells count all cells of the notebook, from 0."""

    number: int
    title: str
    hint: str  # as in the text: Markdown with TeX
    solution: int  # the cell with the markers
    check: int  # the next code cell


def source(cell: dict[str, Any]) -> str:
    """A cell's text, which files hold as one string or as lines."""
    return "".join(cell["source"])


def exercises(cells: Sequence[dict[str, Any]]) -> list[Exercise]:
    """All exercises of a notebook's cells. Raises ValueError, in words, for one that is not in the convention."""
    return [exercise(cells, i) for i, cell in enumerate(cells) if cell["cell_type"] == "code" and BEGIN in source(cell)]


def exercise(cells: Sequence[dict[str, Any]], solution: int) -> Exercise:
    """The exercise whose solution is in cell `solution`."""
    code = source(cells[solution])
    marks = [line.strip() for line in code.split("\n") if line.strip() in (BEGIN, END)]
    if marks != [BEGIN, END]:
        raise ValueError(f"cell {solution} has the markers {marks}: expected one {BEGIN}, then one {END}")
    above = next((source(c) for c in reversed(cells[:solution]) if c["cell_type"] == "markdown"), "")
    headings = HEADING.findall(above)
    if not headings:
        raise ValueError(f"cell {solution} has no '### Exercise N: title' in the text cell above it")
    number, title = headings[-1]
    hint = HINT.search(above.split(f"### Exercise {number}:")[-1])
    if not hint:
        raise ValueError(f"exercise {number} has no '*Hint*: …' in its text")
    check = next((i for i in range(solution + 1, len(cells)) if cells[i]["cell_type"] == "code"), None)
    if check is None or f"Exercise {number} passed" not in source(cells[check]):
        raise ValueError(f"exercise {number}: the next code cell does not print 'Exercise {number} passed: …'")
    return Exercise(int(number), title.strip(), " ".join(hint[1].split()), solution, check)


def foundation(cells: Sequence[dict[str, Any]], one: Exercise) -> list[int]:
    """The code cells, in order, that an exercise and its check stand on: who defines their names, and so on down.

    A name is the work of the last cell before that binds it; the names inside a function are looked up when it is
    called, so for these both times count: where it is defined, and where it is used. A cell that only changes an object
    which an earlier one made is not seen: bind the result (`net = trained(net)`).
    """
    names = {i: Names.of(source(c)) for i, c in enumerate(cells[: one.check + 1]) if c["cell_type"] == "code"}
    todo = {(name, one.solution) for i in (one.solution, one.check) for name in names[i].needed()}
    found, seen = set(), set()
    while todo:
        name, before = looked_up = todo.pop()
        maker = last_binding(names, name, before)
        if maker is None or looked_up in seen:
            continue
        seen.add(looked_up)
        found.add(maker)
        todo |= {(needed, maker) for needed in names[maker].needed()}
        todo |= {(needed, before) for needed in names[maker].later.get(name, ())}
    return sorted(found)


def last_binding(names: dict[int, "Names"], name: str, before: int) -> int | None:
    """The last cell before `before` that binds the name; None if no cell does (a built-in)."""
    return next((i for i in sorted(names, reverse=True) if i < before and name in names[i].bound), None)


class Names(ast.NodeVisitor):
    """What a piece of code needs from outside and what it leaves: read in the order in which Python runs it."""

    def __init__(self, bound: Sequence[str] = ()) -> None:
        self.bound = set(bound)  # names that it binds
        self.now: set[str] = set()  # names it needs when it runs
        self.later: dict[str, set[str]] = {}  # names that each of its functions and classes needs when it is called

    @classmethod
    def of(cls, code: str) -> "Names":
        names = cls()
        names.visit(ast.parse(code))
        return names

    def needed(self) -> set[str]:
        """All names that it needs from outside, now or later."""
        return self.now.union(*self.later.values()) - (self.bound - self.now)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.now |= {node.id} - self.bound
        else:
            self.bound.add(node.id)

    def visit_alias(self, node: ast.alias) -> None:
        self.bound.add((node.asname or node.name).split(".")[0])

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit_all([node.value, *node.targets])

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.now |= {node.target.id} - self.bound
        self.visit_all([node.value, node.target])

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.bound |= {node.name} if node.name else set()
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self.visit_all([node.iter, node.target, *node.body, *node.orelse])

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.visit_all([*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)])
        self.bound.add(node.name)
        self.later[node.name] = free(node.args, node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit_all([*node.args.defaults, *filter(None, node.args.kw_defaults)])
        self.now |= free(node.args, [node.body]) - self.bound  # it may be called at once

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit_all([*node.decorator_list, *node.bases])
        body = Names()
        body.visit_all(node.body)
        self.bound.add(node.name)
        self.now |= body.now - self.bound
        self.later[node.name] = set().union(*body.later.values())

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        body = Names(sorted(self.bound))
        for clause in node.generators:
            body.visit_all([clause.iter, clause.target, *clause.ifs])
        body.visit_all([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])
        self.now |= body.now

    visit_SetComp = visit_GeneratorExp = visit_DictComp = visit_ListComp

    def visit_all(self, nodes: Sequence[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)


def free(arguments: ast.arguments, body: Sequence[ast.AST]) -> set[str]:
    """The names that a function's body takes from outside; what it binds is its own, wherever in it that stands."""
    inner = Names([a.arg for a in ast.walk(arguments) if isinstance(a, ast.arg)])
    inner.visit_all(body)
    return inner.now.union(*inner.later.values()) - inner.bound
