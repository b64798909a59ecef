"""What may be said of an exception when content is off."""

from watchkeep.raised import without_quotes


class BadRequestError(Exception):
    __module__ = "openai"


def test_a_provider_s_words_are_replaced_as_s_and_as_r():
    """However the app wrote the exception into its line, the class stands in for what it said."""
    error = BadRequestError('CANARY it\'s\n"x"')
    for line in (f"failed: {error}", f"failed: {error!r}"):
        assert "CANARY" not in without_quotes(line, [error])
