from __future__ import annotations

import pytest

from supermerge.report.markdown import escaped, fenced, url


def test_ordinary_names_stay_readable() -> None:
    assert escaped("20 news-groups, v1.2 (test)") == "20 news-groups, v1.2 (test)"
    assert escaped("It moved: by 95 %") == "It moved: by 95 %"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a|b", r"a\|b"),
        ("<b>", r"\<b\>"),
        ("[a](b)", r"\[a\](b)"),
        ("`x` *y* _z_", r"\`x\` \*y\* \_z\_"),
        ("two\nlines\r\n\tand\x00 more\u202e", "two lines and more"),
        ("https://x.y", r"https\://x.y"),
        ("WWW.x.y", r"www\.x.y"),
        ("a\\|b", r"a\\\|b"),
        ("&lt;", r"\&lt;"),
        ("@who #1 $x$", r"\@who \#1 \$x\$"),
    ],
)
def test_marks_are_escaped(text: str, safe: str) -> None:
    assert escaped(text) == safe


def test_a_fence_is_longer_than_any_in_its_text() -> None:
    assert fenced("a", "sh") == "```sh\na\n```"
    assert fenced("x ```` y").startswith("`````\n")


def test_an_address_cannot_leave_its_brackets() -> None:
    assert url("https://a.b/c>d e") == "https://a.b/c%3Ed%20e"
