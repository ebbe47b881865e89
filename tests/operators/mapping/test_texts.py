from __future__ import annotations

import pytest

from headrace.errors import UsageError
from operators.judging import Rejected
from operators.mapping.markup import MARKUP
from operators.mapping.texts import text_of

RECORD = {
    "title": "Stool",
    "body": "Three legs.",
    "empty": " ",
    "null": None,
    "n": 1.5,
    "yes": True,
    "tags": ["oak", 2, None],
    "deep": [["x"]],
    "object": {"a": 1},
}


def made(source: str | list[str], markup: str = "none") -> str:
    """The text of the record."""
    return text_of(source, MARKUP[markup])(RECORD)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{/title}. {/body}", "Stool. Three legs."),
        ("{/title}. {/null?}", "Stool."),
        ("{{{/title}}}", "{Stool}"),
        ("/body", "Three legs."),
        ("{/n} {/yes} {/tags}", "1.5 true oak, 2"),
        (["/title", "/none", "/empty", "/body"], "Stool\nThree legs."),
        ("jmespath: join(' ', [title, body])", "Stool Three legs."),
        ("jmespath:[title, body]", "Stool, Three legs."),
        ("jmespath:none", ""),
    ],
)
def test_makes(source: str | list[str], text: str) -> None:
    """Templates, pointers, lists of them and expressions make the text that the docs say."""
    assert made(source) == text


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("{/title}. {/none}", "no_text", "/none: nothing is there"),
        ("{/null}", "no_text", "/null: nothing is there"),
        ("words {/none?}", "no_text", "/none: no text is there"),
        (["/none", "/empty"], "no_text", "/none, /empty: no text is there"),
        ("{/object}", "bad_schema", "/object: must be text, a number or a list, is an object"),
        ("{/deep}", "bad_schema", "/deep: holds an array in an array"),
        ("jmespath:contains(title, null)", "bad_schema", "contains.*"),
        ("jmespath:title < n", "bad_schema", "title < n.*"),
        ("jmespath:merge(object, title)", "bad_schema", "merge.*"),
        ("jmespath:tags[::0]", "bad_schema", r"tags\[::0\].*"),
        ("jmespath:join(' ', n)", "bad_schema", r"join.*\(source.text\)"),
    ],
)
def test_rejects(source: str | list[str], code: str, message: str) -> None:
    """A record that has no text where it should is a dead letter that names the place."""
    with pytest.raises(Rejected, match=message) as caught:
        made(source)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "source", ["{title}", "{/a", "/a}", "}{", "title", "jmespath:a ||", "{{/a}}", "", []]
)
def test_refuses(source: str | list[str]) -> None:
    """What is no text's place is refused at once, by the setting's name."""
    with pytest.raises(UsageError, match=r"^source\.text: "):
        made(source)


@pytest.mark.parametrize(
    ("markup", "given", "text"),
    [
        ("none", "a <b>&amp;</b>", "a <b>&amp;</b>"),
        (
            "html",
            "<h1>Stool</h1><p>Three <b>le</b>gs &amp; oil<br>new</p>",
            "Stool\n\nThree legs & oil\nnew",
        ),
        ("html", "<script>alert(1)</script><style>p{}</style>words", "words"),
        ("html", "2 < 3", "2 < 3"),
        ("html", "<!-- nothing -->", ""),
        ("markdown", "# Stool\n\n*Three* [legs](http://x/) & `oil`", "Stool\n\nThree legs & oil"),
        ("markdown", "|a|b|\n|-|-|\n|1|2|", "a  b\n1  2"),
        ("markdown", "plain", "plain"),
    ],
)
def test_reduces_markup(markup: str, given: str, text: str) -> None:
    """HTML and Markdown become what a person reads: no tags, no scripts, words left whole."""
    assert MARKUP[markup](given) == text


@pytest.mark.parametrize("unit", ["![[", "[", "*a ", "<", "> ", "<div>", "&", "`` ", "| "])
def test_long_markup(unit: str) -> None:
    """Neither parser is quadratic in what makes others so: the largest record takes no minute."""
    text = unit * (900_000 // len(unit))
    assert isinstance(MARKUP["markdown"](text), str)


def test_markup_of_each_value() -> None:
    """A template's own words are no markup."""
    record = {"a": "<b>x</b>", "b": "y"}
    assert text_of("<{/a}> {/b}", MARKUP["html"])(record) == "<x> y"
