"""Secrets in text, masked: keys by their well-known shapes, and whatever stands beside a telling name.

Every quantifier is bounded and no two neighbours can match the same letters, so hostile text costs no more than
plain text. Most values are short and repeat: those found harmless are remembered, and the rest pass one quick search.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

MASKED = "[masked]"
_SHORTEST = 10
_REMEMBERED = 4096
_LONGEST_REMEMBERED = 128

_harmless: set[str] = set()

# Prefixes that end with - or _, and what follows; the prefix stays, since it says whose key it was.
_PREFIXED = {
    r"[srp]k[-_]": r"(?=[\w-]{0,24}\d)[\w-]{16,256}",  # OpenAI, Anthropic, OpenRouter, DeepSeek, Stripe
    r"gh[oprsu]_": r"\w{20,255}",  # GitHub
    r"github_pat_": r"\w{20,255}",
    r"gl(?:pat|ptt)-": r"[\w-]{16,64}",  # GitLab
    r"gl[rd]t-": r"[\w-]{16,64}",
    r"xox[abceoprs]-": r"[\w-]{10,250}",  # Slack
    r"xapp-": r"[\w-]{10,250}",
    r"GOCSPX-": r"[\w-]{16,64}",  # Google
    r"hf_": r"\w{20,64}",  # Hugging Face
    r"gsk_": r"\w{20,128}",  # Groq
    r"xai-": r"[\w-]{20,128}",  # xAI
    r"r8_": r"\w{20,64}",  # Replicate
    r"pplx-": r"[\w-]{20,128}",  # Perplexity
    r"nvapi-": r"[\w-]{20,128}",  # NVIDIA
    r"pcsk_": r"\w{20,128}",  # Pinecone
    r"lsv2_": r"\w{20,128}",  # LangSmith
    r"fw_": r"\w{20,64}",  # Fireworks
    r"tgp_v1_": r"[\w-]{20,64}",  # Together
    r"npm_": r"\w{30,64}",
    r"pypi-": r"[\w-]{20,256}",
    r"dop_v1_": r"\w{30,80}",  # DigitalOcean
    r"whsec_": r"[\w/+=]{16,128}",  # Stripe's web hooks
    r"shp(?:at|ca|pa|ss)_": r"\w{20,64}",  # Shopify
    r"sq0\w{3}-": r"[\w-]{20,64}",  # Square
    r"key-": r"[0-9a-f]{32}",  # Mailgun
    r"lin_api_": r"\w{20,64}",  # Linear
}
# Shapes without such a prefix, each with the letters that it cannot do without.
_SHAPES = {
    "A": r"A(?<![A-Za-z0-9].)(?:(?:KIA|SIA|ROA|IDA|BIA|CCA)[A-Z0-9]{12,124}|Iza[\w-]{30,64})",  # AWS, Google
    "S": r"S(?<![A-Za-z0-9].)(?:G\.[\w-]{16,64}\.[\w-]{16,64}|K[0-9a-f]{32})",  # SendGrid, Twilio
    "eyJ": r"eyJ(?<![A-Za-z0-9]...)[\w-]{5,2048}\.[\w-]{5,8192}\.[\w-]{0,2048}",  # a JSON Web Token
    "ya29": r"ya29\.(?<![A-Za-z0-9].....)[\w-]{16,2048}",
    "dapi": r"dapi(?<![A-Za-z0-9]....)[0-9a-f]{32}",  # Databricks
    "hooks.slack": r"hooks\.slack\.com/services/[\w/]{10,128}",
}
_BEGINNINGS = (
    r"[srp]k[-_]",
    r"A(?:KIA|SIA|ROA|IDA|BIA|CCA|Iza)",
    r"ya29",
    r"GOCSP",
    r"g(?:h[oprsu]_|ithub_pat|l(?:pat|ptt|rt|dt)-|sk_)",
    r"x(?:ox[abceoprs]-|app-|ai-)",
    r"h(?:f_|ooks\.sl)",
    r"r8_",
    r"p(?:plx-|csk_|ypi-)",
    r"n(?:vapi|pm_)",
    r"d(?:api|op_v1)",
    r"l(?:sv2_|in_api)",
    r"fw_",
    r"tgp_v",
    r"S(?:G\.|K[0-9a-f])",
    r"whsec",
    r"s(?:hp[acps]|q0)",
    r"key-",
    r"eyJ",
    r"[=:%\s-](?:(?<=-)----BEGIN|(?<!-))",  # what joins a name and a value, a scheme and its key
)
_NAMES = (
    r"(?:[\w-]{0,32}[_-])?(?:api[_-]?key|apikey|secret(?:[_-]?(?:access[_-]?)?key)?|token)|passw(?:or)?d|passphrase|pwd"
    r"|[\w-]{0,16}password|access[_-]?key(?:[_-]?id)?|accountkey|account[_-]key|shared[_-]?access[_-]?(?:key|signature)"
    r"|private[_-]?key|subscription[_-]?key|encryption[_-]?key|credentials?|sess(?:ion)?[_-]?(?:id|key|token)"
    r"|[a-z]{1,16}token|jwt|bearer|(?:proxy-)?authorization|signature|x-(?:amz|goog)-(?:signature|credential)"
)
_NOT_TELLING = frozenset(("session_id", "sessionId"))  # as a key: a conversation's, as agent frameworks call it


def _any_case(pattern: str) -> str:
    return re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", pattern)


def _one_of(patterns: Iterable[str], alone: bool = False) -> str:
    """Join patterns so that each starts with one letter: only then does the engine skip what cannot start a match.

    `alone`: no letter or digit may stand before.
    """
    spread = []
    for pattern in patterns:
        letters, rest = pattern[0], pattern[1:]
        if letters == "[":
            letters, _, rest = pattern[1:].partition("]")
            letters = letters.replace(r"\s", " \t\n")
        before = "(?<![A-Za-z0-9].)" if alone else ""
        spread += [f"{re.escape(letter)}{before}{rest}" for letter in letters]
    return "|".join(spread)


@cache
def _suspect() -> re.Pattern[str]:
    return re.compile(_one_of(_BEGINNINGS))


@cache
def _prefixed() -> re.Pattern[str]:
    """Look for the - or _ first, which text has few of, and from there back at the prefix."""
    seen: dict[str, list[str]] = {}
    for prefix, rest in _PREFIXED.items():
        for one in _alternatives(prefix):
            seen.setdefault(rest, []).append(f"(?<={one})(?<![A-Za-z0-9]{'.' * _width(one)})")
    rests = [f"(?:{'|'.join(befores)}){rest}" for rest, befores in seen.items()]
    return re.compile(f"([-_])(?:{'|'.join(rests)})", re.DOTALL)


def _alternatives(prefix: str) -> list[str]:
    """Spell out a group, since one look back has one width."""
    before, group, rest = prefix.partition("(?:")
    if not group:
        return [prefix]
    middle, _, after = rest.partition(")")
    return [before + one + after for one in middle.split("|")]


def _width(prefix: str) -> int:
    return len(re.sub(r"\[[^]]*\](\{3\})?|\\w\{3\}", lambda m: "..." if "{3}" in m[0] else ".", prefix))


@cache
def _shape(key: str) -> re.Pattern[str]:
    return re.compile(_SHAPES[key], re.DOTALL)


_ENDS = (
    *("key", "token", "secret", "password", "passwd", "pwd", "passphrase", "credential", "credentials", "jwt"),
    *(
        "bearer",
        "session_id",
        "session-id",
        "sessionid",
        "sess_id",
        "sessid",
        "authorization",
        "signature",
        "key_id",
        "key-id",
    ),
    "keyid",
)
# The last three letters of those, loosely; then quotes or spaces; then what joins a name and its value.
_TAIL = r"[kroapsijunyKROAPSIJUNY_-][erwsaloiERWSALOI][yntdelsrYNTDELSR]"
_JOINT = re.compile(
    rf"[=:%](?:(?<={_TAIL}.)|(?<={_TAIL}[\"'\s].)|(?<={_TAIL}\\[\"'].)|(?<={_TAIL}[\"']\s.))"
    r"(?:(?<=[=:])>?|(?<=%)3[dD])\s{0,3}"
)
_VALUE = re.compile(r"\\?\"[^\"\\]{3,4096}|'[^'\\]{3,4096}|(?:[A-Z][a-z]{3,8}\s)?[^\s\"'&,;<>\\)\]}]{3,4096}")
_LAST_WORD = re.compile(r"[\w-]{1,64}$")
_PLAIN = re.compile(
    r"(?:[Nn]one|null|[Tt]rue|[Ff]alse|undefined|str|string|int|bytes|[Oo]ptional|required|missing|invalid|expired"
    r"|input|output|\d{1,6})[.!?]?"
)


def _named(text: str) -> str:
    """Mask what follows a telling name; what joins the two is rarer than letters, so that is looked for."""
    parts: list[str] = []
    done = 0
    for joint in _JOINT.finditer(text):
        start = joint.start()
        head = text[max(done, start - 64) : start].rstrip(" \t\"'\\")
        if head[-16:].lower().endswith(_ENDS) and _tells(head):
            value = _VALUE.match(text, joint.end())
            if value is not None and not _plain(value[0]):
                quote = value[0][: len(value[0]) - len(value[0].lstrip("\\\"'"))]
                parts += (text[done : joint.end()], quote, MASKED)
                done = value.end()
    return "".join((*parts, text[done:])) if parts else text


def _tells(head: str) -> bool:
    word = _LAST_WORD.search(head)
    return word is not None and _telling().fullmatch(word[0]) is not None


def _plain(value: str) -> bool:
    """Tell whether the value is masked already, or a word that speaks about the secret."""
    return "[masked" in value or _PLAIN.fullmatch(value.lstrip("\\\"'")) is not None


@cache
def _queried() -> re.Pattern[str]:
    """Short names, which tell only inside a query or a form."""
    names = r"(?:key|sig|code|auth|st|se|pass|pw|hmac)(?:=|%3[dD])"
    return re.compile(rf"([?&;]{names})([^&\s\"'<>]{{4,4096}})")


@cache
def _schemes() -> re.Pattern[str]:
    names = _one_of(map(_any_case, ("bearer", "basic", "negotiate", "digest")))
    return re.compile(rf"((?:{names})\s{{1,3}})(?=[^\s\"',;]{{0,256}}[\d=._~+/])([\w.~+/=-]{{8,8192}})")


@cache
def _user_info() -> re.Pattern[str]:
    return re.compile(r"://[^\s/?#@\"'<>]{1,512}@")


@cache
def _pem() -> re.Pattern[str]:
    return re.compile(
        r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:[^-]|-(?!----)){0,16384}(?:-----END[^-\n]{0,64}-----)?"
    )


@cache
def _cookies() -> re.Pattern[str]:
    return re.compile(r"([cC](?:ookie|OOKIE)[\"']?\s{0,3}[:=]\s{0,3})([^\r\n\"']{4,4096})")


def mask(text: str) -> str:
    """Replace every secret in `text` that can be told by its shape or its name."""
    if len(text) < _SHORTEST or text in _harmless:
        return text
    masked = _masked(text) if _suspect().search(text) else text
    if masked is text and len(text) <= _LONGEST_REMEMBERED:
        if len(_harmless) >= _REMEMBERED:
            _harmless.clear()
        _harmless.add(text)
    return masked


def _masked(text: str) -> str:
    found = text
    if "-----BEGIN" in found:
        found = _pem().sub(MASKED, found)
    if "@" in found:
        found = _user_info().sub(f"://{MASKED}@", found)
    if "ookie" in found or "OOKIE" in found:
        found = _cookies().sub(rf"\1{MASKED}", found)
    found = _prefixed().sub(rf"\1{MASKED}", found)
    for key in _SHAPES:
        if key in found:
            found = _shape(key).sub(MASKED, found)
    if any(word in found for word in _SCHEME_WORDS):
        found = _schemes().sub(rf"\1{MASKED}", found)
    if "=" in found or ":" in found or "%3" in found:
        found = _named(found)
    if "=" in found and ("?" in found or "&" in found or ";" in found):
        found = _queried().sub(rf"\1{MASKED}", found)
    return text if found == text else found


_SCHEME_WORDS = ("earer ", "asic ", "EARER ", "ASIC ", "egotiate ", "igest ")


@cache
def _telling() -> re.Pattern[str]:
    return re.compile(rf"(?:.{{0,200}}[._ -])?(?:{_NAMES}|(?:set-)?cookie|x-csrf-token)", re.IGNORECASE | re.DOTALL)


def telling(key: str) -> bool:
    """Tell whether the value beside this key is a secret, whatever its shape."""
    return len(key) < 256 and key not in _NOT_TELLING and _telling().fullmatch(key) is not None
