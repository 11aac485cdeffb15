from pinecone_embed_async.emulator._tokens import count_tokens


def test_tokens_are_words_and_pieces_not_characters_divided_by_a_constant() -> None:
    assert count_tokens("") == 2
    assert count_tokens("a b c") == count_tokens("cat dog fox") == 5
    assert count_tokens("internationalization") > count_tokens("cat")
    assert count_tokens("日本語") == 5
    assert count_tokens("one, two!") == 6
