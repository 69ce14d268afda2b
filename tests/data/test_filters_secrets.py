"""`secrets`: every kind is found, placeholders are not, masks leave the rest as it was, and no secret leaves the step."""

import base64
import json
import logging

import pytest
from filter_rows import row, step, verdicts
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mft.conversation import Conversation, Message
from mft.data.filters.secret_rules import PLUGINS, SecretFinder
from mft.errors import DependencyError

# Made up on the spot, and joined from parts, so that no scanner takes this file for a leak.
HEX = "0f9e8d7c6b5a49382716" * 5
LETTERS = "qWeRtYuIoPaSdFgHjKlZxCvBnM" * 4
BODY = "\n".join([LETTERS[:64]] * 3)


def jwt() -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({"alg": "HS256"}, {"sub": "17"})]
    return ".".join([*parts, "dBjftJeZ4CVPmB92K27uhbUJU1p1r"])


FOUND = {
    "AWS_ACCESS_KEY": ("id = '{}'", "AKIA" + "QWERTYUIOPASDFGH"),
    "ARTIFACTORY_CREDENTIALS": ("token={}", "AKC" + LETTERS[:20]),
    "AZURE_STORAGE_KEY": ("conn = {}", "AccountKey=" + LETTERS[:88]),
    "BASIC_AUTH_PASSWORD": ("https://joe:{}@host.org/x", "s3cr3tpw9"),
    "CLOUDANT_CREDENTIALS": ("cloudant_password = '{}'", (HEX * 2)[:64]),
    "DISCORD_TOKEN": ("run('{}')", "M" + LETTERS[:23] + ".aBcDeF." + LETTERS[:27]),
    "GITHUB_TOKEN": ("git clone x?{} now", "ghp_" + LETTERS[:36]),
    "GITLAB_TOKEN": ("{}", "glpat-" + LETTERS[:20]),
    "IBM_CLOUD_KEY": ("ibm_api_key = '{}'", LETTERS[:44]),
    "IBM_COS_KEY": ("cos_secret_access_key = '{}'", HEX[:48]),
    "JSON_WEB_TOKEN": ("Bearer {} and more", jwt()),
    "MAILCHIMP_KEY": ("key {}", HEX[:32] + "-us12"),
    "NPM_TOKEN": ("//registry.npmjs.org/:_authToken={}", "npm_" + LETTERS[:36]),
    "OPENAI_KEY": ("openai.api_key = '{}'", "sk-" + LETTERS[:20] + "T3Blbk" + "FJ" + LETTERS[:20]),
    "PYPI_TOKEN": ("password: {}", "pypi-AgEIcHlwaS5vcmc" + LETTERS[:80]),
    "SENDGRID_KEY": ("{}", "SG." + LETTERS[:22] + "." + LETTERS[:43]),
    "SLACK_TOKEN": ("slack('{}')", "xoxb-" + "1234567890-1234567890-" + LETTERS[:24]),
    "SOFTLAYER_CREDENTIALS": ("softlayer_api_key = {}", (HEX * 2)[:64]),
    "SQUARE_SECRET": ("{}", "sq0csp-" + LETTERS[:43]),
    "STRIPE_KEY": ("stripe.api_key='{}'", "sk_live_" + LETTERS[:24]),
    "TELEGRAM_TOKEN": ("bot {} here", "110201543:" + LETTERS[:35]),
    "TWILIO_KEY": ("sid = '{}'", "AC" + HEX[:32]),
    "PRIVATE_KEY": ("key:\n{}\nend", f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----"),
}


def masked(text, **keys):
    verdict = verdicts(step(type="secrets", action="mask", **keys), [row("q", text)])[0]
    return verdict.changed.messages[1].content if verdict.changed else (text if verdict.keep else None)


def test_every_rule_has_an_example():
    assert FOUND.keys() == {kind for kind, *_ in PLUGINS} | {"PRIVATE_KEY"}


@pytest.mark.parametrize("kind", FOUND)
def test_each_kind_is_found_and_masked_whole_and_once(kind):
    around, secret = FOUND[kind]
    text = f"中文\r\n{around.format(secret)}\nafter"
    made = step(type="secrets", action="drop")
    found = verdicts(made, [row("q", text)])[0]
    assert (found.reason, found.detail) == ("secret", kind)
    assert made.report() == {kind: 1}
    assert masked(text) == f"中文\r\n{around.format(f'<{kind}>')}\nafter"
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize("text", [
    "AKIAIOSFODNN7EXAMPLE", "postgres://user:password@localhost/db", "https://{user}:{password}@host", "mysql://USER:PASSWORD@HOST",
    "http://admin:admin123@localhost:8080", "ssh://git:${TOKEN}@host", "password = 'hunter2hunter2'", "sha256: " + HEX[:64], "8.8.8.8",
    "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "grep 'BEGIN RSA PRIVATE KEY' *",
    "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    "eyJub3QifQ.eyJqc29u.x", "mailto:joe@host.org", "http://host:8080/x@y", "def key_of(password): return sk_test_1",
])
def test_placeholders_and_what_only_looks_like_a_secret_stay(text):
    assert masked(text) == text


def test_secrets_are_looked_for_in_every_message():
    around, secret = FOUND["GITHUB_TOKEN"]
    made = step(type="secrets", action="mask")
    messages = (Message("system", around.format(secret)), Message("user", around.format(secret)), Message("assistant", "ok"))
    changed = verdicts(made, [Conversation("1", "t", messages)])[0]
    assert changed.note == "secret_masked"
    assert [message.content for message in changed.changed.messages] == ["git clone x?<GITHUB_TOKEN> now"] * 2 + ["ok"]
    assert made.report() == {"GITHUB_TOKEN": 2}


def test_several_secrets_of_one_line_are_all_masked():
    github, slack = FOUND["GITHUB_TOKEN"][1], FOUND["SLACK_TOKEN"][1]
    assert masked(f"{github} {slack}\n{github}") == "<GITHUB_TOKEN> <SLACK_TOKEN>\n<GITHUB_TOKEN>"


def test_two_secrets_that_overlap_are_masked_as_one():
    assert masked(f"x AC{HEX[:32]}-us12 y") == "x <TWILIO_KEY> y"


def test_spans_and_inputs_stay_on_their_characters():
    secret = FOUND["GITHUB_TOKEN"][1]
    text = f"a {secret} b"
    end = len(secret) + 2
    messages = (Message("user", text, input_start=end + 1), Message("assistant", text, untrained=((0, 2), (end, end + 2))))
    changed = verdicts(step(type="secrets", action="mask"), [Conversation("1", "t", messages)])[0].changed
    assert changed.messages == (Message("user", "a <GITHUB_TOKEN> b", input_start=17),
                                Message("assistant", "a <GITHUB_TOKEN> b", untrained=((0, 2), (16, 18))))


def test_what_cannot_be_masked_drops_the_row():
    secret = FOUND["GITHUB_TOKEN"][1]
    messages = (Message("user", "q"), Message("assistant", secret, untrained=((0, 5),)))
    assert verdicts(step(type="secrets", action="mask"), [Conversation("1", "t", messages)])[0].reason == "secret"
    assert masked(f"-----BEGIN EC PRIVATE KEY-----\n{BODY}\nand so on") is None


def test_allowed_values_are_no_secrets():
    secret = FOUND["STRIPE_KEY"][1]
    assert masked(secret, allow=[secret]) == secret
    assert masked(secret + " " + FOUND["SQUARE_SECRET"][1], allow=[secret]) == f"{secret} <SQUARE_SECRET>"


def test_no_secret_is_in_a_verdict_a_report_or_the_log(caplog):
    caplog.set_level(logging.DEBUG)
    for action in ("drop", "mask"):
        made = step(type="secrets", action=action)
        found = verdicts(made, [row("q", around.format(secret)) for around, secret in FOUND.values()])
        said = json.dumps(made.report()) + "".join(verdict.reason + verdict.detail + verdict.note for verdict in found) + caplog.text
        assert [kind for kind, (_, secret) in FOUND.items() if secret[-12:] in said or secret[:24] in said] == []


def test_a_secret_in_a_line_of_200_000_characters_is_found_wherever_it_stands():
    finder, secret = SecretFinder(), FOUND["GITHUB_TOKEN"][1]
    for place in (0, 6100, 8190, 12_280, 199_000):
        text = "x " * (place // 2) + secret + " y" * ((200_000 - place) // 2)
        assert [(hit.kind, text[slice(*hit.span)]) for hit in finder.find(text)] == [("GITHUB_TOKEN", secret)]


@pytest.mark.parametrize("text", ["//" * 100_000, "eyJ" * 70_000, "sk-" * 70_000, "-----BEGIN PRIVATE KEY-----" * 5000, "a:" * 100_000])
def test_text_made_to_hurt_is_judged_all_the_same(text):
    assert masked(text) == text


PIECES = ["x", "\n", "\r\n", "\u2028", "=", *(around.format(secret) for around, secret in FOUND.values())]


@given(st.lists(st.sampled_from(PIECES), max_size=6))
def test_nothing_is_found_in_a_masked_text(parts):
    text = "".join(parts)
    after = masked(text)
    assert after is None or SecretFinder().find(after) == []


def test_without_the_library_the_message_names_the_command(monkeypatch):
    monkeypatch.setattr("mft.extras.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'mft\[secrets\]'"):
        step(type="secrets", action="drop")


def test_the_action_has_no_default():
    with pytest.raises(ValidationError):
        step(type="secrets")
