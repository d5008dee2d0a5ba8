"""Small changes of the meaning of Python source code, found in its syntax tree."""

import ast
import copy
import re
from collections.abc import Iterator
from typing import NamedTuple

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
REDUCTIONS = {
    **{"mean": "sum", "nanmean": "nansum", "sum": "mean", "median": "mean"},
    **{"min": "max", "max": "min", "amin": "amax", "amax": "amin"},
    **{"minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any"},
    **{"argmin": "argmax", "argmax": "argmin", "floor": "ceil", "ceil": "floor"},
    **{"std": "var", "var": "std"},
}
AXES = {"axis", "dim", "dims"}
SEEDED_CALLS = {"default_rng", "manual_seed", "RandomState", "SeedSequence"}
"""Functions whose first argument is a seed."""
SYMMETRIC_CALLS = {"isinstance", "issubclass", "getattr", "hasattr", "min", "max"}
SYMMETRIC_CALLS |= {"minimum", "maximum", "isclose", "zip", "gcd", "lcm", "fields"}
"""Functions whose first two arguments stay, as the exchange has no effect or fails."""
TEXT_CALLS = {"print", "warn", "warning", "info", "debug", "caveat", "say"}
TEXT_CALLS |= {"announce", "advance", "expect"}
"""Functions that write messages or draw progress."""
TEXT_NAMES = {"problem", "hint", "message", "text", "title", "label", "caption"}
TEXT_NAMES |= {"description", "help", "words", "note", "remedy", "advice", "epilog"}
"""Names of values that people read."""
TEXT_FUNCTIONS = re.compile(
    r"__repr__|__str__|_?(say|describe|draw|plot|explain|format|name|phrase|warn|report)_"
)
SMALL_PARTS = "TINY"
"""Name of the small settings of a part, which only tests use."""
COST_NAMES = re.compile(r"AT_ONCE|BYTES|CHUNK|BLOCK|BATCH|CACHE|_S$|_MS$|THREAD|WORKER")
"""Constants that affect only memory or time."""
LARGEST_CONSTANT = 1000
"""Larger constants are sizes of blocks, or numbers of random draws."""


class Mutant(NamedTuple):
    """Change of a file that replaces the bytes from `start` to `stop`."""

    path: str
    line: int
    kind: str
    start: int
    stop: int
    before: str
    after: str

    def apply(self, source: bytes) -> bytes:
        """Return the changed source."""
        return source[: self.start] + self.after.encode() + source[self.stop :]


def find_mutants(path: str, source: bytes) -> list[Mutant]:
    """Find all changes of a file, in the order of its lines.

    Args:
        path: The file's path, for the mutants.
        source: Its content in UTF-8.
    """
    tree = ast.parse(source)
    line_starts = [0]
    for line in source.splitlines(keepends=True):
        line_starts.append(line_starts[-1] + len(line))

    mutants = []
    for node, kind, after in _Finder(tree).find():
        start = line_starts[node.lineno - 1] + node.col_offset
        assert node.end_lineno is not None and node.end_col_offset is not None
        stop = line_starts[node.end_lineno - 1] + node.end_col_offset
        before = source[start:stop].decode()
        mutant = Mutant(path, node.lineno, kind, start, stop, before, after)
        if after != before:
            mutants.append(mutant)
    return sorted(set(mutants), key=lambda mutant: (mutant.start, mutant.after))


def is_valid(source: bytes) -> bool:
    """Return True if Python can compile the source."""
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


Change = tuple[ast.expr | ast.stmt, str, str]
"""The node that is replaced, the kind of the change, and the new code."""


class _Finder:
    """Walk through a tree without annotations, patterns and texts for people."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.identifiers = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                self.identifiers.add(node.id)
            elif isinstance(node, ast.Attribute):
                self.identifiers.add(node.attr)

    def find(self) -> Iterator[Change]:
        """Yield all changes of the tree."""
        yield from self._walk(self.tree, in_function=False)

    def _walk(self, node: ast.AST, in_function: bool) -> Iterator[Change]:
        """Yield the changes of a node and its descendants."""
        if self._is_left_out(node, in_function):
            return
        yield from self._change(node, in_function)
        in_function = in_function or isinstance(node, ast.FunctionDef | ast.Lambda)
        for child in self._children(node):
            yield from self._walk(child, in_function)

    def _is_left_out(self, node: ast.AST, in_function: bool) -> bool:
        """Return True for texts, error messages, types, and constants of cost."""
        match node:
            case ast.Raise() | ast.JoinedStr() | ast.pattern() | ast.Assert():
                return True
            case ast.Import() | ast.ImportFrom():
                return True
            case ast.FunctionDef(name=name):
                return bool(TEXT_FUNCTIONS.match(name))
            case ast.Call(func=function):
                name = _last_name(function)
                return name in TEXT_CALLS or name.endswith(("Error", "Warning"))
            case ast.keyword(arg=str(name)):
                # lengths that `strict` compares differ only by a bug
                return name in TEXT_NAMES or name == "strict"
            case (
                ast.Assign(targets=[ast.Name(id=name)])
                | ast.AnnAssign(target=ast.Name(id=name))
            ):
                is_left_out = name in TEXT_NAMES or name == SMALL_PARTS
                return is_left_out or bool(not in_function and COST_NAMES.search(name))
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                return True
            case ast.Constant(value=int() | float() as value) if not in_function:
                return value > LARGEST_CONSTANT
            case ast.BinOp(op=ast.Pow()):
                return not in_function
        return False

    def _children(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield the children of a node that hold statements or values."""
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from node.args.defaults
                yield from (value for value in node.args.kw_defaults if value)
                yield from node.body
            case ast.Lambda():
                yield node.body
            case ast.ClassDef():
                yield from node.body
            case ast.AnnAssign():
                if node.value:
                    yield node.value
            case _:
                yield from ast.iter_child_nodes(node)

    def _change(self, node: ast.AST, in_function: bool) -> Iterator[Change]:
        """Yield the changes of a node."""
        match node:
            case ast.Compare():
                yield from _change_comparison(node)
            case ast.BoolOp():
                yield from _drop_conditions(node)
            case ast.BinOp():
                yield from _change_arithmetic(node)
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                is_not = isinstance(node.op, ast.Not)
                yield node, "condition" if is_not else "sign", _code(operand)
            case ast.If(test=test):
                yield test, "condition", "False"
                yield test, "condition", "True"
            case ast.IfExp(body=body, orelse=other):
                yield node, "condition", _code(body)
                yield node, "condition", _code(other)
            case ast.comprehension(ifs=tests):
                for test in tests:
                    yield test, "condition", "True"
            case ast.Call():
                yield from _change_call(node)
            case ast.Constant():
                yield from _change_constant(node)
            case ast.Slice():
                for end in (node.lower, node.upper):
                    if end and not isinstance(end, ast.Constant | ast.UnaryOp):
                        yield end, "off by one", f"({ast.unparse(end)}) + 1"
            case (
                ast.Name(ctx=ast.Load(), id=name)
                | ast.Attribute(ctx=ast.Load(), attr=name)
            ):
                new_name = _exchange_splits(name)
                if new_name != name and new_name in self.identifiers:
                    code = ast.unparse(node).removesuffix(name) + new_name
                    yield node, "split", code
            case ast.stmt() if in_function and _can_be_dropped(node):
                yield node, "statement", "pass"


def _code(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"


def _last_name(function: ast.expr) -> str:
    """Return the name of a called function, without its module."""
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _exchange_splits(name: str) -> str:
    """Exchange "train" and "test" in a name."""
    words = {"train": "test", "test": "train", "training": "test", "tested": "trained"}
    return "_".join(words.get(word, word) for word in name.split("_"))


def _change_comparison(node: ast.Compare) -> Iterator[Change]:
    """Move the boundary of an inequality, reverse it, or negate an equality."""
    for position, operator in enumerate(node.ops):
        for replacement in COMPARISONS[type(operator)]:
            changed = copy.deepcopy(node)
            changed.ops[position] = replacement()
            yield node, "comparison", _code(changed)


def _drop_conditions(node: ast.BoolOp) -> Iterator[Change]:
    """Drop an operand of `and` or `or`."""
    for position in range(len(node.values)):
        changed = copy.deepcopy(node)
        del changed.values[position]
        condition = changed if len(changed.values) > 1 else changed.values[0]
        yield node, "condition", _code(condition)


def _change_arithmetic(node: ast.BinOp) -> Iterator[Change]:
    """Exchange an operator, unless an operand is a text or a path."""
    for operand in (node.left, node.right):
        if isinstance(operand, ast.JoinedStr | ast.List | ast.Tuple | ast.Dict):
            return
        if isinstance(operand, ast.Constant) and isinstance(operand.value, str):
            return
    operator = ARITHMETIC.get(type(node.op))
    if operator is not None:
        changed = copy.deepcopy(node)
        changed.op = operator()
        is_sign = isinstance(node.op, ast.Add | ast.Sub)
        yield node, "sign" if is_sign else "arithmetic", _code(changed)


def _change_call(node: ast.Call) -> Iterator[Change]:
    """Exchange a reduction or two arguments, or change an axis, ddof or a seed."""
    name = _last_name(node.func)
    if name in REDUCTIONS:
        function = copy.deepcopy(node.func)
        if isinstance(function, ast.Attribute):
            function.attr = REDUCTIONS[name]
        elif isinstance(function, ast.Name):
            function.id = REDUCTIONS[name]
        yield node.func, "reduction", ast.unparse(function)

        # .mean(1): the axis is the only argument
        match node.args:
            case [ast.Constant(value=int(axis)) as argument] if not isinstance(
                axis, bool
            ):
                yield argument, "axis", str(int(axis == 0))

    for keyword in node.keywords:
        value = keyword.value
        number = ast.unparse(value)
        if keyword.arg in AXES and re.fullmatch(r"-?\d", number):
            yield value, "axis", "1" if number == "0" else "0"
        elif keyword.arg in ("ddof", "correction") and number in ("0", "1"):
            yield value, "ddof", str(1 - int(number))
        elif keyword.arg == "seed" and not isinstance(value, ast.Constant):
            yield value, "seed", "0"
    match node.args:
        case [seed, *_] if name in SEEDED_CALLS and not isinstance(seed, ast.Constant):
            yield seed, "seed", "0"
        case [ast.Name() | ast.Attribute() | ast.Subscript(), second, *_] if (
            name not in SYMMETRIC_CALLS
            and isinstance(second, ast.Name | ast.Attribute | ast.Subscript)
        ):
            changed = copy.deepcopy(node)
            changed.args[:2] = changed.args[1::-1]
            yield node, "arguments", ast.unparse(changed)


def _change_constant(node: ast.Constant) -> Iterator[Change]:
    """Negate a truth value, increase a count, double a number, or change a split."""
    match node.value:
        case bool(value):
            yield node, "constant", str(not value)
        case int(value) if value <= 10:
            yield node, "off by one", str(value + 1)
        case int(value) if value <= LARGEST_CONSTANT:
            yield node, "constant", str(2 * value)
        case float(value):
            yield node, "constant", str(2 * value if value else 1.0)
        case "train" | "test" as split:
            yield node, "split", repr("test" if split == "train" else "train")


def _can_be_dropped(node: ast.stmt) -> bool:
    """Return True for calls without a result, and values that are changed in place."""
    match node:
        case ast.Expr(value=ast.Call(func=function)):
            return _last_name(function) not in TEXT_CALLS
        case ast.AugAssign() | ast.Assign(targets=[ast.Subscript()]) | ast.Continue():
            return True
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            names = [part.id for part in ast.walk(value) if isinstance(part, ast.Name)]
            return name in names
    return False
