"""The faults that `tools.mutants` plants."""

import pytest

from tools.mutants.faults import FAULTS, fixed_mutant
from tools.mutants.operators import find_mutants, is_valid


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("if a < b: go()", {"if (a <= b): go()", "if (a > b): go()"}),
        ("x = a and b", {"x = (a)", "x = (b)"}),
        ("x = [i for i in y if i]", {"x = [i for i in y if True]"}),
        ("x = a + b", {"x = (a - b)"}),
        ("x = y[a:b]", {"x = y[(a) + 1:b]", "x = y[a:(b) + 1]"}),
        ("x = y.mean(1)", {"x = y.sum(1)", "x = y.mean(0)"}),
        ("x = y.cumsum(axis=-1)", {"x = y.cumsum(axis=0)", "x = y.cumsum(axis=-2)"}),
        ("x = y.std(ddof=1)", {"x = y.std(ddof=0)", "x = y.var(ddof=1)"}),
        ("def f(): y.sort()", {"def f(): pass"}),
        ("def f(): x = g(x, y)", {"def f(): pass", "def f(): x = g(y, x)"}),
        ("x = is_true('train')", {"x = is_true('test')"}),
        ("x = train if test else a", {"x = test if test else a"}),
        ("x = default_rng(seed)", {"x = default_rng(0)"}),
        ("x = split(seed=seeds[i])", {"x = split(seed=0)"}),
    ],
)
def test_each_kind_of_fault_is_found(code, changed):
    source = code.encode()
    mutants = {mutant.apply(source).decode() for mutant in find_mutants("x.py", source)}
    assert changed <= mutants
    assert all(is_valid(mutant.encode()) for mutant in mutants)


@pytest.mark.parametrize(
    "code",
    [
        "def __repr__(self): return self.a + self.b",
        "raise BrainhiveError(f'{a + b} trials')",
        "problem = 'few' if a < b else 'many'",
        "def draw_curve(axes, x): axes.plot(x + 1)",
        "x: Literal[1]",
        "BYTES_AT_ONCE = 512",
        "for a, b in zip(x, y, strict=True): bar.advance(a + b)",
    ],
)
def test_texts_types_figures_and_sizes_are_left_out(code):
    assert find_mutants("x.py", code.encode()) == []


def test_a_fault_knows_its_place_beyond_letters_of_several_bytes():
    source = "x = 'ä×', a < b".encode()
    (mutant, _) = find_mutants("x.py", source)
    assert (mutant.line, mutant.before) == (1, "a < b")
    assert mutant.apply(source).decode() == "x = 'ä×', (a <= b)"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.code.strip()[:40])
def test_the_package_has_the_code_of_each_fixed_fault_once(fault):
    mutant = fixed_mutant(fault)
    assert mutant.before == fault.code != fault.fault
