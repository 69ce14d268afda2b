"""Which characters of a text are credentials, by the rules of detect-secrets (Yelp, Apache-2.0) and one of our own for private keys.

Of its plugins those with a pattern of their own are used. Left out, because program text is full of what they match: the keyword
detector (any `password = "..."`, an example's too), the entropy detectors (hashes, ids, base64 test data), public IP addresses.
No verification by network takes place, and no setting of the library is read or changed: the classes are used directly.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain
from typing import Any, Final, Literal

from mft.conversation import Span
from mft.extras import require

Part = Literal["match", "group", "inner"]
"""`match`: all of it. `group`: a group of the pattern. `inner`: the match without the quotes or signs at its ends."""

PLUGINS: Final[tuple[tuple[str, str, str, Part], ...]] = (
    ("AWS_ACCESS_KEY", "aws", "AWSKeyDetector", "group"),
    ("ARTIFACTORY_CREDENTIALS", "artifactory", "ArtifactoryDetector", "inner"),
    ("AZURE_STORAGE_KEY", "azure_storage_key", "AzureStorageKeyDetector", "match"),
    ("BASIC_AUTH_PASSWORD", "basic_auth", "BasicAuthDetector", "group"),
    ("CLOUDANT_CREDENTIALS", "cloudant", "CloudantDetector", "group"),
    ("DISCORD_TOKEN", "discord", "DiscordBotTokenDetector", "match"),
    ("GITHUB_TOKEN", "github_token", "GitHubTokenDetector", "match"),
    ("GITLAB_TOKEN", "gitlab_token", "GitLabTokenDetector", "match"),
    ("IBM_CLOUD_KEY", "ibm_cloud_iam", "IbmCloudIamDetector", "group"),
    ("IBM_COS_KEY", "ibm_cos_hmac", "IbmCosHmacDetector", "group"),
    ("JSON_WEB_TOKEN", "jwt", "JwtTokenDetector", "match"),
    ("MAILCHIMP_KEY", "mailchimp", "MailchimpDetector", "match"),
    ("NPM_TOKEN", "npm", "NpmDetector", "group"),
    ("OPENAI_KEY", "openai", "OpenAIDetector", "match"),
    ("PYPI_TOKEN", "pypi_token", "PypiTokenDetector", "match"),
    ("SENDGRID_KEY", "sendgrid", "SendGridDetector", "match"),
    ("SLACK_TOKEN", "slack", "SlackDetector", "match"),
    ("SOFTLAYER_CREDENTIALS", "softlayer", "SoftlayerDetector", "group"),
    ("SQUARE_SECRET", "square_oauth", "SquareOAuthDetector", "match"),
    ("STRIPE_KEY", "stripe", "StripeDetector", "match"),
    ("TELEGRAM_TOKEN", "telegram_token", "TelegramBotTokenDetector", "match"),
    ("TWILIO_KEY", "twilio", "TwilioKeyDetector", "match"),
)
"""Name of the kind, module and class of the plugin, and the part of a match that is the secret."""

NEEDS: Final[Mapping[str, str]] = {"NPM_TOKEN": "_authToken", "OPENAI_KEY": "T3BlbkFJ"}
"""Text without which a rule cannot match; those of rules that take the square of a line's length."""

PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----(?P<body>.*?)(?P<end>-----END (?P=kind)-----|\Z)", re.S)
KEY_MATERIAL: Final = re.compile(r"[A-Za-z0-9+/=]{40}")
"""Fewer base64 characters in a row are no key: a header alone stands in `grep` commands and in prose."""

TOKEN_TAIL: Final = re.compile(r"[A-Za-z0-9_\-]*(?:\.[A-Za-z0-9_\-]+)?")
"""The rest of a JSON Web Token: the plugin's pattern stops before the signature."""

PLACEHOLDER: Final = re.compile(
    r"(?i)example|x{4}|\*{3}|\.{3}|^[<{\[$%].*|^(?:(?:your|my|the|some|db|user|admin|test)?[_-]?)*"
    r"(?:pass(?:word|wd)?|pwd|pw|secret|token|key|user(?:name)?|name|admin|root|test|guest|123\d*|p|x+|port|foo|bar)?\d*$")
"""Published examples (`AKIAIOSFODNN7EXAMPLE`), masks, template variables, and words that stand for a password."""


WINDOW, OVERLAP = 8192, 2048
"""A longer line is searched in windows: some patterns take the square of a line's length. No token is longer than the overlap."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A secret at `span`. `end_found` is false for a private key that nothing ends, which cannot be masked."""

    kind: str
    span: Span
    end_found: bool = True


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: str
    patterns: tuple[re.Pattern[str], ...]
    part: Part
    is_valid: Callable[[str], bool]

    def spans(self, line: str) -> Iterator[Span]:
        """The secrets of one line."""
        for pattern in self.patterns:
            for match in pattern.finditer(line):
                start, end = match.span(1) if self.part == "group" and pattern.groups and match[1] else match.span()
                if self.part == "inner":
                    start += len(match[0]) - len(match[0].lstrip(' \t=:"'))
                    end -= len(match[0]) - len(match[0].rstrip(' \t"'))
                if self.is_valid(line[start:end]) and not PLACEHOLDER.search(line[start:end]):
                    tail = TOKEN_TAIL.match(line, end) if self.kind == "JSON_WEB_TOKEN" else None
                    yield start, tail.end() if tail else end


class SecretFinder:
    """The rules, loaded once. `allow`: values that are no secrets."""

    def __init__(self, allow: Collection[str] = ()) -> None:
        require("detect_secrets", extra="secrets", why="the step 'secrets'")
        self._allow = frozenset(allow)
        self._rules = [_rule(*plugin) for plugin in PLUGINS]
        # One pass over a text that holds nothing, as most do: line ends count as the ends of a string do in the plugins.
        self._hints = {rule.kind: [re.compile(pattern.pattern, pattern.flags | re.M) for pattern in rule.patterns] for rule in self._rules}

    def find(self, text: str) -> list[Hit]:
        """The secrets of a text, in order and apart: two that overlap are one, of the first one's kind."""
        found = sorted(chain(_private_keys(text), self._tokens(text)), key=lambda hit: (hit.span[0], -hit.span[1]))
        hits: list[Hit] = []
        for hit in found:
            if text[slice(*hit.span)] in self._allow:
                continue
            if not hits or hit.span[0] >= hits[-1].span[1]:
                hits.append(hit)
            else:
                hits[-1] = replace(hits[-1], span=(hits[-1].span[0], max(hits[-1].span[1], hit.span[1])))
        return hits

    def _tokens(self, text: str) -> Iterator[Hit]:
        lines = text.splitlines(keepends=True)
        rules = [rule for rule in self._rules if NEEDS.get(rule.kind, "") in text]
        if max(map(len, lines), default=0) <= WINDOW:
            rules = [rule for rule in rules if any(hint.search(text) for hint in self._hints[rule.kind])]
        for position, part in _windows(lines) if rules else ():
            for rule in rules:
                yield from (Hit(rule.kind, (position + start, position + end)) for start, end in rule.spans(part))


def _windows(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(place, text) of each line without its end, or of the overlapping windows of a long one."""
    position = 0
    for line in lines:
        bare = line.rstrip("\r\n")
        for start in range(0, max(len(bare) - OVERLAP, 1), WINDOW - OVERLAP):
            yield position + start, bare[start:start + WINDOW]
        position += len(line)


def _rule(kind: str, module: str, name: str, part: Part) -> _Rule:
    plugin: Any = getattr(import_module(f"detect_secrets.plugins.{module}"), name)()
    is_valid = plugin.is_formally_valid if kind == "JSON_WEB_TOKEN" else lambda value: True
    return _Rule(kind, tuple(plugin.denylist), part, is_valid)


def _private_keys(text: str) -> Iterator[Hit]:
    if "PRIVATE KEY" not in text:
        return
    for match in PRIVATE_KEY.finditer(text):
        if KEY_MATERIAL.search(match["body"]):
            yield Hit("PRIVATE_KEY", match.span(), end_found=bool(match["end"]))
