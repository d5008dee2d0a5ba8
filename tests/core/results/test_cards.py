"""Cards of notebooks: their texts are escaped, and long tables are cut."""

from brainhive_cli.core.results.cards import MAX_CARD_ROWS, draw_card

SCRIPT = "<script>alert('x')</script>"


def test_every_text_of_a_card_is_escaped():
    card = draw_card(
        SCRIPT, [SCRIPT], (SCRIPT,), [[SCRIPT]], [SCRIPT], link=f'"{SCRIPT}'
    )
    assert "<script" not in card
    assert card.count("&lt;script&gt;") == 6
    assert 'href="&quot;&lt;script' in card


def test_a_card_keeps_the_colours_of_the_notebook():
    card = draw_card("a", ["b"], ("c",), [["d"]], ["e"])
    assert "color:" not in card.replace("border-color", "")
    assert "background" not in card
    assert "<a " not in card


def test_a_long_table_is_cut_and_the_cut_rows_are_counted():
    rows = [[f"row {number}", 0.5] for number in range(MAX_CARD_ROWS + 3)]
    card = draw_card("a", (), ("name", "value"), rows)
    assert card.count("<tr>") == MAX_CARD_ROWS + 1  # and the headings
    assert "3 more rows" in card
    assert "0.500" in card
