"""Names that a page of the documentation does not break."""

from scripts.whole_names import on_page_content


def test_each_word_of_code_stays_whole() -> None:
    page = on_page_content("<p>With <code>--on-bad-row skip</code> rows are left out.</p>")
    assert page == (
        '<p>With <code><span class="whole">--on-bad-row</span> <span class="whole">skip</span></code> rows are left out.</p>'
    )


def test_a_word_that_is_too_long_for_a_phone_may_break() -> None:
    page = f"<code>{'x-' * 19}</code>"
    assert on_page_content(page) == page


def test_a_character_that_is_escaped_is_one() -> None:
    assert on_page_content(f"<code>{'&lt;' * 36}</code>") == f'<code><span class="whole">{"&lt;" * 36}</span></code>'


def test_a_block_of_code_is_left_as_it_is() -> None:
    page = "<pre><span></span><code>pinecone-embed demo\n</code></pre>"
    assert on_page_content(page) == page
