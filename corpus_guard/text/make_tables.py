"""
Writes ``code_points.tsv``, the normaliser's table, from this Python's Unicode data.

Run by people when the rules change (``python -m corpus_guard.text.make_tables``), never at run time: the
committed table makes findings independent of the Python version a worker happens to have. Whoever
changes the table raises ``NORMALISER_VERSION``. Left out for now: traditional to simplified Chinese,
which will be lines of this same table.
"""

import sys
import unicodedata
from pathlib import Path

TABLE = Path(__file__).with_name("code_points.tsv")

DELETED = frozenset(
    [0x00, 0xAD, 0x034F, 0x061C, 0x180E]  # NUL, soft hyphen, grapheme joiner, Arabic letter mark, vowel separator
    + [*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)]  # zero width and direction marks
    + [0xFEFF, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), *range(0xE0000, 0xE0080)]  # selectors, tags
)
LOOK_ALIKE = {
    "'": "\u2018\u2019\u201a\u201b\u02bc\u2032",
    '"': "\u201c\u201d\u201e\u201f\u2033",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212",
}
# Scripts written without spaces between words, and Hangul, whose particles follow a Latin word directly:
# a neighbour of these says nothing about where a word ends.
UNSEPARATED = (
    "CJK", "HIRAGANA", "KATAKANA", "HENTAIGANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "YI", "NUSHU", "TANGUT", "KHITAN",
    "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "BALINESE", "JAVANESE",
    "NEW TAI LUE", "TAI LE", "TAI THAM", "TAI VIET",
)  # fmt: skip


def fold(code: int) -> int:
    """The code point that stands for *code*; 0 deletes it. Folds that would make two characters are not made."""
    if code in DELETED:
        return 0
    char = chr(code)
    if unicodedata.category(char) in ("Cn", "Co", "Cs"):
        return code
    if char.isspace() or unicodedata.category(char) in ("Zs", "Zl", "Zp"):
        return 0x20
    for plain, others in LOOK_ALIKE.items():
        if char in others:
            return ord(plain)
    for _ in range(4):  # NFKC and case feed each other (full-width capitals, letter-like symbols)
        before = char
        for folded in (unicodedata.normalize("NFKC", char), char.lower(), char.casefold()):
            if len(folded) == 1:
                char = folded if folded != before else char
                if char != before:
                    break
        if char == before:
            break
    return ord(char)


def separates_words(code: int) -> bool:
    """Whether *code* is a letter, digit or mark of a script that separates words."""
    char = chr(code)
    if unicodedata.category(char)[0] not in "LNM":
        return False
    name = unicodedata.name(char, "")
    return bool(name) and not name.startswith(UNSEPARATED)


def lines() -> list[str]:
    """The table as lines: ``fold`` first last delta, and ``word`` first last, hexadecimal, runs joined."""
    folds = [(code, fold(code)) for code in range(sys.maxunicode + 1)]
    final = {code: to for code, to in folds if to != code}
    rows: list[tuple[int, int, str]] = []
    for code, to in final.items():
        to = final.get(to, to)  # applying the table twice must change nothing
        what = "x" if to == 0 else f"{to - code:+x}"
        if rows and rows[-1][1] == code - 1 and rows[-1][2] == what:
            rows[-1] = (rows[-1][0], code, what)
        else:
            rows.append((code, code, what))
    words: list[tuple[int, int]] = []
    for code in filter(separates_words, range(sys.maxunicode + 1)):
        if words and words[-1][1] == code - 1:
            words[-1] = (words[-1][0], code)
        else:
            words.append((code, code))
    return (
        [f"# Unicode {unicodedata.unidata_version}. Made by corpus_guard.text.make_tables; do not edit."]
        + [f"fold\t{first:x}\t{last:x}\t{what}" for first, last, what in rows]
        + [f"word\t{first:x}\t{last:x}" for first, last in words]
    )


if __name__ == "__main__":
    TABLE.write_text("\n".join(lines()) + "\n", encoding="utf-8", newline="\n")
