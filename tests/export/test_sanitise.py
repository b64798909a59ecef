"""Hostile values and secrets: bounded, plain and masked before anything is queued."""

from __future__ import annotations

import copy
import datetime
import decimal
import random
import time
import uuid
from types import MappingProxyType

import pytest

from support.secret_shapes import ORDINARY, SECRET_PARTS, SECRETS, TOKEN
from watchkeep.export import mask, sanitise
from watchkeep.export.encode import encode_spans
from watchkeep.export.mask import telling
from watchkeep.export.model import Resource, Scope, SpanData
from watchkeep.export.sanitise import clean_attributes, clean_text, clean_value


class Raises:
    """Raises at whatever it is asked."""

    def __getattribute__(self, name):
        raise RuntimeError(name)

    def __str__(self):
        raise RuntimeError

    __repr__ = __iter__ = __len__ = __eq__ = __bool__ = __call__ = __str__
    __hash__ = object.__hash__


class Recurses:
    def __str__(self):
        return str(self)

    __repr__ = __str__


class Sly(type):
    """A metaclass that raises when its class is asked for its name."""

    def __getattribute__(cls, name):
        if name in ("__name__", "__module__", "__qualname__"):
            raise RuntimeError
        return super().__getattribute__(name)


class OfSly(metaclass=Sly):
    pass


class Text(str):
    def __str__(self):
        raise RuntimeError

    __len__ = __iter__ = __eq__ = encode = isascii = __str__
    __hash__ = str.__hash__


class Number(int):
    def __int__(self):
        raise RuntimeError

    __index__ = __str__ = __eq__ = __lt__ = __le__ = __int__
    __hash__ = int.__hash__


class Real(float):
    def __float__(self):
        raise RuntimeError

    __str__ = __eq__ = __float__
    __hash__ = float.__hash__


class Mapping(dict):
    def items(self):
        raise RuntimeError

    __iter__ = __len__ = __getitem__ = keys = values = items


class Sequence(list):
    def __iter__(self):
        raise RuntimeError

    __len__ = __getitem__ = __iter__


def generator():
    yield from iter(lambda: 1, 2)


def cycle():
    made = {"list": []}
    made["list"].append(made)
    return made


def deep(levels=5000):
    made = []
    for _ in range(levels):
        made = [made]
    return made


HOSTILE = [
    *("\ud800", "\udfff", "a\udc00\ud800b", "😀\ud83d", "\x00", "a\x00b", "".join(map(chr, range(32))), "\x7f\x80\x9f"),
    *(
        "\x1b[31m",
        "\x1b]8;;http://x\x07",
        "\u202e",
        "\u200b" * 50,
        "\u2028",
        "e" + "\u0301" * 10_000,
        "",
        "x" * 1_000_000,
    ),
    *("日" * 100_000, b"\xff\xfe", b"\x00" * 100_000, bytearray(b"abc"), 2**63, -(2**63) - 1, 10**5000, float("nan")),
    *(float("inf"), -0.0, decimal.Decimal("1.5"), uuid.uuid4(), datetime.date(2026, 1, 1), 1j, ..., NotImplemented),
    *(Raises(), Recurses(), OfSly(), Text("plain"), Number(5), Real(1.5), Mapping(a=1), Sequence([1, 2])),
    *(
        generator(),
        cycle(),
        deep(),
        [deep(), deep()],
        {Raises(): 1, None: 2, 3: 4, 1.5: 5, ("a",): 6},
        object(),
        object,
    ),
    *(set("abc"), frozenset([1]), MappingProxyType({"a": 1}), range(10**9), memoryview(b"abc"), lambda: 1, open, len),
    *(list(range(10_000)), dict.fromkeys(map(str, range(10_000)), 1), [[[1] * 100] * 100] * 100, (1, (2, (3,)))),
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_no_value_raises_and_each_is_bounded_and_can_be_sent(number):
    """Whatever is put into an attribute, a plain, bounded value comes out that the encoder takes."""
    value = HOSTILE[number]
    cleaned = clean_attributes({"key": value, "nested": [value, {"deep": value}]})
    assert nodes(cleaned) < 1200
    sent = encode_spans([SpanData("s", 1, 1, 0, 1, 1, 2, cleaned, Scope("t"))], Resource({}))
    assert len(sent) < 120_000


def nodes(value):
    assert type(value) in (str, int, float, bool, bytes, type(None), list, dict)
    if type(value) is dict:
        assert all(type(key) is str for key in value)
        return 1 + sum(map(nodes, value.values()))
    return 1 + sum(map(nodes, value)) if type(value) is list else 1


def test_the_input_is_never_changed():
    """What the app holds is the same afterwards, item by item."""
    held = {"a": [1, {"b": Text("x"), "api_key": "y"}], "c": ("z" * 20_000, deep(20)), "\ud800": {1, 2}}
    before = (list(held.items()), list(held["a"]), list(held["a"][1].items()))
    clean_attributes(held)
    after = (list(held.items()), list(held["a"]), list(held["a"][1].items()))
    for left, right in zip(before, after, strict=True):
        assert [id(each) for each in left] == [id(each) for each in right] or all(
            one is other for pair in zip(left, right, strict=True) for one, other in zip(*pair, strict=True)
        )


def test_generated_values_are_cleaned_without_an_exception():
    """5,000 generated nestings of hostile pieces come out plain."""
    dice = random.Random(7)

    def make(depth=0):
        draw = dice.random()
        if depth > 10 or draw < 0.5:
            return dice.choice(HOSTILE)
        if draw < 0.75:
            return [make(depth + 1) for _ in range(dice.randint(0, 3))]
        return {dice.choice(["a", "\ud800", "api_key", 5]): make(depth + 1) for _ in range(dice.randint(0, 3))}

    sanitise.configure(256)
    try:
        for _ in range(5000):
            nodes(clean_attributes({"value": make()}))
    finally:
        sanitise.configure(8192)


def test_a_generator_is_not_touched():
    """An app's generator has as many items left afterwards as before."""
    items = iter([1, 2, 3])
    clean_attributes({"items": items, "nested": [items]})
    assert list(items) == [1, 2, 3]


def test_plain_values_pass_as_they_are():
    """What needs no cleaning is not changed."""
    plain = {"a": "text", "b": 1, "c": 1.5, "d": True, "e": None, "f": ["x", 1], "g": {"h": b"i"}, "naïve": "日本"}
    assert clean_attributes(copy.deepcopy(plain)) == plain


def test_values_of_the_standard_library_are_shown():
    """Dates, decimals and the like are text that says what they are."""
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert clean_value([moment, decimal.Decimal("1.50"), uuid.UUID(int=1)]) == [
        str(moment),
        "1.50",
        str(uuid.UUID(int=1)),
    ]


def test_subclasses_are_read_past_what_they_override():
    """A subclass of str, int, dict or list gives its plain value, and none of its own methods runs."""
    cleaned = clean_value([Text("a"), Number(5), Real(1.5), Mapping(a=1), Sequence([1])])
    assert cleaned == ["a", 5, 1.5, {"a": 1}, [1]]
    assert [type(each) for each in cleaned] == [str, int, float, dict, list]


@pytest.mark.parametrize("text", ["x" * 10_000_000, "日" * 50_000, "x" * 8193, "é" * 8000])
def test_long_text_is_cut_to_the_limit_in_bytes(text):
    """A value is at most 8 KiB in UTF-8, and says how long it was."""
    cut = clean_text(text)
    assert len(cut.encode()) <= 8192
    assert cut.endswith(f"...[{len(text)} characters]")


def test_a_secret_on_the_cut_is_masked_whole():
    """Masking looks beyond the cut, so half a key does not pass as no key."""
    assert "abc123def" not in clean_text("x" * 8170 + " sk-proj-abc123def456ghi789jkl012 " + "y" * 100)


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("around", ["{}", "calling {} failed", "({})", "line\n{}\nline"])
def test_a_secret_is_masked_wherever_it_stands_in_text(secret, around):
    """Well-known shapes, and what stands beside a telling name, never leave the process."""
    masked = mask.mask(around.format(secret))
    assert "[masked]" in masked
    assert not any(part in masked for part in SECRET_PARTS)


def test_a_secret_is_masked_in_names_and_nested_values_too():
    """Keys and what is nested are masked like values."""
    secret = f"sk-{TOKEN}"
    assert TOKEN not in str(clean_attributes({secret: 1, "a": [secret, {"b": secret, secret: 2}], "c": (secret,)}))


@pytest.mark.parametrize(
    "key",
    ["api_key", "OPENAI_API_KEY", "http.request.header.authorization", "x-api-key", "db.password", "client_secret"],
)
def test_text_beside_a_telling_key_is_masked_whatever_its_shape(key):
    """The key alone gives a secret away."""
    assert clean_attributes({key: "plain"}) == {key: "[masked]"}
    assert clean_attributes({"headers": {key: ["plain"]}}) == {"headers": {key: "[masked]"}}


@pytest.mark.parametrize(
    "key",
    [
        "gen_ai.token.type",
        "gen_ai.usage.input_tokens",
        "session.id",
        "session_id",
        "key",
        "cache.key.count",
        "error.type",
        "monkey",
    ],
)
def test_ordinary_keys_are_not_telling(key):
    """Names that merely look alike keep their values."""
    assert not telling(key)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_lines_are_left_alone(text):
    """Masking that eats ids, versions and prose would be switched off."""
    assert mask.mask(text) == text


ATTACKS = [
    *("sk-" * 22_000, "-----BEGIN " * 6_000, "-----BEGIN PRIVATE KEY-----" + "-a" * 32_000, "a" * 65_000, "=" * 65_000),
    *(
        "eyJ" * 22_000,
        "eyJa." * 13_000,
        "://" * 22_000,
        "://a" * 16_000,
        "key=" * 16_000,
        "api_key=" * 8_000,
        "%3D" * 22_000,
    ),
    *(
        "bearer " * 9_000,
        "bearer" + " " * 65_000,
        "cookie:" * 9_000,
        "&key=" * 13_000,
        "password" * 8_000,
        "secret_" * 9_000,
    ),
    *(
        '\\"' * 32_000,
        'token"  :  ' * 6_000,
        "SG." * 22_000,
        "-" * 65_000,
        "_" * 65_000,
        "A" * 65_000,
        "x-api-key:'" * 6_000,
    ),
]


@pytest.mark.parametrize("text", ATTACKS, ids=lambda text: text[:12])
def test_hostile_text_of_64_kb_is_masked_in_time(text):
    """No pattern runs away: all of them together take less than 100 ms for 64 kB (least of three)."""
    spent = []
    for _ in range(3):
        mask._harmless.clear()
        start = time.thread_time()
        mask.mask(text)
        spent.append(time.thread_time() - start)
    assert min(spent) < 0.1


def test_a_short_plain_string_costs_one_lookup_the_second_time():
    """What was found harmless is remembered, in bounds."""
    for number in range(10_000):
        mask.mask(f"a value of some length {number}")
    assert len(mask._harmless) <= 4096
