"""Text without a declared encoding: what is certain, what is guessed, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.errors import TrainerError
from trainers.files.encodings import check_encoding, decode_text, guess_encoding

TEXTS = {
    "gb18030": ("玻璃/1.jpg", "金属/1", "塑料瓶/1", "废纸", "厨余垃圾", "其他垃圾"),
    "cp932": ("金属/1", "プラスチック", "ガラス"),
    "cp949": ("유리병/1", "종이컵", "플라스틱"),
    "big5": ("玻璃/1", "紙張/2", "塑膠"),
    "cp1252": ("Käse/1", "Größe", "façade"),
    "cp1251": ("стекло/1", "Бумага"),
    "cp866": ("стекло/1", "Бумага"),
    "cp437": ("Käse/1", "Größe", "façade"),
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_texts_of_one_language_are_recognised(encoding: str) -> None:
    assert guess_encoding([text.encode(encoding) for text in TEXTS[encoding]], "ascii") == encoding


@pytest.mark.parametrize("encoding", TEXTS)
def test_utf_8_is_never_guessed_away(encoding: str) -> None:
    assert guess_encoding([text.encode() for text in TEXTS[encoding]], "ascii") == "utf-8"
    assert guess_encoding([b"plain"], "cp437") == "utf-8"


def test_what_is_plausible_in_no_encoding_gets_the_default() -> None:
    assert guess_encoding([b"\xb0\xb1\xdb\xff\xfe\x81"], "cp437") == "cp437"


@given(st.binary(max_size=200))
def test_any_bytes_are_text(data: bytes) -> None:
    text, encoding = decode_text(data)
    assert isinstance(text, str)
    assert check_encoding(encoding) == encoding


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufeff\0"), max_size=50))
def test_marked_and_plain_unicode_come_back(text: str) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert decode_text(text.encode(encoding))[0] == text, encoding


def test_an_encoding_must_be_known_and_fit() -> None:
    for name in ("klingon", "hex", "a\0b"):
        with pytest.raises(TrainerError, match="there is no text encoding"):
            check_encoding(name)
    with pytest.raises(TrainerError, match="it is not ascii: ordinal not in range"):
        decode_text("ä".encode("cp1252"), "ascii")
