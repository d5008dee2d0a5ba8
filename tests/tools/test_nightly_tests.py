"""The list of nightly tests on the page on developing."""

from tests.test_architecture import REGENERATE
from tools import nightly_tests


def test_the_page_lists_all_nightly_tests():
    text = nightly_tests.write_list()
    assert text.count("\n- ") > 50
    assert text in nightly_tests.PAGE.read_text(), REGENERATE


def test_tests_and_cases_with_the_mark_are_listed(tmp_path):
    path = tmp_path / "test_a.py"
    path.write_text(
        "@pytest.mark.nightly\n"
        "def test_a_long_run(): pass\n"
        "@pytest.mark.parametrize('n', [pytest.param(1, marks=pytest.mark.nightly)])\n"
        "def test_some_cases(n): pass\n"
        "def test_a_quick_run(): pass\n"
    )
    assert list(nightly_tests.list_nightly_tests(path)) == ["a long run", "some cases"]
