"""Which messages are a conversation, and the reason that is counted when they are not."""

import pytest

from mft.conversation import ROLE_ALIASES, Message, turn_fault


def messages(text: str) -> tuple[Message, ...]:
    """`s u a` -> system, user, assistant with text; `U`: a user with blanks alone; `x`: an assistant that is not trained."""
    role = {"s": "system", "u": "user", "U": "user", "a": "assistant", "A": "assistant", "x": "assistant"}
    return tuple(Message(role[letter], " \n" if letter in "UA" else "text", train=letter != "x") for letter in text.split())


@pytest.mark.parametrize("turns", ["u a", "s u a", "u a u a", "s u a u a u a", "u x u a", "u a u x"])
def test_an_optional_system_message_then_user_and_assistant_in_turn_is_a_conversation(turns: str):
    assert turn_fault(messages(turns)) is None


@pytest.mark.parametrize(("turns", "reason"), [
    ("", "no_messages"),
    ("u s a", "system_not_first"),
    ("s s u a", "system_not_first"),
    ("a u", "assistant_first"),
    ("s a", "assistant_first"),
    ("u u a", "repeated_role"),
    ("u a a", "repeated_role"),
    ("u a u", "no_answer"),
    ("u", "no_answer"),
    ("s", "no_answer"),
    ("U a", "empty_message"),
    ("u A", "empty_message"),
    ("u a u A", "empty_message"),
    ("u x", "nothing_trained"),
    ("u x u x", "nothing_trained"),
])
def test_anything_else_has_a_reason(turns: str, reason: str):
    assert turn_fault(messages(turns)) == reason


@pytest.mark.parametrize("turns", ["u", "s u", "u a u", "u x u"])
def test_a_prompt_ends_with_the_user(turns: str):
    assert turn_fault(messages(turns), prompt=True) is None


@pytest.mark.parametrize(("turns", "reason"), [("u a", "last_not_user"), ("s", "last_not_user"), ("", "no_messages"),
                                               ("a u", "assistant_first"), ("u a U", "empty_message")])
def test_what_cannot_be_a_prompt_has_a_reason(turns: str, reason: str):
    assert turn_fault(messages(turns), prompt=True) == reason


def test_an_empty_system_message_is_allowed():
    assert turn_fault((Message("system", ""), Message("user", "q"), Message("assistant", "a"))) is None


def test_the_training_mark_of_a_user_trains_nothing():
    assert turn_fault((Message("user", "q", train=True), Message("assistant", "a", train=False))) == "nothing_trained"


def test_roles_have_these_names_on_input_and_no_others():
    assert dict(ROLE_ALIASES) == {"system": "system", "user": "user", "human": "user",
                                  "assistant": "assistant", "bot": "assistant", "gpt": "assistant"}
